"""diagnose says what keeps a network from learning, by numbers that follow their definitions, and changes nothing."""

import copy

import numpy as np
import pytest

import fastmlp
from fastmlp import MLP, SGD, Adam, diagnose

DEPTH = [32] * 8


@pytest.fixture
def task(rng):
    y = rng.integers(0, 3, 300)
    return rng.normal(0, 1, (300, 10)) + np.eye(3, 10)[y], y


def words(report):
    return [verdict.split(":")[0] for verdict in report.verdicts]


@pytest.mark.parametrize("seed", range(5))
def test_deep_sigmoid_nets_vanish_and_relu_with_he_does_not(task, seed):
    vanishing = diagnose(MLP([10, *DEPTH, 3], "sigmoid", seed=seed), *task)
    assert words(vanishing) == ["vanishing"] and not vanishing.healthy
    fine = diagnose(MLP([10, *DEPTH, 3], "relu", seed=seed), *task)
    assert fine.verdicts == ["healthy: nothing found"] and fine.healthy
    assert diagnose(MLP([10, 16, 3], "sigmoid", seed=seed), *task).healthy
    assert vanishing.layers[0].signal < 1e-3 * vanishing.layers[-1].signal
    assert fine.layers[0].signal > 0.1 * fine.layers[-1].signal


def enlarged(net, factor, layers=slice(None)):
    for w in net.weights[layers]:
        w *= factor
    return net


def test_large_weights_explode(task):
    net = enlarged(MLP([10, *DEPTH, 3], "relu"), 8, slice(1, -1))
    assert "exploding" in words(diagnose(net, *task))
    net = enlarged(MLP([10, *DEPTH, 3], "relu"), 1e30)
    assert "exploding" in words(diagnose(net, *task)), "beyond the largest number"


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "hard_tanh"])
def test_large_weights_saturate(task, activation):
    net = enlarged(MLP([10, 20, 20, 3], activation), 100, slice(0, 1))
    report = diagnose(net, *task)
    assert "saturated" in words(report)
    assert any("layer 1 stay at their limits" in verdict for verdict in report.verdicts)
    assert report.layers[0].saturated > 0.9 and report.layers[1].saturated < 0.5
    assert diagnose(MLP([10, 20, 20, 3], activation), *task).layers[0].saturated == 0


def test_large_negative_biases_kill_relus(task):
    net = MLP([10, 20, 20, 3])
    net.biases[1][:15] = -1e3
    report = diagnose(net, *task)
    assert words(report) == ["dead"] and "75% of the relu units of layer 2" in report.verdicts[0]
    assert [layer.dead for layer in report.layers] == [report.layers[0].dead, 0.75, 0]
    assert report.layers[0].dead < 0.2
    net = MLP([10, 20, 20, 3], "leaky_relu")
    net.biases[1][:15] = -1e3
    assert "dead" not in words(diagnose(net, *task)), "a leaky relu is never dead"


@pytest.mark.parametrize(("optimizer", "much"), [(SGD(0.01), 1e4), (SGD(0.01, momentum=0.9), 1e4), (Adam(1e-3), 1e4)])
def test_a_large_rate_overshoots(task, optimizer, much):
    net = MLP([10, 20, 3], "tanh")
    report = diagnose(net, *task, optimizer)
    assert report.healthy and report.loss_after < report.loss == pytest.approx(net.evaluate(*task)["loss"], rel=1e-6)
    wild = type(optimizer)(**{**vars(optimizer), "learning_rate": optimizer.learning_rate * much})
    report = diagnose(net, *task, wild)
    assert words(report) == ["overwriting", "overwriting", "overshooting"] and report.loss_after > report.loss


def test_a_step_longer_than_the_weights_overwrites_them(task):
    net = MLP([10, 20, 3], "tanh")
    report = diagnose(net, *task, Adam(0.5))
    ratios = [layer.update_ratio for layer in report.layers]
    assert min(ratios) > 1 and words(report)[:2] == ["overwriting"] * 2
    assert f"the weights of layer 2 by {ratios[1]:.2g} times their own size" in report.verdicts[1]


def test_weights_that_begin_at_zero_are_not_overwritten(task):
    report = diagnose(MLP([10, 3], initializer="zeros"), *task)
    assert report.layers[0].update_ratio == np.inf and report.healthy


def test_gradients_behind_dead_units_are_not_called_vanishing(task):
    net = MLP([10, 20, 20, 3])
    net.biases[1][:] = -1e3
    report = diagnose(net, *task)
    assert report.layers[0].signal == 0 and words(report) == ["dead"]


def test_overshooting_on_large_inputs_names_standardize(task):
    X, y = task
    by_inputs = [diagnose(MLP([10, 20, 3]), X * scale, y, SGD(10.0)).verdicts[-1] for scale in (1, 1e3)]
    assert all(verdict.startswith("overshooting") for verdict in by_inputs)
    assert ["standardize='mean'" in verdict for verdict in by_inputs] == [False, True]
    standardised = diagnose(MLP([10, 20, 3], standardize="mean"), X * 1e3, y, SGD(10.0))
    assert "standardize" not in str(standardised)


def test_a_step_that_overflows_overshoots(task):
    report = diagnose(MLP([10, 20, 3], "relu"), *task, SGD(1e38))
    assert "overshooting" in words(report) and not report.loss_after < 1e30


def test_the_numbers_of_a_report_follow_their_definitions(task):
    X, y = task
    weight = np.linspace(0.1, 2, 300)
    net = MLP([10, 7, 3], "tanh", dtype="float64", seed=3)
    report = diagnose(net, X, y, SGD(0.02), sample_weight=weight)
    loss, gradients = net.loss_and_gradients(X, y, weight)
    assert report.loss == pytest.approx(loss)
    _, hidden, out = net.activations(X)
    for layer, (dW, db), W, b, outputs in zip(
        report.layers, gradients, net.weights, net.biases, (hidden, out), strict=True
    ):
        norm, gradient = (np.sqrt((p**2).sum() + (q**2).sum()) for p, q in ((W, b), (dW, db)))
        assert layer.weight_norm == pytest.approx(norm)
        assert layer.gradient_norm == pytest.approx(gradient)
        assert layer.update_ratio == pytest.approx(0.02 * gradient / norm, rel=1e-6)
        assert (layer.mean, layer.variance) == pytest.approx((outputs.mean(), outputs.var()))
    delta = (out - np.eye(3)[y]) * (weight / weight.sum())[:, None]
    below = delta @ net.weights[1].T * (1 - hidden**2)
    assert [layer.signal for layer in report.layers] == pytest.approx([np.sqrt((d**2).mean()) for d in (below, delta)])
    assert [(layer.layer, layer.activation) for layer in report.layers] == [(1, "tanh"), (2, "softmax")]


def test_diagnose_changes_nothing(task):
    net = MLP([10, 7, 3], "tanh", standardize="mean")
    net.fit(*task, epochs=1)
    twin = copy.deepcopy(net)
    diagnose(net, *task, SGD(1e30))
    assert net.parameters.tobytes() == twin.parameters.tobytes()
    for one in (net, twin):
        one.fit(*task, epochs=2)
    assert net.parameters.tobytes() == twin.parameters.tobytes(), "nor has anything else changed that training sees"


@pytest.mark.parametrize(
    ("loss", "more"), [("mse", {"standardize_targets": True}), ("poisson", {"standardize": "robust"})]
)
def test_a_network_that_has_yet_to_learn_scaling(rng, loss, more):
    net = MLP([3, 8, 1], "tanh", loss, **more)
    assert diagnose(net, rng.normal(5, 1, (50, 3)), rng.poisson(3, 50)).healthy
    assert net.needs_scaling()


def test_it_prints_as_a_table(task):
    report = diagnose(MLP([10, 7, 3], "tanh"), *task)
    lines = str(report).splitlines()
    assert " ".join(lines[0].split()) == "layer activation |w| |g| |step|/|w| signal mean variance saturated dead"
    assert len({len(line) for line in lines[:3]}) == 1
    assert lines[1].split()[:2] == ["1", "tanh"] and lines[1].split()[-2:] == ["0%", "0%"]
    assert lines[3].startswith("loss ") and lines[4] == "healthy: nothing found"


def test_bad_input(task):
    with pytest.raises(TypeError, match="net must be an MLP, got 3"):
        diagnose(3, *task)
    with pytest.raises(ValueError, match="unknown optimizer 'sdg'"):
        diagnose(MLP([10, 3]), *task, "sdg")
    with pytest.raises(TypeError, match="L-BFGS"):
        diagnose(MLP([10, 3]), *task, fastmlp.optimizers.LBFGS())
