"""Evaluations in sequence and in parallel: the plans that a network keeps for them change no result."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastmlp import MLP
from fastmlp.plan_cache import KEPT_PLANS


def evaluated(rows, seed=0):
    """The evaluation of this many rows by a new network, which keeps no plan yet."""
    X, y = data_of(rows, seed)
    return MLP([4, 6, 3], seed=1).evaluate(X, y)


def data_of(rows, seed=0):
    rng = np.random.default_rng([rows, seed])
    return rng.standard_normal((rows, 4)), rng.integers(0, 3, rows)


def test_evaluations_of_any_length_in_any_order_agree():
    net = MLP([4, 6, 3], seed=1)
    for rows in (5, 150, 5, 7, 8, 9, 10, 5, 5000, 150, 150, 1):
        assert net.evaluate(*data_of(rows)) == evaluated(rows)
        assert len(net.idle_evaluations) <= KEPT_PLANS
    assert {key[0] for key in net.idle_evaluations} == {5, 2048, 150, 1}


def test_a_fit_returns_the_plan_of_its_validation():
    net, validation = MLP([4, 6, 3], seed=1), data_of(50)
    net.evaluate(*validation)
    (kept,) = net.idle_evaluations.values()
    history = net.fit(*data_of(90), epochs=2, validation=validation)
    assert list(net.idle_evaluations.values()) == [kept]
    assert history.val_loss[-1] == net.evaluate(*validation)["loss"]


def test_a_kept_evaluation_plan_sees_the_trained_weights():
    X, y = data_of(50)
    net = MLP([4, 6, 1], loss="mse", seed=1, standardize="mean", standardize_targets=True)
    data = 5 + 3 * X, 100.0 + y
    before = net.evaluate(*data)
    net.fit(*data, epochs=3)
    assert net.evaluate(*data) == copy.deepcopy(net).evaluate(*data) != before


def test_large_plans_are_not_kept():
    net = MLP([500, 500, 3], seed=1)
    for rows in (100, 1000):
        net.evaluate(np.zeros((rows, 500)), np.zeros(rows, int))
    assert {key[0] for key in net.idle_evaluations} == {100}


def test_an_evaluation_sees_the_weights_as_they_are():
    net = MLP([4, 6, 3], seed=2)
    net.evaluate(*data_of(50))
    other = MLP([4, 6, 3], seed=1)
    net.set_weights(list(zip(other.weights, other.biases, strict=True)))
    assert net.evaluate(*data_of(50)) == evaluated(50)


def test_a_metric_may_evaluate_the_same_network():
    net, inner = MLP([4, 6, 3], seed=1), []

    def curious(y, prediction):
        inner.append(net.evaluate(*data_of(50, seed=1)))
        return 1.0

    for _ in range(3):
        found = net.evaluate(*data_of(50), metrics=["accuracy", curious])
        assert {name: found[name] for name in ("loss", "accuracy")} == evaluated(50)
        assert inner.pop() == evaluated(50, seed=1)


def test_threads_may_evaluate_the_same_network():
    net, seeds = MLP([4, 6, 3], seed=1), range(4)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: [net.evaluate(*data_of(60, seed)) for _ in range(50)], seeds))
    assert found == [[evaluated(60, seed)] * 50 for seed in seeds]


def test_after_a_metric_that_raises_the_next_evaluation_is_right():
    net = MLP([4, 6, 3], seed=1)
    with pytest.raises(ZeroDivisionError):
        net.evaluate(*data_of(20), metrics=[lambda y, prediction: 1 / 0])
    assert net.evaluate(*data_of(20)) == evaluated(20)


@pytest.mark.parametrize("backend", ["engine", "reference"])
def test_a_row_of_weight_0_counts_for_nothing_even_if_its_loss_overflows(backend):
    net = MLP([1, 1], loss="mse", weights=[([[2.0]], [0.0])], backend=backend)
    X, y, weight = [[1.0], [2.0], [3.0]], [1.0, 1e30, 3.0], [1.0, 0.0, 1.0]
    assert net.evaluate(X, y, weight, metrics=[])["loss"] == 5.0  # (2 - 1)^2 and (6 - 3)^2
    assert net.fit(X, y, sample_weight=weight, epochs=1, batch_size=None).loss == [5.0]
