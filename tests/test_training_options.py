"""What a Trainer does beside plain steps: dropout, penalties, clipping, sums, averages, class weights, batches."""

import copy
import itertools
import math
import tracemalloc

import numpy as np
import pytest
from conftest import needs_engine

import fastmlp
from fastmlp import MLP, SGD, Adam, AdamW, Trainer, losses, schedules
from fastmlp.callbacks import LambdaCallback
from fastmlp.lockstep import LockStepExecutor
from fastmlp.plan import Op
from fastmlp.runtime import executor

SIZES = [5, 9, 7, 3]
N = 50


@pytest.fixture
def data(rng):
    X = rng.standard_normal((N, 5))
    return X, (X @ rng.standard_normal((5, 3))).argmax(axis=1)


def network(**settings):
    return MLP(SIZES, "tanh", **{"dtype": "float64", "seed": 3, **settings})


def flat(net):
    return net.parameters.copy()


@needs_engine  # which the reference is compared with, and which makes so many steps in no time
@pytest.mark.parametrize("decay", [0.9, 0.999, 0.9999])
def test_an_average_of_float32_is_not_drawn_aside(rng, decay):
    y = 1 + rng.standard_normal((20_000, 1))
    found = {}
    for dtype in ("float32", "float64"):
        net = MLP([1, 1], loss="mse", bias=False, weights=[([[1.0]], None)], dtype=dtype)
        trainer = Trainer(net, SGD(0.05), average=decay)
        trainer.fit(np.ones((20_000, 1)), y, epochs=1, batch_size=1, shuffle=False)
        found[dtype] = float(trainer.average[0])
    assert found["float32"] == pytest.approx(found["float64"], rel=1e-5)


# Name: the optimizer, and the options of Trainer and MLP.
OPTIONS = {
    "dropout": (Adam(0.01), {"dropout": 0.3, "input_dropout": 0.1}, {}),
    "dropout of one layer": (SGD(0.1, momentum=0.9), {"dropout": [0.0, 0.5]}, {}),
    "max_norm": (SGD(0.5), {"max_norm": 0.7}, {}),
    "average": (SGD(0.1), {"average": 0.9}, {}),
    "average and max_norm": (Adam(0.05), {"average": 0.5, "max_norm": 0.5, "dropout": 0.2}, {}),
    "accumulate": (Adam(0.01), {"accumulate": 3}, {}),
    "accumulate all": (
        AdamW(0.01, clip_norm=0.1),
        {"accumulate": 2, "dropout": 0.2, "average": 0.9, "max_norm": 1},
        {},
    ),
    "lr_factors": (SGD(0.1), {"lr_factors": [0.0, 1.0, 2.0]}, {}),
    "class_weight": (SGD(0.1), {"class_weight": "balanced"}, {}),
    "clip_norm": (SGD(0.1, clip_norm=0.05), {}, {}),
    "clip_value": (SGD(0.1, clip_value=0.001), {}, {}),
    "penalties": (SGD(0.1, l1=0.01, l2=0.02, weight_decay=0.03), {}, {}),
    "penalties of biases": (Adam(0.1, l1=0.01, l2=0.02, weight_decay=0.03, decay_biases=True), {}, {}),
    "standardize mean": (SGD(0.1), {}, {"standardize": "mean"}),
    "standardize robust": (SGD(0.1), {"input_dropout": 0.2}, {"standardize": "robust"}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_both_executors_agree_op_by_op(monkeypatch, target, dtype, data, name):
    monkeypatch.setenv("FASTMLP_CHECK", "1")
    monkeypatch.setenv("FASTMLP_TARGET", target)
    optimizer, options, settings = OPTIONS[name]
    net = network(dtype=dtype, backend="engine", **settings)
    before = flat(net)
    trainer = Trainer(net, optimizer, **options)
    trainer.fit(*data, epochs=2, batch_size=16, validation=data)  # raises where they differ
    assert all(isinstance(runner, LockStepExecutor) for runner in trainer._plans.values())
    assert not np.array_equal(net.parameters, before)
    reference = network(dtype=dtype, backend="reference", **settings)
    Trainer(reference, optimizer, **options).fit(*data, epochs=2, batch_size=16)
    np.testing.assert_allclose(net.parameters, reference.parameters, rtol=0, atol=1e-11 if dtype == "float64" else 1e-3)


@pytest.mark.parametrize("name", OPTIONS)
def test_bits_do_not_depend_on_threads(monkeypatch, target, dtype, data, name):
    monkeypatch.setenv("FASTMLP_TARGET", target)
    monkeypatch.setattr(Op, "flops", property(lambda op: 1e12))  # or nobody would wake a worker for so little
    optimizer, options, settings = OPTIONS[name]
    found = set()
    try:
        for threads in (1, 2, 3):
            fastmlp.set_num_threads(threads)
            net = network(dtype=dtype, **settings)
            history = net.fit(*data, epochs=2, batch_size=16, optimizer=optimizer, validation=data, **options)
            found.add((net.parameters.tobytes(), str(history.loss), str(history.val_loss)))
    finally:
        fastmlp.set_num_threads(None)
    assert len(found) == 1


@pytest.mark.parametrize("name", [name for name in OPTIONS if "accumulate" not in name and name != "clip_norm"])
def test_fused_and_unfused_updates_have_the_same_bits(monkeypatch, target, dtype, data, name):
    monkeypatch.setenv("FASTMLP_TARGET", target)
    optimizer, options, settings = OPTIONS[name]
    found = []
    for unfused in (False, True):
        net = network(dtype=dtype, backend="engine", **settings)
        trainer = Trainer(net, optimizer, **options)
        plan = trainer.plan_for(16, True, unfused=unfused)
        assert ("linear_update" in [op.opcode for op in plan.ops]) == (not unfused)
        plan.bind(*data)
        executor(plan, "engine").run(None, np.array([0, 16, 32, 48]), np.full(3, 0.1))
        found.append((net.parameters.tobytes(), *(array.tobytes() for array in trainer.moving)))
    assert found[0] == found[1]


# ---- dropout ---------------------------------------------------------------------------------------------------------


def test_masks_differ_in_every_step_and_come_from_the_seed(data):
    def step_losses(seed=3, dropout=0.5, **more):
        trainer = Trainer(network(seed=seed, weights=weights), SGD(1e-30), dropout=dropout, **more)
        return [trainer.step(*data) for _ in range(4)]

    weights = network().__getstate__()["weights"]
    found = step_losses()
    assert len(set(found)) == 4
    assert found == step_losses()
    assert not set(found) & set(step_losses(seed=4))
    assert step_losses(dropout=0.0) == pytest.approx([network().evaluate(*data)["loss"]] * 4, rel=1e-12)
    assert len(set(step_losses(dropout=0.0, input_dropout=0.5))) == 4


def test_layers_of_the_same_width_have_masks_of_their_own(rng):
    net = MLP([8, 8, 8, 1], "identity", "mse", dtype="float64")
    trainer = Trainer(net, SGD(1e-30), dropout=0.5, input_dropout=0.5)
    trainer.step(np.ones((20, 8)), np.ones(20))
    (runner,) = trainer._plans.values()
    masks = [op.y != 0 for op in runner.plan.ops if op.opcode == "dropout" and op.x is not op.y]
    assert len(masks) == 3 and not any(np.array_equal(a, b) for a, b in itertools.combinations(masks, 2))


def test_a_second_fit_draws_other_masks(data):
    net = network()
    before = net.__getstate__()["weights"]
    losses_of_fits = []
    for _ in range(2):
        net.set_weights(before)
        losses_of_fits.append(net.fit(*data, epochs=1, batch_size=None, optimizer=SGD(1e-30), dropout=0.5).loss[0])
    assert losses_of_fits[0] != losses_of_fits[1]


def test_dropout_keeps_the_mean_and_is_off_in_predictions(rng):
    net = MLP([2000, 1], loss="mse", weights=[(np.ones((2000, 1)), [0.0])], dtype="float64")
    X = np.ones((1, 2000))
    trainer = Trainer(net, SGD(1e-30), input_dropout=0.25)
    outputs = [2000 - np.sqrt(trainer.step(X, [2000.0])) for _ in range(2)]
    outputs += [2000 + np.sqrt(trainer.step(X, [2000.0])) for _ in range(2)]
    assert all(abs(out - 2000) < 5 * np.sqrt(2000 / 3) and out != 2000 for out in outputs)
    assert net.predict(X) == 2000


@pytest.mark.parametrize("backend", ["engine", "reference"])
@pytest.mark.parametrize("options", [{"dropout": [0.4, 0.3]}, {"input_dropout": 0.5}])
def test_gradients_go_through_the_masks_of_the_same_step(data, options, backend):
    X, y = (a[:6] for a in data)
    net = network(backend=backend)

    def first_step(parameters, rate):
        twin = copy.deepcopy(net)  # and with it the key of the masks
        twin.parameters[:] = parameters
        return Trainer(twin, SGD(rate), **options).step(X, y), twin.parameters

    start = flat(net)
    gradient = start - first_step(start, 1.0)[1]
    plain = start - (lambda twin: (Trainer(twin, SGD(1.0)).step(X, y), twin.parameters)[1])(copy.deepcopy(net))
    assert np.abs(gradient - plain).max() > 1e-3
    for i in net.layout.places()[::7]:
        moved = [start.copy(), start.copy()]
        moved[0][i] += 1e-5
        moved[1][i] -= 1e-5
        numerical = (first_step(moved[0], 1e-30)[0] - first_step(moved[1], 1e-30)[0]) / 2e-5
        assert gradient[i] == pytest.approx(numerical, rel=1e-6, abs=1e-9)


# ---- penalties and clipping, by their formulas -----------------------------------------------------------------------


def one_step(optimizer, data, **options):
    """Weights and biases before a step, the gradients there, and weights and biases after it."""
    net = network()
    for b in net.biases:
        b[:] = 0.3
    before = [(w.copy(), b.copy()) for w, b in zip(net.weights, net.biases, strict=True)]
    gradients = net.loss_and_gradients(*data)[1]
    Trainer(net, optimizer, **options).step(*data)
    return zip(before, gradients, zip(net.weights, net.biases, strict=True), strict=True)


@pytest.mark.parametrize("on_biases", [False, True])
def test_penalties_are_those_of_their_formulas(data, on_biases):
    optimizer = SGD(0.1, l1=0.01, l2=0.02, weight_decay=0.3, decay_biases=on_biases)
    for before, gradient, after in one_step(optimizer, data):
        for i, on in ((0, True), (1, on_biases)):
            p, g = before[i], gradient[i]
            expected = p * (1 - 0.1 * 0.3) - 0.1 * (g + 0.02 * p + 0.01 * np.sign(p)) if on else p - 0.1 * g
            np.testing.assert_allclose(after[i], expected, rtol=1e-12)


def test_clipping_by_value_and_by_the_norm_of_all_gradients(data):
    for before, gradient, after in one_step(SGD(1.0, clip_value=0.01), data):
        for i in (0, 1):
            np.testing.assert_allclose(before[i] - after[i], np.clip(gradient[i], -0.01, 0.01), rtol=1e-9, atol=1e-15)
    found = list(one_step(SGD(1.0, clip_norm=0.02), data))
    norm = np.sqrt(sum((g**2).sum() for _, pair, _ in found for g in pair))
    assert norm > 0.02
    for before, gradient, after in found:
        for i in (0, 1):
            np.testing.assert_allclose(before[i] - after[i], gradient[i] * 0.02 / norm, rtol=1e-9, atol=1e-15)
    for before, gradient, after in one_step(SGD(1.0, clip_norm=1e3), data):
        np.testing.assert_allclose(before[0] - after[0], gradient[0], rtol=1e-9, atol=1e-15)


def test_factors_on_the_rates_of_layers(data):
    factors = (0.0, 1.0, 2.5)
    for factor, (before, gradient, after) in zip(factors, one_step(SGD(0.1), data, lr_factors=factors), strict=True):
        for i in (0, 1):
            np.testing.assert_allclose(before[i] - after[i], factor * 0.1 * gradient[i], rtol=1e-9, atol=1e-15)


def test_max_norm_holds_for_every_unit_and_spares_biases(data):
    net, free = network(), network()
    net.fit(*data, epochs=3, optimizer=SGD(1.0), max_norm=0.6)
    free.fit(*data, epochs=3, optimizer=SGD(1.0))
    norms = np.concatenate([np.linalg.norm(w, axis=0) for w in net.weights])
    assert norms.max() == pytest.approx(0.6) and norms.max() <= 0.6 + 1e-12
    assert max(np.linalg.norm(w, axis=0).max() for w in free.weights) > 1
    for before, gradient, after in one_step(SGD(0.1), data, max_norm=0.01):
        np.testing.assert_allclose(after[1], before[1] - 0.1 * gradient[1], rtol=1e-12)


# ---- accumulation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), Adam(0.01, weight_decay=0.1), SGD(0.1, clip_norm=0.1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_batches_accumulated_are_one_batch_of_all_their_rows(rng, data, optimizer, weighted):
    weight = rng.random(N) * (np.arange(N) % 4 > 0) if weighted else None
    if weighted:
        weight[4:8] = 0  # a batch without any weight
    found = []
    for batch, accumulate in ((12, 1), (4, 3)):  # 50 rows: the last group has 2, in a batch of its own
        net = network()
        trainer = Trainer(net, optimizer, accumulate=accumulate)
        history = trainer.fit(*data, epochs=3, batch_size=batch, shuffle=False, sample_weight=weight)
        assert trainer.steps == 15
        found.append((net.parameters, history.loss))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weights", [(1e90, 1.0, 1e-90), (1e-90, 1e90, 1.0), (1e40, 1e-40, 1e-80), (1e-60, 1, 1e-20)])
def test_accumulated_batches_may_weigh_next_to_nothing(data, dtype, weights):
    X, y, rows = data[0][:12], data[1][:12], 4
    weight = np.repeat(weights, rows)
    heavy = slice(rows * np.argmax(weights), rows * np.argmax(weights) + rows)  # the others are lost in rounding
    net, expected = network(dtype=dtype), network(dtype=dtype)
    trainer = Trainer(net, SGD(0.1), accumulate=3)
    for begin in range(0, 12, rows):
        batch = slice(begin, begin + rows)
        trainer.step(X[batch], y[batch], weight[batch])
    Trainer(expected, SGD(0.1)).step(X[heavy], y[heavy], weight[heavy])
    np.testing.assert_allclose(net.parameters, expected.parameters, rtol=1e-5, atol=1e-6)


def test_accumulated_steps_move_nothing_until_the_last(data):
    X, y = data
    whole, net = network(), network()
    Trainer(whole, SGD(0.1)).step(X, y)
    trainer = Trainer(net, SGD(0.1), accumulate=3)
    for a, b in itertools.pairwise((0, 20, 25, 50)):
        assert net.parameters.tobytes() == network().parameters.tobytes()
        trainer.step(X[a:b], y[a:b])
    np.testing.assert_allclose(net.parameters, whole.parameters, rtol=1e-12, atol=1e-15)
    before = flat(net)
    trainer.step(X[:30], y[:30])
    assert np.array_equal(net.parameters, before) and trainer.steps == 1
    trainer.flush()
    expected = Trainer(whole, SGD(0.1))
    expected.step(X[:30], y[:30])
    np.testing.assert_allclose(net.parameters, whole.parameters, rtol=1e-12, atol=1e-15)
    trainer.flush()
    assert trainer.steps == 2


def test_schedules_count_updates(data):
    rate = schedules.Step(1, 0.5, learning_rate=0.1)
    history = network().fit(*data, epochs=2, batch_size=10, optimizer=SGD(rate), accumulate=2)  # 5 batches, 3 updates
    np.testing.assert_allclose(history.learning_rate, [0.1 * 0.5**2, 0.1 * 0.5**5])


def test_every_accumulated_batch_has_its_own_mask(data):
    trainer = Trainer(network(), SGD(1e-30), dropout=0.5, accumulate=2)
    assert len({trainer.step(*data) for _ in range(6)}) == 6


# ---- averages --------------------------------------------------------------------------------------------------------


def test_the_average_follows_its_formula(data):
    net = network()
    trainer = Trainer(net, SGD(0.5), average=0.7)
    expected = flat(net)
    for _ in range(5):
        trainer.step(*data)
        expected = 0.7 * expected + 0.3 * net.parameters
    np.testing.assert_allclose(trainer.average, expected, rtol=1e-12, atol=1e-15)
    raw = flat(net)
    trainer.show_average()
    assert np.array_equal(net.parameters, trainer.average) and not np.array_equal(net.parameters, raw)
    trainer.show_average()
    trainer.show_raw()
    assert np.array_equal(net.parameters, raw)


def test_a_flush_moves_the_raw_weights(data):
    shown, plain = (Trainer(network(), SGD(0.5), average=0.7, accumulate=2) for _ in range(2))
    for trainer in (shown, plain):
        for _ in range(3):
            trainer.step(*data)
    shown.show_average()
    shown.flush(), plain.flush()
    assert np.array_equal(shown.net.parameters, plain.net.parameters)
    assert np.array_equal(shown.average, plain.average)


def test_fit_ends_with_averaged_weights_and_goes_on_from_the_raw_ones(data):
    plain, net, raw = network(), network(), network()
    Trainer(plain, Adam(0.05)).fit(*data, epochs=4)
    trainer = Trainer(net, Adam(0.05), average=0.9)
    history = trainer.fit(*data, epochs=2, validation=data)
    assert np.array_equal(net.parameters, trainer.average)
    assert history.val_loss[-1] == net.evaluate(*data)["loss"]
    trainer.fit(*data, epochs=2, use_average=False)
    assert np.array_equal(net.parameters, plain.parameters)
    raw.fit(*data, epochs=4, optimizer=Adam(0.05), average=0.9, use_average=False)
    assert np.array_equal(raw.parameters, plain.parameters)
    net.fit(*data, epochs=1, optimizer=Adam(0.05), average=0.9)
    assert not np.array_equal(net.parameters, plain.parameters)


def test_weights_set_between_fits_are_the_ones_trained_on(data):
    net, plain = network(), network()
    trainer = Trainer(net, SGD(0.1), average=0.9)
    trainer.fit(*data, epochs=1)
    start = network(seed=8).__getstate__()["weights"]
    for each in (net, plain):
        each.set_weights(start)
    trainer.step(*data)
    Trainer(plain, SGD(0.1)).step(*data)
    assert np.array_equal(net.parameters, plain.parameters)
    np.testing.assert_allclose(trainer.average, 0.9 * network(seed=8).parameters + 0.1 * net.parameters, rtol=1e-12)


@pytest.mark.parametrize("validation", [True, False])
def test_a_divergence_does_not_stay_in_the_average(data, validation):
    X, y = data[0], np.eye(3)[data[1]]
    net = MLP(SIZES, "identity", "mse", dtype="float64")
    trainer = Trainer(net, SGD(0.1), average=0.9)
    trainer.fit(X, y, epochs=1)
    trainer.optimizer = SGD(1e200)
    with pytest.raises(fastmlp.DivergenceError):
        trainer.fit(X, y, epochs=3, validation=(X, y) if validation else None)
    assert np.isfinite(net.parameters).all()
    trainer.optimizer = SGD(0.1)
    trainer.fit(X, y, epochs=1)
    assert np.isfinite(net.parameters).all() and np.isfinite(trainer.average).all()


# ---- what cannot be changed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["net", "options", "states"])
def test_what_a_trainer_is_made_with_cannot_be_assigned(name):
    trainer, other = Trainer(network(), Adam(0.1)), Trainer(network(), SGD(0.1), dropout=0.5)
    before = getattr(trainer, name)
    with pytest.raises(AttributeError, match=f"^{name} is fixed at construction: create a new Trainer [(]got "):
        setattr(trainer, name, getattr(other, name))
    assert getattr(trainer, name) is before


@pytest.mark.parametrize("wrong", [Adam(0.1), SGD(0.1), "lbfgs"])
def test_an_optimizer_that_remembers_something_else_is_refused(data, wrong):
    trainer, plain = (Trainer(network(), SGD(0.1, momentum=0.5)) for _ in range(2))
    trainer.step(*data), plain.step(*data)
    with pytest.raises(AttributeError, match=r"optimizer must have the same .* SGD\(.*, got .*: create a new Trainer"):
        trainer.optimizer = wrong
    trainer.step(*data), plain.step(*data)
    assert np.array_equal(trainer.net.parameters, plain.net.parameters)


def test_another_optimizer_is_in_force_at_once(data):
    trainer, plain = (Trainer(network(), SGD(0.1, momentum=momentum)) for momentum in (0.5, 0.9))
    trainer.step(*data)  # from a state of zeros: the momentum has no part in it
    trainer.optimizer = SGD(0.2, momentum=0.9)
    plain.step(*data)
    plain.optimizer = SGD(0.2, momentum=0.9)
    for _ in range(3):
        assert trainer.step(*data) == plain.step(*data)
    assert np.array_equal(trainer.net.parameters, plain.net.parameters)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_optimizer_changed_by_a_callback_is_the_one_of_the_next_epoch(data, accumulate):
    def change(state):
        state.trainer.optimizer = SGD(0.05, momentum=0.1)

    first, second = (Trainer(network(), SGD(0.1, momentum=0.9), accumulate=accumulate) for _ in range(2))
    first.fit(*data, epochs=2, shuffle=False, callbacks=[LambdaCallback(on_epoch_end=change)])
    second.fit(*data, epochs=1, shuffle=False)
    second.optimizer = SGD(0.05, momentum=0.1)
    second.fit(*data, epochs=1, shuffle=False)
    assert np.array_equal(first.net.parameters, second.net.parameters)


def test_a_plateau_that_a_callback_brings_is_told_how_training_goes(data):
    def change(state):
        if state.epoch == 1:
            state.trainer.optimizer = SGD(schedules.ReduceOnPlateau(0.5, patience=0, learning_rate=1e-30))

    watch = [LambdaCallback(on_epoch_end=change)]
    history = Trainer(network(), SGD(0.1)).fit(*data, epochs=5, batch_size=None, callbacks=watch)
    assert history.learning_rate == [0.1, 1e-30, 1e-30, 0.5e-30, 0.25e-30]


def test_sums_are_flushed_by_another_optimizer(data):
    trainer, plain = (Trainer(network(), SGD(0.1, l2=l2), accumulate=2) for l2 in (0.0, 0.1))
    trainer.step(*data), plain.step(*data)
    trainer.optimizer = SGD(0.1, l2=0.1)
    trainer.flush(), plain.flush()
    assert np.array_equal(trainer.net.parameters, plain.net.parameters)


# ---- class weights ---------------------------------------------------------------------------------------------------


def test_class_weights_are_sample_weights_in_training_only(rng, data):
    X, y = data
    given = rng.random(N)
    count = np.bincount(y, minlength=3)
    table = {"balanced": N / (3 * count), "dict": np.array([1, 0.5, 3])}
    specs = {"balanced": "balanced", "dict": {1: 0.5, 2: 3.0}}
    for name, spec in specs.items():
        for targets in (y, np.eye(3)[y]):
            by_weight, by_class, by_loss = network(), network(), network(loss=losses.CrossEntropy(class_weight=spec))
            settings = {"epochs": 2, "batch_size": 16, "validation": (X, y)}
            expected = by_weight.fit(X, targets, sample_weight=given * table[name][y], **settings)
            found = by_class.fit(X, targets, sample_weight=given, class_weight=spec, **settings)
            np.testing.assert_allclose(by_class.parameters, by_weight.parameters, rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(found.val_loss, expected.val_loss, rtol=1e-12)
            by_loss.fit(X, targets, sample_weight=given, **settings)
            assert np.array_equal(by_loss.parameters, by_class.parameters)
    plain = network()
    plain.fit(X, y, epochs=2, batch_size=16)
    assert not np.allclose(plain.parameters, by_class.parameters)


def test_soft_targets_weigh_by_their_share_of_each_class(rng, data):
    y = rng.dirichlet(np.ones(3), N)
    a, b = network(), network()
    a.fit(data[0], y, epochs=1, class_weight={0: 2.0, 1: 0.0})
    b.fit(data[0], y, epochs=1, sample_weight=2 * y[:, 0] + y[:, 2])
    np.testing.assert_allclose(a.parameters, b.parameters, rtol=1e-12, atol=1e-15)
    batches = [(data[0][i : i + 7], y[i : i + 7]) for i in range(0, N, 7)]  # each row's weight by itself: the same bits
    c, d = network(), network()
    c.fit(data[0], y, epochs=1, class_weight={0: 0.3, 1: 0.7}, batch_size=7, shuffle=False)
    d.fit(batches, epochs=1, class_weight={0: 0.3, 1: 0.7})
    assert np.array_equal(c.parameters, d.parameters)


def test_balanced_weights_of_classes_that_have_less_than_a_row():
    count = np.array([3, 2.7, 0.3])
    found = losses.CrossEntropy(class_weight="balanced").class_weights(range(3), count)
    np.testing.assert_allclose(found, 6 / (3 * count))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("scale", [1e-100, 1e-40, 1e40, 1e99])
def test_only_the_proportions_of_sample_weights_count(rng, scale, loss, dtype):
    X, weight = rng.standard_normal((N, 4)), rng.uniform(1, 5, N)
    y = np.arange(N) % 3 if loss == "cross_entropy" else 1e6 * X[:, :3]
    found, expected = (MLP([4, 5, 3], "tanh", loss, dtype=dtype) for _ in range(2))
    rate = 0.1 if loss == "cross_entropy" else 1e-12
    for net, factor in ((found, scale), (expected, 1.0)):
        net.history = net.fit(
            *(X, y), epochs=2, sample_weight=factor * weight, optimizer=SGD(rate), validation=(X, y, factor * weight)
        )
    np.testing.assert_allclose(found.parameters, expected.parameters, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.history.loss, expected.history.loss, rtol=1e-5)
    np.testing.assert_allclose(found.history.val_loss, expected.history.val_loss, rtol=1e-5)


def test_a_soft_target_may_give_the_weighted_classes_next_to_nothing(data):
    y = np.eye(3)[np.arange(N) % 3]
    tiny = np.where(y[:, :1] == 1, [[1.0, 1e-120, 0.0]], y)  # whose first class has no weight below
    a, b = (MLP([data[0].shape[1], 3], dtype="float64") for _ in range(2))
    weights = {0: 0.0, 1: 1.0, 2: 2.0}
    a.fit(data[0], tiny, epochs=1, class_weight=weights)
    b.fit(data[0], y, epochs=1, class_weight=weights)
    np.testing.assert_array_equal(a.parameters, b.parameters)


def test_class_weights_of_a_single_label(data):
    X, y = data[0], (data[1] == 1).astype(float)
    a, b = (MLP([5, 4, 1], "tanh", "binary_cross_entropy", dtype="float64") for _ in range(2))
    a.fit(X, y, epochs=2, class_weight="balanced")
    b.fit(X, y, epochs=2, sample_weight=np.where(y == 1, N / (2 * y.sum()), N / (2 * (1 - y).sum())))
    np.testing.assert_allclose(a.parameters, b.parameters, rtol=1e-12, atol=1e-15)


def test_only_the_rows_to_train_on_are_balanced(data):
    X, y = data
    held = np.flatnonzero(y == 0)[1:]
    rest = np.setdiff1d(np.arange(N), held)
    a, b = network(), network()
    a.fit(X, y, epochs=2, shuffle=False, validation=held, class_weight="balanced")
    b.fit(X[rest], y[rest], epochs=2, shuffle=False, class_weight="balanced")
    np.testing.assert_allclose(a.parameters, b.parameters, rtol=1e-12, atol=1e-15)


# ---- steps and batches -----------------------------------------------------------------------------------------------


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
    """Batches that can be gone through again and again."""

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
def test_a_loop_of_steps_tells_how_many_there_will_be(data, schedule):
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


def test_a_step_whose_schedule_must_know_more_is_refused(data):
    trainer = Trainer(network(), SGD(schedules.Cosine()))
    before = flat(trainer.net)
    with pytest.raises(ValueError, match=r"Cosine\(.*depends on the total number of steps.*total_steps=1000"):
        trainer.step(*data)
    assert np.array_equal(trainer.net.parameters, before) and trainer.steps == 0
    for wrong in (0, 1.5, "many"):
        with pytest.raises((TypeError, ValueError), match=r"total_steps must be (a whole number|at least 1)"):
            Trainer(network(), total_steps=wrong)


def test_the_trainers_own_plateau_is_the_one_to_tell(data):
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
def test_a_memory_mapped_file_is_read_in_place(rng, tmp_path, standardize):
    rows, columns = 200_000, 20
    np.save(tmp_path / "X.npy", rng.standard_normal((rows, columns), dtype=np.float32))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    y = (X[:, 0] > 0).astype(np.uint8)
    net = MLP([columns, 4, 2], standardize=standardize)
    trainer = Trainer(net, SGD(0.1))
    if standardize == "robust":
        fastmlp.scaling.QUANTILE_ROWS, kept = 1 << 14, fastmlp.scaling.QUANTILE_ROWS
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
        if standardize == "robust":
            fastmlp.scaling.QUANTILE_ROWS = kept
    assert in_place == [True]
    limit = X.nbytes if standardize is None else 2.5 * 8 * fastmlp.scaling.CHUNK + X.nbytes / 2
    assert peak < limit, f"{peak / X.nbytes:.1f} times the data"


# ---- schedules -------------------------------------------------------------------------------------------------------

SCHEDULES = [
    schedules.Constant(),
    schedules.Step(5, 0.5),
    schedules.Exponential(0.95),
    schedules.InverseScaling(),
    schedules.Polynomial(2.0),
    schedules.Cosine(warmup=4, restarts=1),
    schedules.OneCycle(),
    schedules.CosLog4(),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_schedules_know_the_steps_of_the_whole_training(data, schedule):
    history = network().fit(
        *data, epochs=4, batch_size=16, optimizer=SGD(schedule), validation=data
    )  # 4 steps an epoch
    np.testing.assert_array_equal(history.learning_rate, schedule.rates(0.01, 0, 16, 16)[3::4])


def test_a_plateau_belongs_to_its_trainer(data):
    plateau = schedules.ReduceOnPlateau(0.5, patience=0, learning_rate=1e-30)
    optimizer = SGD(plateau)
    for _ in range(2):
        history = network().fit(*data, epochs=4, batch_size=None, optimizer=optimizer)
        np.testing.assert_allclose(np.array(history.learning_rate) / 1e-30, [1, 1, 0.5, 0.25])
    assert plateau.progress.factor == 1


# ---- bad input -------------------------------------------------------------------------------------------------------

BAD = [
    ({"dropout": 1.0}, ValueError, r"dropout must be a number in \[0, 1\), got 1.0"),
    ({"dropout": -0.1}, ValueError, "dropout must be"),
    ({"dropout": "much"}, TypeError, "dropout must be a number"),
    ({"dropout": [0.1]}, ValueError, "dropout must have 2 items, one rate for each hidden layer, got 1"),
    ({"dropout": [0.1, float("nan")]}, ValueError, r"dropout\[1\] must be"),
    ({"input_dropout": 1}, ValueError, r"input_dropout must be a number in \[0, 1\), got 1"),
    ({"max_norm": 0}, ValueError, r"max_norm must be a number in \(0, inf\), got 0"),
    ({"average": 1.0}, ValueError, r"average must be a number in \[0, 1\), got 1.0"),
    ({"average": True}, TypeError, "average must be a number"),
    ({"accumulate": 0}, ValueError, "accumulate must be at least 1, got 0"),
    ({"accumulate": 1.5}, TypeError, "accumulate must be a whole number, got 1.5"),
    ({"lr_factors": [1.0]}, ValueError, "lr_factors must have 3 items, one factor for each layer, got 1"),
    ({"lr_factors": [1.0, -1.0, 1.0]}, ValueError, r"lr_factors\[1\] must be a number in \[0, inf\), got -1.0"),
    ({"lr_factors": 2.0}, TypeError, "lr_factors must be a list"),
    ({"class_weight": {7: 1.0}}, ValueError, r"class_weight names \[7\]"),
    ({"class_weight": {0: -1.0}}, ValueError, "class_weight"),
    ({"class_weight": "even"}, ValueError, "class_weight must be a dict, 'balanced' or None, got 'even'"),
    ({"class_weight": {0: 0.0, 1: 0.0, 2: 0.0}}, ValueError, "class_weight must leave some rows a weight above 0"),
    ({"use_average": 1}, TypeError, "use_average must be True or False, got 1"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD, ids=lambda v: str(v)[:30])
def test_bad_options_are_refused_before_anything_changes(data, options, error, message):
    net = network()
    before, generator = flat(net), str(net.shuffle_rng.bit_generator.state)
    with pytest.raises(error, match=message):
        net.fit(*data, **options)
    assert np.array_equal(net.parameters, before) and str(net.shuffle_rng.bit_generator.state) == generator


def test_class_weights_need_classes(rng):
    for loss, n_out in (("mse", 1), ("binary_cross_entropy", 2)):
        with pytest.raises(ValueError, match="class_weight must be None except for"):
            Trainer(MLP([2, n_out], loss=loss), class_weight="balanced")
    with pytest.raises(ValueError, match="class_weight must be given once"):
        Trainer(MLP([2, 2], loss=losses.CrossEntropy(class_weight="balanced")), class_weight={0: 2.0})


@pytest.mark.parametrize("validation", [False, True])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_divergence_keeps_the_averaged_weights(data, accumulate, validation):
    X, y = data[0], np.eye(3)[data[1]]
    held, batch = (X, y) if validation else None, 16 if accumulate == 1 else 11
    steps = math.ceil(math.ceil(N / batch) / accumulate)
    found, expected = (
        Trainer(
            network(loss="mse"), SGD(lambda s: 0.05 if s < 3 * steps else 1e200), average=0.9, accumulate=accumulate
        )
        for _ in range(2)
    )
    expected.fit(X, y, epochs=3, batch_size=batch, validation=held)
    with pytest.raises(fastmlp.DivergenceError) as caught:
        found.fit(X, y, epochs=9, batch_size=batch, validation=held)
    assert caught.value.epoch == 4
    assert np.array_equal(found.net.parameters, expected.net.parameters)
    assert np.array_equal(found.average, expected.average)


def test_a_step_that_diverges_keeps_the_average(data):
    trainer = Trainer(network(loss="mse"), SGD(lambda s: 0.05 if s < 5 else 1e200), average=0.9)
    for _ in range(5):
        trainer.step(data[0], np.eye(3)[data[1]])
    average = trainer.average.copy()
    with pytest.raises(fastmlp.DivergenceError):
        for _ in range(5):
            trainer.step(data[0], np.eye(3)[data[1]])
    assert np.isfinite(trainer.average).all() and average.any()


def test_a_rate_that_is_refused_leaves_no_scaling_behind(data):
    net = MLP([data[0].shape[1], 5, 3], standardize="mean")
    with pytest.raises(ValueError, match="learning_rate must return rates"):
        net.fit(*data, optimizer=SGD(lambda s: -1.0))
    assert net.needs_scaling()
