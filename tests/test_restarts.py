"""Random restarts: the best of several trainings, whatever the number of threads that made them."""

import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import fastmlp
from fastmlp import MLP, SGD, EarlyStopping, fit_restarts, threads
from fastmlp.evaluation import held_out

X, Y = fastmlp.datasets.spirals(120, seed=0)


def make(seed):
    return MLP([2, 12, 2], "tanh", seed=seed)


SETTINGS = {"epochs": 20, "batch_size": 16, "optimizer": SGD(0.3, momentum=0.9)}


@pytest.mark.parametrize("n_jobs", [1, 2, 5, None])
@pytest.mark.targets
def test_the_best_does_not_depend_on_the_number_of_jobs(n_jobs):
    found = fit_restarts(make, X, Y, 5, validation_fraction=0.3, seed=7, n_jobs=n_jobs, **SETTINGS)
    rows = held_out(Y, 0.3, True, 7)
    nets = [make(seed) for seed in found.seeds]
    histories = [net.fit(X, Y, validation=rows, **SETTINGS) for net in nets]
    assert found.seeds == [7, 8, 9, 10, 11]
    assert found.scores == [history.val_loss[-1] for history in histories]
    assert [history.loss for history in found.histories] == [history.loss for history in histories]
    assert len(set(found.scores)) == 5 and found.best == int(np.argmin(found.scores))
    assert found.net.parameters.tobytes() == nets[found.best].parameters.tobytes()


def test_candidates_train_side_by_side_with_one_worker_each():
    together, workers = threading.Barrier(3), []

    def meet(state):
        together.wait(30)  # all three have to be there at once
        workers.append(fastmlp.get_num_threads())

    found = fit_restarts(
        make, X, Y, 3, n_jobs=3, epochs=2, callbacks=lambda seed: [fastmlp.callbacks.LambdaCallback(on_epoch_end=meet)]
    )
    assert workers == [1] * 6 and len(found.scores) == 3
    assert fastmlp.get_num_threads() == threads.default_num_threads()


@pytest.mark.parametrize("startable", [0, 1])
def test_fewer_threads_train_all_candidates(monkeypatch, startable):
    started, start = [], threading.Thread.start

    def start_few(thread):
        if len(started) == startable:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    expected = fit_restarts(make, X, Y, 3, n_jobs=1, **SETTINGS)
    monkeypatch.setattr(threading.Thread, "start", start_few)
    found = fit_restarts(make, X, Y, 3, n_jobs=3, **SETTINGS)
    assert len(started) == startable and found.scores == expected.scores


def test_one_at_a_time_trains_in_the_thread_of_the_caller():
    seen = set()
    note = fastmlp.callbacks.LambdaCallback(on_epoch_end=lambda state: seen.add(threading.get_ident()))
    fit_restarts(make, X, Y, 2, n_jobs=1, epochs=1, callbacks=lambda seed: [note])
    assert seen == {threading.get_ident()}


def flipped(y, prediction):
    return float((y != prediction).mean())


@pytest.mark.parametrize(
    ("score", "name", "sign"),
    [("loss", "loss", 1), ("accuracy", "accuracy", -1), ("roc_auc", "roc_auc", -1), (flipped, "flipped", -1)],
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("where", ["training data", "rows", "other data"])
def test_the_score_decides(score, name, sign, where, weighted):
    weight = np.linspace(0.1, 2, 120)
    rows = np.arange(0, 120, 3)
    tried = {"training data": slice(None), "rows": rows, "other data": slice(0, 50)}[where]
    more = {"sample_weight": weight} if weighted and where != "other data" else {}
    other = (X[:50], Y[:50], weight[:50]) if weighted else (X[:50], Y[:50])
    validation = {"training data": None, "rows": rows, "other data": other}[where]
    nets = {}

    def remember(seed):
        nets[seed] = make(seed)
        return nets[seed]

    found = fit_restarts(remember, X, Y, 6, validation=validation, score=score, **SETTINGS, **more)
    expected = [
        net.evaluate(X[tried], Y[tried], weight[tried] if weighted else None, metrics=[score])[name]
        for net in nets.values()
    ]
    assert found.scores == expected
    assert sign * found.scores[found.best] == min(sign * s for s in expected)
    assert found.net is nets[found.best]


def test_a_function_may_say_that_less_is_better():
    def error(y, prediction):
        return float((y != prediction).mean())

    error.greater_is_better = False
    found = fit_restarts(make, X, Y, 6, score=error, **SETTINGS)
    assert found.scores[found.best] == min(found.scores) < max(found.scores)


def test_each_candidate_stops_for_itself():
    stop = EarlyStopping("accuracy", patience=3)
    settings = {**SETTINGS, "epochs": 60, "early_stopping": stop}
    found = fit_restarts(make, X, Y, 4, validation_fraction=0.3, score="accuracy", **settings)
    assert found.scores == [max(history.val_accuracy) for history in found.histories]
    assert len({history.epochs for history in found.histories}) > 1
    assert stop.best_epoch == 0, "the caller's own was not used"


def make_some_diverge(seed):
    net = MLP([2, 12, 1], "relu", "mse", seed=seed)
    if seed % 2 == 0:
        for w in net.weights:
            w *= 1e9
    return net


def test_diverged_candidates_are_left_out():
    found = fit_restarts(make_some_diverge, X, Y, 4, epochs=20, optimizer=SGD(0.05))
    assert [np.isnan(score) for score in found.scores] == [True, False, True, False]
    assert found.best in (1, 3) and found.scores[found.best] == np.nanmin(found.scores)
    assert [history.epochs for history in found.histories] == [0, 20, 0, 20]


def test_divergence_of_all_candidates_is_raised():
    with pytest.raises(fastmlp.DivergenceError):
        fit_restarts(lambda seed: make_some_diverge(2 * seed), X, Y, 3, epochs=20, optimizer=SGD(0.05))


@pytest.mark.parametrize("data", [(X, Y), ([(X, Y)] * 2, None)], ids=["arrays", "batches"])
def test_an_error_in_one_candidate_stops_all(data):
    reached = {}

    def fail(state):
        reached[state.net.seed] = state.epoch
        if state.net.seed == 1 and state.epoch == 2:
            raise LookupError("on purpose")

    watch = fastmlp.callbacks.LambdaCallback(on_epoch_end=fail)
    with pytest.raises(LookupError, match="on purpose"):
        fit_restarts(make, *data, 3, n_jobs=3, epochs=50_000, validation=(X, Y), callbacks=lambda seed: [watch])
    assert reached[1] == 2 and max(reached.values()) < 50_000


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_an_interrupt_stops_all_candidates():
    code = """
        import fastmlp
        X, y = fastmlp.datasets.xor()
        print("ready", flush=True)
        try:
            fastmlp.fit_restarts(lambda seed: fastmlp.MLP([2, 4, 2], seed=seed), X, y, 4, n_jobs=2, epochs=10**9)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (out, process.returncode) == ("interrupted\n", 0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"restarts": 0}, ValueError, "restarts must be at least 1, got 0"),
        ({"n_jobs": 0}, ValueError, "n_jobs must be at least 1, got 0"),
        ({"seed": -1}, ValueError, "seed must be between 0 and"),
        ({"score": "acuracy"}, ValueError, "unknown metric 'acuracy'"),
        ({"score": "r2"}, ValueError, "'r2' is for regression"),
        ({"make_net": lambda seed: 3}, TypeError, "make_net must return an MLP, got 3 for seed 0"),
        ({"callbacks": []}, TypeError, r"callbacks must be a function seed -> list"),
        ({"validation_fraction": 2.0}, ValueError, r"validation_fraction must be a number in \(0, 1\), got 2.0"),
        (
            {"validation": np.arange(3), "validation_fraction": 0.5},
            ValueError,
            "must be None where validation is given",
        ),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        fit_restarts(**{"make_net": make, "X": X, "y": Y, "restarts": 2, "epochs": 1, **arguments})
    one = make(0)
    with pytest.raises(ValueError, match="make_net must return a new network each time"):
        fit_restarts(lambda seed: one, X, Y, 2, epochs=1)


def test_equal_initial_networks_are_refused():
    with pytest.raises(
        ValueError, match=r"make_net must pass its seed on, as in MLP\(\.\.\., seed=seed\).* for 5 and 6"
    ):
        fit_restarts(lambda seed: MLP([2, 4, 2]), X, Y, 2, epochs=1, seed=5)


def test_networks_of_zero_weights_differ_by_their_batches():
    found = fit_restarts(lambda seed: MLP([2, 2], initializer="zeros", seed=seed), X, Y, 2, epochs=1, batch_size=5)
    assert found.scores[0] != found.scores[1]
