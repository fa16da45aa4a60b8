"""Penalties, clipping, factors on rates and max-norm, by their formulas."""

import numpy as np
import pytest
from trainer_options import network

from fastmlp import SGD, Trainer


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
