"""Gradients on request: checked by differences, by the inputs of the caller, and the loss around the weights."""

import numpy as np
import pytest
from conftest import needs_engine

import fastmlp
from fastmlp import MLP, gradients, losses, tape

NETS = {
    "softmax": {"loss": "cross_entropy"},
    "labels": {"loss": "binary_cross_entropy"},
    "rates": {"loss": "poisson"},
    "values": {"loss": "mse"},
    "sigmoid values": {"loss": "mse", "output": "sigmoid"},
    "softmax values": {"loss": "mse", "output": "softmax"},
    "gelu values": {"loss": "mae", "output": "gelu"},
    "standardised": {"loss": "mse", "standardize": "mean", "standardize_targets": True},
    "clipped": {"loss": "cross_entropy", "standardize": "robust"},
}


def network(name, dtype="float64", **more):
    return MLP([4, 6, 5, 3], ["tanh", "silu"], dtype=dtype, seed=2, **{**NETS[name], **more})


@pytest.fixture
def data(rng):
    X = 3 * rng.standard_normal((11, 4)) + 1
    return X, rng.dirichlet(np.ones(3), 11)


def learned(net, data):
    if net.needs_scaling():
        net.learn_scaling(*data)
    return net


@pytest.mark.targets
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backpropagation_is_right_by_its_own_check(data, name, dtype):
    net = learned(network(name, dtype), data)
    before = net.parameters.tobytes()
    assert net.check_gradients(*data) < 1e-5
    assert net.check_gradients(*data, np.arange(11.0), parameters=7, seed=3) < 1e-5
    assert net.parameters.tobytes() == before


def test_the_check_finds_a_wrong_gradient(monkeypatch, data):
    net = network("softmax")
    right = tape.Tape.backward

    def wrong(self, **more):
        right(self, **more)
        next(op for op in self.ops if op.opcode == "linear_back" and op.kind == "tanh").kind = "sigmoid"

    monkeypatch.setattr(tape.Tape, "backward", wrong)
    assert net.check_gradients(*data) > 0.1


def test_the_check_finds_a_small_mistake_in_a_single_weight(monkeypatch, data):
    net = network("softmax")
    right = MLP.loss_and_gradients

    def wrong(self, *args):
        loss, pairs = right(self, *args)
        i = np.unravel_index(np.abs(pairs[1][0]).argmin(), pairs[1][0].shape)
        pairs[1][0][i] += 1e-3 * np.abs(pairs[1][0]).max()
        return loss, pairs

    monkeypatch.setattr(MLP, "loss_and_gradients", wrong)
    assert net.check_gradients(*data) > 0.1


@pytest.mark.targets
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("backend", [pytest.param("engine", marks=needs_engine), "reference"])
def test_input_gradients_are_differences_of_predictions(monkeypatch, data, name, backend):
    monkeypatch.setattr(gradients, "PREDICTION_ROWS", 2)  # several slices
    X = data[0]
    net = learned(network(name, backend=backend), data)
    chosen = np.arange(11) % 3
    expected = np.empty((11, 4, 3))
    for c in range(4):
        h = np.zeros(4)
        h[c] = 1e-6
        expected[:, c] = (net._outputs(X + h) - net._outputs(X - h)) / 2e-6
    assert np.abs(expected).max() > 1e-3
    for output in range(3):
        np.testing.assert_allclose(net.input_gradients(X, output), expected[:, :, output], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(net.input_gradients(X, chosen), expected[np.arange(11), :, chosen], rtol=1e-6, atol=1e-8)
    if net.functions[-1].name == "softmax":
        best = net._outputs(X).argmax(axis=1)
        np.testing.assert_array_equal(net.input_gradients(X), net.input_gradients(X, best))
    else:
        with pytest.raises(ValueError, match=r"output must be given, as a number 0\.\.2"):
            net.input_gradients(X)


def test_input_gradients_in_float32(data):
    for name in NETS:
        net = learned(network(name, "float32"), data)
        expected = learned(network(name), data).input_gradients(data[0], 1)
        np.testing.assert_allclose(net.input_gradients(data[0], 1), expected, rtol=1e-3, atol=1e-4)
        assert net.input_gradients(data[0], 1).dtype == np.float32


def test_bad_outputs_are_refused(data):
    net = network("softmax")
    for output, error, message in [
        (3, ValueError, "output must be between 0 and 2, got 3"),
        (-1, ValueError, "output must be between"),
        (0.5, TypeError, "output must be a whole number, got 0.5"),
        ([0, 1], ValueError, "output must hold one class number for each of the 11 rows"),
        ([3] * 11, ValueError, r"output must hold class numbers 0\.\.2"),
    ]:
        with pytest.raises(error, match=message):
            net.input_gradients(data[0], output)


@pytest.mark.parametrize("name", NETS)
def test_the_loss_surface_goes_through_the_weights(data, name):
    net = learned(network(name, "float32"), data)
    before = net.parameters.tobytes()
    at, surface = net.loss_surface(*data, steps=5, radius=0.5, seed=1)
    assert net.parameters.tobytes() == before
    np.testing.assert_array_equal(at, [-0.5, -0.25, 0, 0.25, 0.5])
    assert surface[2, 2] == pytest.approx(net.evaluate(*data)["loss"], rel=1e-12)
    assert len(np.unique(surface)) == 25
    np.testing.assert_array_equal(surface, net.loss_surface(*data, steps=5, radius=0.5, seed=1)[1])
    assert not np.array_equal(surface, net.loss_surface(*data, steps=5, radius=0.5, seed=2)[1])


def test_given_directions_are_used_unchanged(data):
    net = network("values")
    first = [(w, b) for w, b in zip(net.weights, net.biases, strict=True)]
    second = [(np.zeros_like(w), np.ones_like(b) * (i == 2)) for i, (w, b) in enumerate(first)]
    at, surface = net.loss_surface(*data, directions=(first, second), steps=3, radius=2.0)
    for i, j in np.ndindex(3, 3):
        a, b = at[i], at[j]
        moved = network(
            "values", weights=[(w * (1 + a), c * (1 + a) + b * d) for (w, c), (_, d) in zip(first, second, strict=True)]
        )
        assert surface[i, j] == pytest.approx(moved.evaluate(*data)["loss"], rel=1e-12)


def test_random_directions_are_normalised_unit_by_unit():
    net = network("softmax")
    for b in net.biases:
        b[:] = 5
    flat = net._random_direction(np.random.default_rng(0))
    for d, w in zip(net.layout.matrices(flat), net.weights, strict=True):
        np.testing.assert_allclose(np.linalg.norm(d[:-1], axis=0), np.linalg.norm(w, axis=0), rtol=1e-12)
        assert not d[-1].any()


def test_bad_surfaces_and_checks_are_refused(data):
    net = network("values")
    for call, error, message in [
        (lambda: net.loss_surface(*data, steps=1), ValueError, "steps must be between 2 and 10000, got 1"),
        (lambda: net.loss_surface(*data, radius=0), ValueError, "radius must be a number in"),
        (lambda: net.loss_surface(*data, directions=[1]), ValueError, "directions must have 2 items"),
        (lambda: net.loss_surface(*data, directions=[[(1, 2)], [(1, 2)]]), ValueError, "must have 3 items"),
        (lambda: net.check_gradients(*data, parameters=0), ValueError, "parameters must be at least 1"),
        (lambda: net.check_gradients(*data, seed=-1), ValueError, "seed must be at least 0"),
    ]:
        with pytest.raises(error, match=message):
            call()


def test_gradients_of_losses_with_parameters(data):
    for loss in (losses.Huber(0.7), losses.Quantile((0.1, 0.5, 0.9)), losses.CrossEntropy(label_smoothing=0.2)):
        assert network("values", loss=loss).check_gradients(*data) < 1e-6


@pytest.mark.parametrize("class_weight", [{0: 5.0, 2: 0.2}, "balanced"])
def test_class_weights_of_a_loss_apply_in_every_method(rng, class_weight):
    X, y, sample_weight = rng.standard_normal((50, 4)), np.arange(50) % 7 % 3, rng.random(50)
    given = {"weights": MLP([4, 5, 3], seed=3).__getstate__()["weights"], "dtype": "float64"}
    net = MLP([4, 5, 3], "tanh", losses.CrossEntropy(class_weight=class_weight), **given)
    factors = net.loss.class_weights(range(3), np.bincount(y))
    plain = MLP([4, 5, 3], "tanh", **given)
    loss, pairs = net.loss_and_gradients(X, y, sample_weight)
    expected, expected_pairs = plain.loss_and_gradients(X, y, sample_weight * factors[y])
    assert loss == expected != plain.loss_and_gradients(X, y, sample_weight)[0]
    np.testing.assert_array_equal(pairs[0][0], expected_pairs[0][0])
    assert net.check_gradients(X, y, sample_weight) < 1e-5
    assert net.loss_surface(X, y, sample_weight, steps=3)[1][1, 1] == pytest.approx(loss)
    report = fastmlp.diagnose(net, X, y, sample_weight=sample_weight)
    assert report.loss == loss and report.loss_after < loss
    assert report.loss == net.fit(X, y, sample_weight=sample_weight, epochs=1, batch_size=None).loss[0]


@pytest.mark.parametrize("rows", [1024, 1025, 5000, 200_000])
def test_gradients_of_long_batches_are_as_exact_as_of_short_ones(rows):
    X = y = np.ones((rows, 1), np.float32)
    net = MLP([1, 1], loss="mse", weights=[([[0.0]], [0.0])])
    _, [(dw, db)] = net.loss_and_gradients(X, y)
    np.testing.assert_allclose([dw[0, 0], db[0]], -2, rtol=2e-5)
