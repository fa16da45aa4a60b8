"""Shares of workers: towards equal times, from run to run. That no bit depends on them is in test_determinism.py."""

import ctypes
import time

import c_code
import numpy as np
import pytest

import fastmlp
from fastmlp import MLP, SGD, Trainer
from fastmlp.runtime import executor

MOST = 256  # workers of a team


class Balance(ctypes.Structure):
    """fm_balance of csrc/balance.h."""

    _fields_ = [("n", ctypes.c_int), *((name, ctypes.c_double * MOST * 2) for name in ("share", "given", "busy"))]


@pytest.fixture(scope="module")
def c(tmp_path_factory):
    folder, compiler = tmp_path_factory.mktemp("balance"), c_code.compiler()
    flags = ["-std=gnu11", "-O1", "-shared", "-fPIC"]
    c_code.run(compiler, *flags, c_code.CSRC / "balance.c", "-lm", "-o", folder / "balance.so")
    library = ctypes.CDLL(str(folder / "balance.so"))
    library.fm_ticks.restype = library.fm_share_begin.restype = ctypes.c_int64
    return library


def begins(c, balance, what, rows, n):
    return [c.fm_share_begin(ctypes.byref(balance), what, ctypes.c_int64(rows), me, n) for me in range(n + 1)]


def test_nothing_known_means_equal_shares(c):
    assert begins(c, Balance(), 0, 10, 3) == [0, 3, 6, 10]
    assert c.fm_share_begin(None, 0, ctypes.c_int64(10), 1, 3) == 3


@pytest.mark.parametrize("speed", [[1, 1], [1, 2], [1, 1.5, 2, 1.25]], ids=str)
def test_shares_come_to_equal_times(c, speed):
    balance, n, speed = Balance(), len(speed), np.array(speed)
    for _ in range(40):
        share = np.array(balance.share[0][:n]) if balance.n else np.full(n, 1 / n)
        balance.given[0][:n], balance.given[1][:n] = list(share), [3.0] * n
        balance.busy[0][:n] = list(1e6 * share / speed)
        balance.busy[1][:n] = [5.0] * n
        c.fm_rebalance(ctypes.byref(balance), n)
    assert np.allclose(balance.share[0][:n], speed / speed.sum(), rtol=1e-3)
    assert np.allclose(balance.share[1][:n], 1 / n)
    assert begins(c, balance, 1, 1000, n) == [1000 * me // n for me in range(n + 1)]
    moved = np.diff(begins(c, balance, 0, 8000, n)) - 8000 * speed / speed.sum()
    assert np.abs(moved).max() <= 8


def test_a_difference_smaller_than_half_a_grain_moves_nothing(c):
    balance, rows = Balance(), 256
    for _ in range(200):
        given = np.diff(begins(c, balance, 0, rows, 2))
        balance.given[0][:2], balance.busy[0][:2] = list(given), list(given * [1.0, 1.02])
        c.fm_rebalance(ctypes.byref(balance), 2)
        assert begins(c, balance, 0, rows, 2) == [0, 128, 256]
    assert balance.share[0][0] == pytest.approx(1.02 / 2.02, abs=1e-6)


def test_a_worker_with_no_share_gets_one_again(c):
    balance = Balance(n=3)
    balance.share[0][:3] = [0.5, 0.5, 0.0]
    for _ in range(40):
        balance.given[0][:3], balance.busy[0][:3] = [4.0, 4.0, 0.0], [2.0, 2.0, 1.0]
        c.fm_rebalance(ctypes.byref(balance), 3)
    assert np.allclose(balance.share[0][:3], 1 / 3)


def test_shares_are_bounded_and_reset_for_another_number_of_workers(c):
    balance = Balance()
    for _ in range(100):
        balance.given[0][:2], balance.busy[0][:2] = [1.0, 1.0], [1.0, 1e9]
        balance.given[1][:2], balance.busy[1][:2] = [0.0, 0.0], [0.0, 0.0]  # never shared
        c.fm_rebalance(ctypes.byref(balance), 2)
    assert 0.6 <= balance.share[0][0] <= 0.81
    assert list(balance.share[1][:2]) == [0.5, 0.5]
    assert begins(c, balance, 0, 9, 3) == [0, 3, 6, 9]  # of two workers, not of three
    assert begins(c, balance, 0, 5, 2) in ([0, 2, 5], [0, 5, 5])
    for _ in range(2):
        balance.given[0][:3] = balance.busy[0][:3] = [1.0, 1.0, 1.0]
        c.fm_rebalance(ctypes.byref(balance), 3)
    assert np.allclose(balance.share[0][:3], 1 / 3)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_every_row_has_one_owner(c, n):
    rng, balance = np.random.default_rng(n), Balance(n=n)
    for _ in range(300):
        balance.share[0][:n] = list(rng.dirichlet(np.full(n, 0.5)))
        rows = int(rng.integers(0, 200))
        found = begins(c, balance, 0, rows, n)
        assert (found[0], found[-1]) == (0, rows)
        assert sorted(found) == found


def test_ticks_increase(c):
    first = c.fm_ticks()
    time.sleep(1e-3)
    assert c.fm_ticks() > first


@pytest.mark.skipif(fastmlp.runtime._engine is None, reason="the compiled engine is not built")
def test_an_engine_learns_shares_from_runs_of_several_workers():
    fastmlp.set_num_threads(2)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((1000, 400)), rng.integers(0, 10, 1000)
    trainer = Trainer(MLP([400, 300, 10], dtype="float64", seed=0), SGD(0.01))  # all rows are shared
    runner = executor(trainer.plan_for(200, True), "engine")
    for i, array in zip(runner.plan.gathers, (X, y), strict=True):
        runner.bind(i, array)
    offsets, lr = np.arange(6) * 200, np.full(5, 0.01)
    runner.run(None, offsets, lr)
    assert runner.shares is None
    runner.run(None, offsets, lr, n_threads=2)
    assert np.shape(runner.shares) == (2, 2)
    assert np.allclose(np.sum(runner.shares, axis=1), 1)
    runner.shares = [3, 1], [1, 1]
    assert runner.shares == [[0.75, 0.25], [0.5, 0.5]]
    runner.run(None, offsets, lr, n_threads=2)
    assert all(found not in ([0.75, 0.25], [0.5, 0.5]) for found in runner.shares), "nothing was learnt"
    runner.shares = [3, 1], [1, 1]
    nan = float("nan")
    for wrong in ([[1]], [[1], [1, 1]], [[], []], [[1, -1], [1, 1]], [[0, 0], [1, 1]], [[1] * 257] * 2, [[nan, 1]] * 2):
        with pytest.raises(ValueError, match="shares must be two lists"):
            runner.shares = wrong
    assert runner.shares == [[0.75, 0.25], [0.5, 0.5]]
