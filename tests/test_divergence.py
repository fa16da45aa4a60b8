"""A training that diverges is undone, and its error says where; predictions refuse what is not finite."""

import numpy as np
import pytest
from conftest import needs_engine
from kinds import ROWS, VALUES, X, networks, state

from fastmlp import MLP, SGD, Adam, DivergenceError, Trainer
from fastmlp.epochs import EpochLoop
from fastmlp.plans import prediction_plan
from fastmlp.runtime import executor


def diverges(fit):
    with pytest.raises(DivergenceError) as caught:
        fit()
    return caught.value


@pytest.mark.targets
@pytest.mark.parametrize("group", [1, 1000], ids=["epoch by epoch", "all epochs in one group"])
@pytest.mark.parametrize("weight", [None, np.linspace(0.5, 2, ROWS)], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(
    ("rate", "batch_size", "in_first"),
    [(1e6, 8, True), (1e6, None, False), (2.0, None, False), (0.7, 7, False), (1e39, None, True)],
)
def test_divergence_keeps_the_last_finite_epoch(monkeypatch, group, weight, rate, batch_size, in_first):
    monkeypatch.setattr(EpochLoop, "_group", lambda loop: group)  # else a matter of how fast this machine is

    def start():
        return MLP([4, 5, 1], "relu", "mse", seed=3), {"optimizer": SGD(rate, momentum=0.5), "batch_size": batch_size}

    net, settings = start()
    error = diverges(lambda: net.fit(X, VALUES, epochs=60, sample_weight=weight, **settings))
    steps = 1 if batch_size is None else -(-ROWS // batch_size)
    assert (error.epoch == 1) == in_first and 1 <= error.epoch < 60
    assert 1 <= error.step <= steps
    for words in (f"in epoch {error.epoch} of 60", f"step {error.step} of {steps}", "learning rate"):
        assert words in str(error)
    assert np.isfinite(net.parameters).all()
    assert error.history.epochs == error.epoch - 1

    expected, settings = start()
    if error.epoch > 1:
        history = expected.fit(X, VALUES, epochs=error.epoch - 1, sample_weight=weight, **settings)
        assert error.history.loss == history.loss
        assert np.isfinite(error.history.loss).all()
    assert state(net) == state(expected), "not what a run of one epoch less leaves, order of the next shuffle included"


@pytest.mark.parametrize(
    ("settings", "cures"),
    [
        ({}, "clipping (clip_norm), scaled inputs (MLP(..., standardize='mean')) or scaled targets"),
        (
            {"standardize": "mean"},
            "A smaller learning rate, clipping (clip_norm) or scaled targets (standardize_targets=T",
        ),
        (
            {"standardize_targets": True},
            "clipping (clip_norm) or scaled inputs (MLP(..., standardize='mean')) may help",
        ),
        (
            {"standardize": "mean", "standardize_targets": True},
            "A smaller learning rate or clipping (clip_norm) may help",
        ),
        ({"loss": "poisson"}, "or scaled inputs (MLP(..., standardize='mean')) may help"),
    ],
)
def test_divergence_suggests_only_missing_cures(settings, cures):
    net = MLP([4, 5, 1], **{"loss": "mse", **settings})
    error = diverges(lambda: net.fit(X, abs(VALUES), epochs=1, batch_size=None, optimizer=SGD(1e39)))
    assert cures in str(error)


def test_divergence_of_the_weights_at_a_finite_loss():
    # One step: its loss is still finite, and there is no second one to see what became of the weights.
    net = networks().values
    before = net.parameters.tobytes()
    error = diverges(lambda: net.fit(X, VALUES, epochs=1, batch_size=None, optimizer=SGD(1e39)))
    assert (error.epoch, error.step) == (1, 1) and "weight" in str(error)
    assert net.parameters.tobytes() == before


@pytest.mark.parametrize("call", ["step", "fit"])
@pytest.mark.parametrize("optimizer", [SGD(0.01, momentum=0.9), Adam(), SGD(0.01)], ids=["momentum", "adam", "sgd"])
def test_a_trainer_can_continue_after_divergence(call, optimizer):
    net = networks().values
    trainer = Trainer(net, optimizer)
    assert np.isfinite(trainer.step(X, VALUES))
    before = net.parameters.tobytes()
    error = diverges(lambda: getattr(trainer, call)(X * 1e30, VALUES))
    assert (error.epoch, error.step) == (1, 1 if call == "fit" else 2)
    assert net.parameters.tobytes() == before
    losses = [trainer.step(X, VALUES) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert np.isfinite(net.parameters).all()


# ---- predictions -----------------------------------------------------------------------------------------------------


@pytest.mark.targets
@pytest.mark.parametrize("columns", [1, 3, 4, 15, 33, 64, 77, 131])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_prediction_finds_a_nonfinite_value_anywhere(columns, dtype):
    # X is looked at while it is read: in place or gathered, one row (the short way) or more than two workers carry.
    net = MLP([columns, 20, 3], dtype=dtype, seed=1)
    for rows, data in ((1, dtype), (1, "float64"), (5, dtype), (5, "float64"), (700, dtype)):
        X = np.random.default_rng(2).standard_normal((rows, columns)).astype(data)
        expected = net.predict_proba(X)
        for value in (np.nan, np.inf, -np.inf):
            for at in {(0, 0), (rows - 1, columns - 1), (rows // 2, columns // 2)}:
                spoilt = X.copy()
                spoilt[at] = value
                with pytest.raises(ValueError, match=rf"X must be finite.*{value} at X\[{at[0]}, {at[1]}\]"):
                    net.predict_proba(spoilt)
                np.testing.assert_array_equal(net.predict_proba(X), expected)


@pytest.mark.targets
def test_a_prediction_of_values_too_large_for_the_network():
    net = MLP([3, 2])
    with pytest.raises(ValueError, match=r"fit float32, got 1e\+39 at X\[1, 2\]"):
        net.predict_proba([[0, 0, 0], [0, 0, 1e39]])


@needs_engine
def test_a_nonfinite_value_is_reported_once():
    net, row = MLP([20, 6, 3], seed=1), np.zeros((1, 20), np.float32)
    for _ in range(2):
        net.predict_proba(row)
    with pytest.raises(ValueError, match="X must be finite"):
        net.predict_proba(np.full((1, 20), np.nan, np.float32))
    assert net._row_predictor(row) is not None, "single rows have lost their short way"
    plan = prediction_plan(net, 4)
    runner = executor(plan, "engine")
    runner.bind(0, np.full((4, 20), np.inf, np.float32))
    runner.bind(len(plan.ops) - 1, np.empty((4, 3), np.float32))
    runner.run(None, np.array([0, 4]))
    assert plan.found_nonfinite() and not plan.found_nonfinite()
