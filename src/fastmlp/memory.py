"""Memory for the kernels: vectors aligned to 64 bytes, and matrices with padded rows.

Every row starts on a 64-byte boundary, so that kernels work on whole vectors, and no row stride is a multiple of 1 KiB:
power-of-two strides map all rows to the same few cache sets, which costs a quarter of the speed.
"""

from __future__ import annotations

import mmap
import os
import threading
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import forks

ALIGNMENT = 64
ALIASING_STRIDE = 1024
HUGE_PAGE = 1 << 21
SMALL, SLAB = 1 << 10, 1 << 14  # bytes


def padded(columns: int, dtype: DTypeLike) -> int:
    """Row stride, in elements, of a matrix with this many columns.

    >>> padded(10, "float32"), padded(256, "float32"), padded(10, "float64")
    (16, 272, 16)
    """
    itemsize = np.dtype(dtype).itemsize
    size = -(-columns * itemsize // ALIGNMENT) * ALIGNMENT
    if size % ALIASING_STRIDE == 0:
        size += ALIGNMENT
    return size // itemsize


def physical_memory() -> int:
    """Bytes of memory in this machine, or a very large number if the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 46


def check_size(elements: int, dtype: DTypeLike, what: str) -> None:
    """Raise ValueError if `elements` numbers cannot fit this machine's memory.

    Uses Python's integers, which do not overflow; the allocation could succeed, since memory is committed lazily.
    """
    size = elements * np.dtype(dtype).itemsize
    if size > physical_memory():
        raise ValueError(f"{what} would take {size:,} bytes; this machine has {physical_memory():,}")


def aligned(elements: int, dtype: DTypeLike) -> NDArray[Any]:
    """A vector of zeros aligned to 64 bytes, on huge pages if it fills at least one."""
    dtype = np.dtype(dtype)
    size = elements * dtype.itemsize
    if size >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        return _on_huge_pages(size).view(dtype)
    raw, start = _slab.take(size) if size <= SMALL else _fresh(size)
    return raw[start : start + size].view(dtype)


def _fresh(size: int) -> tuple[NDArray[np.uint8], int]:
    """A zeroed buffer and the aligned offset of `size` bytes in it."""
    raw = np.zeros(size + ALIGNMENT, dtype=np.uint8)
    return raw, -raw.__array_interface__["data"][0] % ALIGNMENT


class _Slab:
    """Contiguous memory for small vectors.

    Loads and stores whose addresses agree in the last twelve bits conflict in the processor (4K aliasing), which costs
    up to a tenth of a tiny network's step. Packed together, the buffers of such a network fill less than a page.
    """

    def __init__(self) -> None:
        self.renew_lock()
        self.raw, self.at = _fresh(0)

    def renew_lock(self) -> None:
        self.lock = threading.Lock()

    def take(self, size: int) -> tuple[NDArray[np.uint8], int]:
        """A buffer and the aligned offset of `size` unused bytes in it."""
        if not self.lock.acquire(blocking=False):  # held by another thread, or by the code a signal handler interrupted
            return _fresh(size)
        try:
            if self.at + size > len(self.raw):
                self.raw, self.at = _fresh(SLAB)
            start, self.at = self.at, self.at + -(-size // ALIGNMENT) * ALIGNMENT
            return self.raw, start
        finally:
            self.lock.release()


_slab = _Slab()
forks.in_child(_slab.renew_lock)


def _on_huge_pages(size: int) -> NDArray[np.uint8]:
    """Zeroed memory, aligned to huge pages and advised to use them for all that it fills completely.

    Kernels access columns, with a row stride between lines: on small pages nearly every access needs another address
    translation, which costs a twentieth of the speed. The remainder is on small pages, so that no memory is wasted.
    """
    try:
        memory = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:  # NumPy would raise MemoryError
        raise MemoryError(f"{size:,} bytes could not be allocated: {error.strerror}") from error
    raw = np.frombuffer(memory, dtype=np.uint8)
    start = -raw.__array_interface__["data"][0] % HUGE_PAGE
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE, start, size // HUGE_PAGE * HUGE_PAGE)
    return raw[start : start + size]


def matrix(rows: int, columns: int, dtype: DTypeLike) -> NDArray[Any]:
    """A matrix ``(rows, columns)`` of zeros with padded rows."""
    ld = padded(columns, dtype)
    check_size(rows * ld, dtype, f"a buffer of {rows} rows and {columns} columns")
    return aligned(rows * ld, dtype).reshape(rows, ld)[:, :columns]
