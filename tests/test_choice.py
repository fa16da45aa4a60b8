"""The choice between all workers and one, by which was faster lately; no bit depends on it."""

import ctypes

import c_code
import numpy as np
import pytest
from conftest import needs_engine

import fastmlp
from fastmlp import MLP, SGD, Trainer, runtime

LATEST, SOON, LATE = 3, 8, 256  # as in choice.h and choice.c


class Choice(ctypes.Structure):
    """fm_choice of csrc/choice.h."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("warm", "trial")),
        *((name, ctypes.c_double) for name in ("done", "due", "tried", "period")),
        ("n", ctypes.c_int64 * 2),
        ("latest", ctypes.c_double * LATEST * 2),
    ]


@pytest.fixture(scope="module")
def c(tmp_path_factory):
    folder, compiler = tmp_path_factory.mktemp("choice"), c_code.compiler()
    flags = ["-std=gnu11", "-O1", "-shared", "-fPIC"]
    c_code.run(compiler, *flags, c_code.CSRC / "choice.c", "-o", folder / "choice.so")
    library = ctypes.CDLL(str(folder / "choice.so"))
    library.fm_choice_took.argtypes = [ctypes.c_void_p, ctypes.c_double, ctypes.c_double]
    return library


class Runs:
    """Makes the calls of run.c for the parts of a run, and records each part."""

    def __init__(self, c):
        self.c, self.choice, self.parts = c, Choice(), []

    def part(self, alone, together, work=10.0, trial_work=1.0):
        """One more part; alone and together: seconds that a unit of work takes with one worker and with all."""
        choice = ctypes.byref(self.choice)
        everybody, trial = bool(self.c.fm_choice_is_all(choice)), bool(self.c.fm_choice_is_trial(choice))
        work = trial_work if trial else work
        self.parts.append((everybody, trial, work))
        self.c.fm_choice_took(choice, work, work * (together if everybody else alone))
        return everybody

    def everybody_is_next(self):
        choice = ctypes.byref(self.choice)
        return bool(self.c.fm_choice_is_all(choice)) and not self.c.fm_choice_is_trial(choice)


@pytest.mark.parametrize(("alone", "together"), [(1.0, 2.0), (2.0, 1.0)])
def test_the_faster_choice_is_kept_and_trials_become_rare(c, alone, together):
    runs = Runs(c)
    for _ in range(4000):
        runs.part(alone, together)
    best = together < alone
    assert runs.parts[:4] == [(True, False, 10), (True, False, 10), (False, True, 1), (False, True, 1)]
    assert all(everybody == (best != trial) for everybody, trial, _ in runs.parts[4:])
    trials = [i for i, (_, trial, _) in enumerate(runs.parts) if trial]
    assert (np.diff(trials)[::2] == 1).all(), "one part to warm up, one that counts"
    between = [
        sum(work for *_, work in runs.parts[i + 1 : j]) for i, j in zip(trials[1::2], trials[2::2], strict=False)
    ]
    periods = np.diff([0.0, *between])
    assert (periods >= -10).all() and between[0] <= SOON * 2 + 10
    assert LATE * 2 <= between[-1] <= LATE * 2 + 10, "a trial is two parts of 1"


def test_a_trial_costs_less_than_a_percent_in_the_long_run(c):
    runs = Runs(c)
    for _ in range(20_000):
        runs.part(2.0, 1.0, work=1.0)  # single steps: a trial is as long as any other part
    tried = sum(work for _, trial, work in runs.parts if trial)
    assert 0 < tried < 0.01 * sum(work for *_, work in runs.parts)


def test_a_wrong_choice_is_corrected_soon(c):
    runs = Runs(c)
    for i in range(8):  # runs of all workers are disturbed at first
        runs.part(5.0, 9.0 if i < 4 else 2.5)
    for _ in range(40):
        runs.part(5.0, 2.5)
    assert all(runs.part(5.0, 2.5) for _ in range(3))


@pytest.mark.parametrize("in_trial", [False, True], ids=["the better one is disturbed", "the other one has luck"])
def test_one_outlier_changes_nothing(c, in_trial):
    runs = Runs(c)
    while len(runs.parts) < 60 or runs.choice.trial != in_trial:  # trial: 1 in the part that counts
        runs.part(2.0, 1.0)
    runs.part(*((0.1, 1.0) if in_trial else (2.0, 9.0)))
    assert not in_trial or runs.parts[-1][:2] == (False, True)
    assert runs.everybody_is_next()


def test_a_lasting_change_is_adopted_soon(c):
    runs = Runs(c)
    for _ in range(300):
        runs.part(2.0, 1.0)
    begun = len(runs.parts)
    for _ in range(20):
        runs.part(2.0, 8.0)
    ordinary = [everybody for everybody, trial, _ in runs.parts[begun:] if not trial]
    assert ordinary.index(False) <= 2 and not any(ordinary[2:]), "two slow parts of three decide"
    changed = [everybody for everybody, *_ in runs.parts].index(False, begun)
    assert any(trial for _, trial, _ in runs.parts[changed + 1 : changed + 4]), "the other is tried again soon"
    for _ in range(100):
        runs.part(2.0, 1.0)
    assert all(everybody != trial for everybody, trial, _ in runs.parts[-20:])


# ---- in the engine -------------------------------------------------------------------------------------------------


@pytest.fixture
def choosing():
    """As outside tests: a run does without workers that are late or make it slower."""
    runtime._engine.insist_on_workers(False)
    yield
    runtime._engine.insist_on_workers(True)


def engine_of(trainer):
    (found,) = trainer._plans.values()
    return found


@pytest.mark.targets
@needs_engine
@pytest.mark.parametrize("threads", [2, 3])
def test_fit_does_not_depend_on_the_choice_of_workers(choosing, rng, threads):
    X, y = rng.standard_normal((600, 100)), rng.integers(0, 7, 600)

    def train(n):
        fastmlp.set_num_threads(n)
        trainer = Trainer(MLP([100, 120, 7], seed=1), SGD(fastmlp.schedules.Cosine(0.1), momentum=0.9), dropout=0.2)
        history = trainer.fit(X, y, epochs=60, batch_size=100)
        return trainer, (history.loss, trainer.net.parameters.tobytes(), trainer.net.predict_proba(X).tobytes())

    trainer, found = train(threads)
    assert min(engine_of(trainer).measured) >= 1
    alone, expected = train(1)
    assert found == expected and engine_of(alone).measured == (0, 0)


@pytest.mark.targets
@needs_engine
def test_steps_and_predictions_do_not_depend_on_the_choice_of_workers(choosing, rng):
    X, y = rng.standard_normal((700, 300), np.float32), rng.integers(0, 7, 700)

    def train(n):
        fastmlp.set_num_threads(n)
        trainer = Trainer(MLP([300, 200, 7], seed=1), SGD(0.1, momentum=0.9))
        losses = [trainer.step(X[:100], y[:100]) for _ in range(30)]
        return trainer, (losses, [trainer.net.predict_proba(X).tobytes() for _ in range(30)])

    trainer, found = train(2)
    assert min(engine_of(trainer).measured) >= 1
    predictor = trainer.net._predictors[512, 2][0]
    assert min(predictor.measured) >= 1
    assert found == train(1)[1] and len(set(found[1])) == 1


@needs_engine
def test_large_steps_and_those_of_one_worker_are_not_measured(choosing, rng):
    for sizes, rows, threads in (([1000, 1000, 10], 200, 2), ([100, 100, 10], 100, 1), ([4, 3, 2], 10, 2)):
        fastmlp.set_num_threads(threads)
        trainer = Trainer(MLP(sizes, seed=1), SGD(0.01))
        trainer.fit(rng.standard_normal((rows, sizes[0])), rng.integers(0, sizes[-1], rows), epochs=3, batch_size=rows)
        assert engine_of(trainer).measured == (0, 0)
