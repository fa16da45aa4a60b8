"""Every option of a Trainer: executors and numbers of threads agree, and bad values are refused."""

import numpy as np
import pytest
from conftest import engine_on
from trainer_options import OPTIONS, SIZES, flat, network

import fastmlp
from fastmlp import MLP, SGD, Adam, Trainer, losses
from fastmlp.lockstep import LockStepExecutor
from fastmlp.plan import Op
from fastmlp.tape import FUSED_ROWS


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
    monkeypatch.setattr(Op, "flops", property(lambda op: 1e12))  # or no worker would be woken for so little
    optimizer, options, settings = OPTIONS[name]
    found = set()
    for threads in (1, 2, 3):
        fastmlp.set_num_threads(threads)
        net = network(dtype=dtype, **settings)
        history = net.fit(*data, epochs=2, batch_size=16, optimizer=optimizer, validation=data, **options)
        found.add((net.parameters.tobytes(), str(history.loss), str(history.val_loss)))
    assert len(found) == 1


# Name: sizes, rows of a batch, optimizer, options of Trainer and MLP. The most rows are summed in several runs.
FUSED = {
    **{
        name: (SIZES, 16, *options)
        for name, options in OPTIONS.items()
        if "accumulate" not in name and name != "clip_norm"
    },
    **{
        f"{rows} rows": ([100, 130, 70, 3], rows, Adam(0.01, l2=1e-3, weight_decay=0.1, clip_value=0.05), {}, {})
        for rows in (1, 5, 64, 130, FUSED_ROWS)
    },
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_and_unfused_updates_have_the_same_bits(monkeypatch, target, dtype, rng, name):
    monkeypatch.setenv("FASTMLP_TARGET", target)
    sizes, rows, optimizer, options, settings = FUSED[name]
    X, y, weight = rng.standard_normal((1130, sizes[0])), rng.integers(0, 3, 1130), rng.uniform(0.1, 2, 1130)
    offsets = np.minimum(np.arange(min(8, 1 - -1130 // rows)) * rows, 1130)
    found = []
    for unfused in (False, True):
        net = MLP(sizes, ["tanh", "relu"], dtype=dtype, seed=3, backend="engine", **settings)
        trainer = Trainer(net, optimizer, **options)
        plan = trainer.plan_for(rows, True, unfused=unfused)
        assert [op.opcode for op in plan.ops].count("linear_update") == (0 if unfused else len(sizes) - 1)
        before, runner = flat(net), engine_on(plan, X, y)
        rates = np.full(len(offsets) - 1, 0.05)
        losses = runner.run(None, offsets, rates, weight=weight, n_threads=1 + 2 * unfused)
        assert not np.array_equal(net.parameters, before) and np.isfinite(losses).all()
        found.append((net.parameters.tobytes(), losses.tobytes(), *(array.tobytes() for array in trainer.moving)))
    assert found[0] == found[1]


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


def test_a_rate_that_is_refused_leaves_no_scaling_behind(data):
    net = MLP([data[0].shape[1], 5, 3], standardize="mean")
    with pytest.raises(ValueError, match="learning_rate must return rates"):
        net.fit(*data, optimizer=SGD(lambda s: -1.0))
    assert net.needs_scaling()
