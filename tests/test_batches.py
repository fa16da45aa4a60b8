"""Single steps, batches of the caller's own, and memory-mapped files."""

import tracemalloc

import numpy as np
import pytest
from trainer_options import SIZES, N, flat, network

import fastmlp
from fastmlp import MLP, SGD, Adam, Trainer, schedules


def test_steps_keep_their_plans(monkeypatch, data):
    X, y = data
    trainer, built = Trainer(network(), Adam()), []
    plan_for = trainer.plan_for
    monkeypatch.setattr(trainer, "plan_for", lambda *args: built.append(args) or plan_for(*args))
    for rows in (32, 32, 10, 32, 10, 9, 32):
        trainer.step(X[:rows], y[:rows])
    assert len(built) == 2
    for rows in range(1, N):
        trainer.step(X[:rows], y[:rows])
    assert len(trainer._plans) <= 4


def test_a_step_that_diverges_is_undone(data):
    X, y = data[0], np.eye(3)[data[1]]
    net = MLP(SIZES, "identity", "mse", dtype="float64")
    trainer = Trainer(net, SGD(1e200, momentum=0.9))
    before = flat(net)
    with pytest.raises(fastmlp.DivergenceError):
        for _ in range(3):
            before = flat(net)
            trainer.step(X, y)
    assert np.array_equal(net.parameters, before) and np.isfinite(net.parameters).all()
    assert not any(state.any() for state in trainer.states)


class Batches:
    """Batches that can be iterated repeatedly."""

    def __init__(self, *arrays, size, length=True):
        self.arrays, self.size, self.passes = arrays, size, 0
        if length:
            self.__class__ = SizedBatches

    def __iter__(self):
        self.passes += 1
        for start in range(0, len(self.arrays[0]), self.size):
            yield tuple(a[start : start + self.size] for a in self.arrays)


class SizedBatches(Batches):
    def __len__(self):
        return -(-len(self.arrays[0]) // self.size)


@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"average": 0.9}, {"class_weight": {1: 3.0}}])
@pytest.mark.parametrize("weighted", [False, True])
def test_fitting_batches_is_fitting_the_array_they_come_from(rng, data, options, weighted):
    weight = rng.random(N) if weighted else None
    arrays = data if weight is None else (*data, weight)
    optimizer = Adam(schedules.Cosine(warmup=3, learning_rate=0.05))
    whole, net = network(), network()
    expected = whole.fit(
        *data,
        sample_weight=weight,
        epochs=3,
        batch_size=16,
        shuffle=False,
        optimizer=optimizer,
        validation=data,
        **options,
    )
    batches = Batches(*arrays, size=16)
    found = net.fit(batches, epochs=3, optimizer=optimizer, validation=data, **options)
    assert batches.passes == 3
    assert np.array_equal(net.parameters, whole.parameters)
    for name in ("loss", "val_loss", "val_accuracy", "learning_rate"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)


@pytest.mark.parametrize("schedule", [schedules.OneCycle, schedules.Cosine, schedules.CosLog4, schedules.Polynomial])
def test_left_over_batches_move_at_the_planned_rate(data, schedule):
    optimizer = SGD(schedule(learning_rate=0.1))
    whole, net = network(), network()
    whole.fit(*data, epochs=3, batch_size=17, shuffle=False, optimizer=optimizer, accumulate=2)
    net.fit(Batches(*data, size=17), epochs=3, optimizer=optimizer, accumulate=2)
    assert np.array_equal(net.parameters, whole.parameters)


@pytest.mark.parametrize("schedule", [schedules.OneCycle, schedules.Cosine, schedules.CosLog4, schedules.Polynomial])
def test_total_steps_of_a_loop_of_steps(data, schedule):
    optimizer = SGD(schedule(learning_rate=0.1))
    whole, net, stream = network(), network(), network()
    whole.fit(*data, epochs=5, batch_size=25, shuffle=False, optimizer=optimizer)
    trainer = Trainer(net, optimizer, total_steps=10)
    batches = list(Batches(*data, size=25))
    for batch in batches * 5:
        trainer.step(*batch)
    assert np.array_equal(net.parameters, whole.parameters)
    Trainer(stream, optimizer, total_steps=10).fit((batch for batch in batches * 5), epochs=1)
    assert np.array_equal(stream.parameters, whole.parameters)


@pytest.mark.parametrize("kind", ["arrays", "sized", "unsized"])
def test_a_schedule_may_span_several_fits(data, kind):
    optimizer = SGD(schedules.Polynomial(learning_rate=0.1))
    whole, net = network(), network()
    whole.fit(*data, epochs=5, batch_size=25, shuffle=False, optimizer=optimizer)
    trainer = Trainer(net, optimizer, total_steps=10)
    for epochs in (1, 3, 1):
        if kind == "arrays":
            trainer.fit(*data, epochs=epochs, batch_size=25, shuffle=False)
        else:
            trainer.fit(Batches(*data, size=25, length=kind == "sized"), epochs=epochs)
    assert np.array_equal(net.parameters, whole.parameters)


def test_a_step_whose_schedule_needs_total_steps_is_refused(data):
    trainer = Trainer(network(), SGD(schedules.Cosine()))
    before = flat(trainer.net)
    with pytest.raises(ValueError, match=r"Cosine\(.*depends on the total number of steps.*total_steps=1000"):
        trainer.step(*data)
    assert np.array_equal(trainer.net.parameters, before) and trainer.steps == 0
    for wrong in (0, 1.5, "many"):
        with pytest.raises((TypeError, ValueError), match=r"total_steps must be (a whole number|at least 1)"):
            Trainer(network(), total_steps=wrong)


def test_the_plateau_of_a_trainer_can_be_told_losses(data):
    trainer = Trainer(network(), SGD(schedules.ReduceOnPlateau(0.5, patience=0, learning_rate=0.1)))
    for _ in range(3):
        trainer.optimizer.learning_rate.observe(trainer.step(*data) + 1e6 * trainer.steps)
    assert trainer.optimizer.rates(trainer.steps, 1, 0) == [0.025]


def test_a_list_and_a_generator_of_batches(data):
    net, other = network(), network()
    net.fit(list(Batches(*data, size=20)), epochs=1)
    other.fit((batch for batch in Batches(*data, size=20)), epochs=1)
    assert np.array_equal(net.parameters, other.parameters)
    assert not np.array_equal(net.parameters, network().parameters)


def test_batches_that_cannot_be_fitted(data):
    X, y = data
    net = network()
    before = flat(net)
    for stream, error, words in [
        ((b for b in [(X, y)]), ValueError, ["epochs must be 1 for a generator", "got 2"]),
        (X, TypeError, ["y must be given", "ndarray"]),
        ("text", TypeError, ["y must be given", "str"]),
        (5, TypeError, ["y must be given", "int"]),
        ([], ValueError, ["at least one", "epoch 1"]),
        ([X], TypeError, ["batch 0 must be (X, y) or (X, y, sample_weight)", "ndarray"]),
        ([(X,)], TypeError, ["batch 0", "1 item"]),
        ([(X, y + 5)], ValueError, ["class numbers 0..2"]),
    ]:
        with pytest.raises(error) as caught:
            net.fit(stream, epochs=2)
        assert all(word in str(caught.value) for word in words), str(caught.value)
    with pytest.raises(ValueError, match="depends on the total number of steps"):
        net.fit(Batches(X, y, size=9, length=False), optimizer=SGD(schedules.Cosine()))
    for name, value in (("sample_weight", np.ones(N)), ("validation_fraction", 0.2)):
        with pytest.raises(ValueError, match=f"{name} must be None"):
            net.fit([(X, y)], **{name: value})
    with pytest.raises(ValueError, match="balanced"):
        net.fit([(X, y)], class_weight="balanced")
    with pytest.raises(ValueError, match="learn_scaling"):
        network(standardize="mean").fit([(X, y)])
    assert np.array_equal(net.parameters, before)
    net.fit(Batches(X, y, size=9, length=False), optimizer=SGD(schedules.Exponential(0.9)), epochs=1)
    assert not np.array_equal(net.parameters, before)


@pytest.mark.parametrize("standardize", [None, "mean", "robust"])
def test_a_memory_mapped_file_is_read_in_place(rng, tmp_path, monkeypatch, standardize):
    rows, columns = 200_000, 20
    np.save(tmp_path / "X.npy", rng.standard_normal((rows, columns), dtype=np.float32))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    y = (X[:, 0] > 0).astype(np.uint8)
    net = MLP([columns, 4, 2], standardize=standardize)
    trainer = Trainer(net, SGD(0.1))
    monkeypatch.setattr(fastmlp.scaling, "QUANTILE_ROWS", 1 << 14)
    in_place = []

    class Look:
        def on_epoch_end(self, state):
            (runner,) = trainer._plans.values()
            in_place.append(np.shares_memory(runner.plan.ops[runner.plan.gathers[0]].data, X))

    tracemalloc.start()
    try:
        trainer.fit(X, y, epochs=1, batch_size=1000, shuffle=False, callbacks=[Look()])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert in_place == [True]
    limit = X.nbytes if standardize is None else 2.5 * 8 * fastmlp.scaling.CHUNK + X.nbytes / 2
    assert peak < limit, f"{peak / X.nbytes:.1f} times the data"
