"""Weights of classes and of samples."""

import numpy as np
import pytest
from trainer_options import N, network

from fastmlp import MLP, SGD, losses


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


def test_soft_targets_with_a_tiny_share_of_the_weighted_classes(data):
    y = np.eye(3)[np.arange(N) % 3]
    tiny = np.where(y[:, :1] == 1, [[1.0, 1e-120, 0.0]], y)  # the first class has no weight below
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
