"""Memory for parameters and batches is aligned and zero; and the checks of the numbers in it."""

import mmap

import numpy as np
import pytest
from conftest import needs_engine
from numpy.lib.stride_tricks import sliding_window_view

from fastmlp import MLP, checks, memory
from fastmlp.runtime import _engine


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("size", [1, 1000, memory.HUGE_PAGE // 4 - 1, memory.HUGE_PAGE // 4, 3_000_001])
def test_vectors_are_aligned_zero_and_writable(dtype, size):
    vector = memory.aligned(size, dtype)
    assert (vector.size, vector.dtype) == (size, dtype)
    assert address(vector) % memory.ALIGNMENT == 0
    assert not vector.any()
    vector[:] = 1
    assert vector.sum() == size


def test_memory_requests_may_be_nested(monkeypatch):
    slab, fresh, inner = memory._Slab(), memory._fresh, []

    def interrupted(size):  # by a signal, whose handler makes a network
        if not inner:
            inner.append(None)
            inner[0] = slab.take(100)
        return fresh(size)

    monkeypatch.setattr(memory, "_fresh", interrupted)
    outer = slab.take(100)
    assert not np.shares_memory(outer[0], inner[0][0])


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system knows no huge pages")
def test_large_vectors_begin_on_a_huge_page():
    assert address(memory.aligned(memory.HUGE_PAGE, np.uint8)) % memory.HUGE_PAGE == 0


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system knows no huge pages")
def test_memory_the_system_lacks_is_a_memory_error():
    with pytest.raises(MemoryError, match=r"^1,152,921,504,606,846,976 bytes could not be allocated: "):
        memory.aligned(1 << 60, np.uint8)


@pytest.mark.parametrize("what", ["no such call", "refused"])
def test_without_huge_pages_there_is_memory_all_the_same(monkeypatch, what):
    if what == "no such call":
        monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    else:
        monkeypatch.setattr(mmap, "MADV_HUGEPAGE", -1, raising=False)  # the system answers EINVAL
    vector = memory.aligned(memory.HUGE_PAGE, np.float32)
    vector[:] = 2
    assert vector.sum() == 2 * memory.HUGE_PAGE


def test_a_network_on_huge_pages_survives_its_copies():
    net = MLP([1000, 900, 3], seed=0)
    X = np.random.default_rng(0).standard_normal((5, 1000))
    before = net.predict_proba(X)
    kept = net.parameters.copy()
    weights = net.weights[0]
    del net
    np.testing.assert_array_equal(weights, MLP([1000, 900, 3], seed=0).weights[0])  # a view keeps the memory
    other = MLP([1000, 900, 3], seed=1)
    other.parameters[:] = kept
    np.testing.assert_array_equal(other.predict_proba(X), before)


@needs_engine
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("target", _engine.targets() if _engine else [])
@pytest.mark.parametrize("offset", [0, 1, 4])
def test_all_finite_finds_one_odd_number_anywhere(dtype, bad, target, offset):
    itemsize = np.dtype(dtype).itemsize
    for size in (1, 2, 3, 7, 16, 33, 70, 150):
        memory = np.zeros(size * itemsize + offset, np.uint8)
        array = memory[offset:].view(dtype)  # at any address
        array[1::2] = np.finfo(dtype).max
        array[2::4] = np.finfo(dtype).smallest_subnormal
        assert _engine.all_finite(array, target=target)
        for i in range(size):
            kept, array[i] = array[i], bad
            memory.flags.writeable = False
            assert not _engine.all_finite(array, target=target), i
            memory.flags.writeable = True
            array[i] = kept


@needs_engine
@pytest.mark.parametrize("n_threads", [1, 2, 3, 1000])
def test_all_finite_looks_everywhere_with_any_number_of_workers(dtype, n_threads):
    size = 9_000_011 // np.dtype(dtype).itemsize  # enough for several
    array = np.zeros(size, dtype)
    assert _engine.all_finite(array, n_threads)
    for i in (0, size // 3, size // 2, 2 * size // 3, size - 1):
        array[i] = np.nan
        assert not _engine.all_finite(array, n_threads), i
        array[i] = 0


@needs_engine
def test_all_finite_refuses_what_it_cannot_read():
    with pytest.raises(TypeError, match="float32 or float64, got int64"):
        _engine.all_finite(np.zeros(3, np.int64))
    with pytest.raises((BufferError, ValueError), match="contiguous"):
        _engine.all_finite(np.zeros((3, 4))[:, ::2])


def numbers(source):
    """A table of numbers of a type that all_within takes with limits 1..100, and numbers that it does not take."""
    dtype = np.dtype(source)
    good = (np.arange(15 * 7) % 100 + 1).astype(dtype).reshape(15, 7)
    if dtype.kind == "f":
        return good, [0, 101, -5, 0.999, 100.001, np.nan, np.inf, -np.inf]
    return good, [0, 101, np.iinfo(dtype).min, np.iinfo(dtype).max]


@needs_engine
@pytest.mark.parametrize("layout", ["C", "F", "T", "every other", "backwards", "one column", "one row", "vector"])
@pytest.mark.parametrize("source", sorted(checks.NATIVE))
def test_all_within_finds_one_number_outside_anywhere(source, layout):
    good, bad = numbers(source)
    array = {
        "C": good, "F": np.asfortranarray(good), "T": good.T, "every other": np.repeat(good, 2, axis=1)[:, ::2],
        "backwards": good[::-1, ::-1], "one column": good[:, 2:3], "one row": good[2:3], "vector": good.ravel(),
    }[layout]  # fmt: skip
    assert _engine.all_within(array, 1, 100)
    for i in np.ndindex(array.shape):
        for value in bad:
            kept, array[i] = array[i], value
            assert not _engine.all_within(array, 1, 100), (i, value)
            array[i] = kept


@needs_engine
def test_all_within_reads_only_the_array():
    memory = np.zeros(60)
    windows, spread = sliding_window_view(memory[10:50], 7), np.broadcast_to(memory[10:17], (4, 7))
    for i in range(60):
        memory[i] = 2
        assert _engine.all_within(windows, 0, 1) == (not 10 <= i < 50), i
        assert _engine.all_within(spread, 0, 1) == _engine.all_within(spread.T, 0, 1) == (not 10 <= i < 17), i
        assert _engine.all_within(memory[10:50:3], 0, 1) == (i not in range(10, 50, 3)), i
        assert _engine.all_within(memory.reshape(6, 10)[1:5, 2:6], 0, 1) == (
            not (1 <= i // 10 < 5 and 2 <= i % 10 < 6)
        ), i
        assert _engine.all_within(np.broadcast_to(memory[30], (3, 5)), 0, 1) == (i != 30), i
        memory[i] = 0


@needs_engine
@pytest.mark.parametrize("n_threads", [1, 2, 3, 1000])
@pytest.mark.parametrize("shape", [(9_000_011,), (9_000_011, 1), (3, 3_000_007), (3_000_007, 3)])
def test_all_within_looks_everywhere_with_any_number_of_workers(shape, n_threads):
    for array in (np.zeros(shape, np.uint8), np.zeros(shape[::-1], np.uint8).T):
        assert _engine.all_within(array, 0, 1, n_threads)
        for i in (0, array.size // 3, array.size // 2, 2 * array.size // 3, array.size - 1):
            array[np.unravel_index(i, shape)] = 2
            assert not _engine.all_within(array, 0, 1, n_threads), i
            array[np.unravel_index(i, shape)] = 0


@needs_engine
@pytest.mark.parametrize("source", ["f4", "f8"])
def test_all_within_knows_the_ends_of_a_type(source):
    info = np.finfo(source)
    least, most, tiny = float(info.min), float(info.max), float(info.smallest_subnormal)
    array = np.array([least, -tiny, -0.0, 0.0, tiny, most], source)
    assert _engine.all_within(array, least, most) and _engine.all_within(array, -np.inf, np.inf)
    assert (
        _engine.all_within(array[2:4], -0.0, -0.0)
        and _engine.all_within(array[2:5], 0.0, tiny)
        and not _engine.all_within(array[1:4], 0.0, tiny)
    )
    assert not _engine.all_within(array, np.nextafter(least, 0), most)
    assert not _engine.all_within(array, least, np.nextafter(most, 0))
    assert not _engine.all_within(np.array([np.inf], source), -np.inf, np.inf)


@needs_engine
def test_all_within_refuses_types_that_no_gather_reads():
    assert _engine.all_within(np.zeros(3, bool), 0, 1)
    packed = np.zeros(3, np.dtype([("a", "u1"), ("b", "f4")]))["b"]  # not aligned
    for array in (packed, np.zeros((1, 1, 1)), *(np.zeros(3, other) for other in ("f2", ">f4", "g", "c8"))):
        assert not _engine.all_within(array, 0, 1)


@pytest.mark.parametrize("source", ["<f4", "<f8", ">f4", ">f8"])
def test_the_index_of_a_nonfinite_number_is_reported(dtype, source):
    X = np.ones((50, 3), source)
    checks.finite("X", X, np.dtype(dtype))
    X[41, 2] = np.nan
    with pytest.raises(ValueError, match=r"X must be finite numbers that fit float\d\d, got nan at X\[41, 2\]"):
        checks.finite("X", X, np.dtype(dtype))
    X[41, 2] = 1e300 if X.itemsize == 8 else 1e38
    if X.itemsize == 8 and dtype == np.float32:
        with pytest.raises(ValueError, match="fit float32"):
            checks.finite("X", X, np.dtype(dtype))
    else:
        checks.finite("X", X, np.dtype(dtype))
