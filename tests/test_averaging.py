"""The average of the weights: its formula, which weights a network shows, and what a divergence leaves."""

import math

import numpy as np
import pytest
from conftest import needs_engine
from trainer_options import SIZES, N, flat, network

import fastmlp
from fastmlp import MLP, SGD, Adam, Trainer


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


def test_fit_shows_the_average_and_continues_from_raw_weights(data):
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
    with pytest.raises(fastmlp.DivergenceError):
        for _ in range(5):
            before = trainer.average.copy()
            trainer.step(data[0], np.eye(3)[data[1]])
    assert np.array_equal(trainer.average, before) and np.isfinite(before).all()
