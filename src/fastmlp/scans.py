"""Scans: one pass over an array by the engine tells that its numbers are finite, or within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from .native import _engine
from .threads import get_num_threads

SCAN_BYTES = 1 << 28  # of a call, ~50 ms, for which Ctrl-C may have to wait
FOR_ONE = 8 << 20  # bytes that one thread looks through: as in csrc/checks.c


def surely_finite(array: NDArray[Any]) -> bool:
    """Whether the engine can tell in one pass that an array of floats is finite; without it, False."""
    readable = array.ndim and array.dtype.char in "fd" and array.dtype.isnative and array.flags.c_contiguous
    return bool(_engine and readable and all(_engine.all_finite(part, _lookers(part)) for part in _parts(array)))


def surely_within(array: NDArray[Any], low: float, high: float) -> bool:
    """Whether the engine can tell in one pass that all numbers are finite and lie in low..high; without it, False."""
    readable = 1 <= array.ndim <= 2 and array.dtype.kind in "fiu"
    return bool(_engine and readable and all(_engine.all_within(p, low, high, _lookers(p)) for p in _parts(array)))


def _parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Its rows, so many at a time that Ctrl-C need not wait for all."""
    rows = max(1, SCAN_BYTES // max(1, array.nbytes // max(1, len(array))))
    return (array[i : i + rows] for i in range(0, len(array), rows))


def _lookers(array: NDArray[Any]) -> int:
    """How many threads look through an array."""
    return 1 if array.nbytes < FOR_ONE else get_num_threads()
