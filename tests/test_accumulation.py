"""Accumulated batches: the steps of one batch of all their rows."""

import itertools

import numpy as np
import pytest
from trainer_options import N, flat, network

from fastmlp import SGD, Adam, Trainer, schedules


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
