"""Scans by the engine: whether the numbers of an array are finite, or within bounds, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from .native import _engine
from .threads import get_num_threads

SCAN_BYTES = 1 << 28  # per call, ~50 ms, during which Ctrl-C is not handled
FOR_ONE = 8 << 20  # bytes, below which one thread scans alone: as in csrc/checks.c


def surely_finite(array: NDArray[Any]) -> bool:
    """True if the engine finds an array of floats to be finite; False if it does not, or cannot read the array."""
    readable = array.ndim and array.dtype.char in "fd" and array.dtype.isnative and array.flags.c_contiguous
    return bool(_engine and readable and all(_engine.all_finite(part, _scanners(part)) for part in _parts(array)))


def surely_within(array: NDArray[Any], low: float, high: float) -> bool:
    """True if the engine finds all numbers finite and in low..high; False if it does not, or cannot read the array."""
    readable = 1 <= array.ndim <= 2 and array.dtype.kind in "fiu"
    return bool(_engine and readable and all(_engine.all_within(p, low, high, _scanners(p)) for p in _parts(array)))


def _parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Slices of its rows, short enough that Ctrl-C is handled in between."""
    rows = max(1, SCAN_BYTES // max(1, array.nbytes // max(1, len(array))))
    return (array[i : i + rows] for i in range(0, len(array), rows))


def _scanners(array: NDArray[Any]) -> int:
    """Number of threads that scan an array."""
    return 1 if array.nbytes < FOR_ONE else get_num_threads()
