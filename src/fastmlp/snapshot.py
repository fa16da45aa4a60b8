"""Snapshot: what an epoch is going to change, as it was before, should the epoch diverge."""

from __future__ import annotations

import atexit
import io
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .runtime import get_num_threads

IN_MEMORY = 1 << 18  # bytes; larger ones go to temporary files, which takes hardly longer than a copy in memory
SHARE = 1 << 24  # bytes from which a thread is worth its start
SPARE_FILES, SPARE_BYTES = 4, 1 << 27  # a file that was written before takes a quarter of the time a new one does

_spare: list[int] = []  # descriptors of the files that fits have left for the next one


def close_spare_files() -> None:
    """At the end of the process, and in a forked one: there they are the parent's."""
    while _spare:
        os.close(_spare.pop())


atexit.register(close_spare_files)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=close_spare_files)


class Snapshot:
    """A copy of a vector, taken again and again: in memory, or for a large one in temporary files, one a thread.

    So a fit needs little more memory than parameters and optimizer state take. Where there is no place for a file, it
    is in memory after all.

    Examples
    --------
    >>> vector = np.arange(3.0)
    >>> snapshot = Snapshot(vector)
    >>> snapshot.take(vector); vector[:] = np.nan; snapshot.restore(vector); vector
    array([0., 1., 2.])
    """

    def __init__(self, like: NDArray[Any], in_memory: int = IN_MEMORY) -> None:
        parts = max(1, min(get_num_threads(), like.nbytes // SHARE))
        self._process, self._part_bytes, self._files = os.getpid(), -(-like.nbytes // parts), list[int]()
        try:
            while like.nbytes > in_memory and len(self._files) < parts:
                self._files.append(_file())
        except OSError:  # nowhere to write
            self._close()
        self._copy = None if self._files else np.empty_like(like)

    def take(self, vector: NDArray[Any]) -> None:
        """Remember the vector as it is now."""
        if self._files:
            try:
                self._each(_write, vector)
                return
            except OSError:  # no room
                self._close()
                self._copy = np.empty_like(vector)
        np.copyto(self._copy, vector)  # type: ignore[arg-type]

    def restore(self, vector: NDArray[Any]) -> None:
        """Put back what was taken last."""
        if self._files:
            self._each(_read, vector)
        else:
            vector[:] = self._copy

    def _each(self, copy: Callable[[int, memoryview], None], vector: NDArray[Any]) -> None:
        """Between every file and its part of the vector; each file has a lock of its own in the system."""
        raw, size = vector.data.cast("B"), self._part_bytes
        parts = [raw[i * size : (i + 1) * size] for i in range(len(self._files))]
        if len(parts) == 1:
            copy(self._files[0], parts[0])
            return
        from concurrent.futures import ThreadPoolExecutor  # takes longer to import than most networks to set up

        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(copy, self._files, parts))  # raises what a thread raised

    def _close(self) -> None:
        while self._files:
            os.close(self._files.pop())

    def __del__(self) -> None:
        # A process forked meanwhile has the same files open, which are the parent's.
        keep = getattr(self, "_process", None) == os.getpid() and self._part_bytes <= SPARE_BYTES
        for file in getattr(self, "_files", []):
            if keep and len(_spare) < SPARE_FILES:
                _spare.append(file)
            else:
                os.close(file)


def _file() -> int:
    """A spare temporary file or a new one: its descriptor, for nothing but `__del__` to close."""
    try:
        return _spare.pop()
    except IndexError:
        with tempfile.TemporaryFile(buffering=0) as file:
            return os.dup(file.fileno())


def _write(file: int, part: memoryview) -> None:
    with _from_the_start(file) as stream:
        while part:
            part = part[stream.write(part) :]


def _read(file: int, part: memoryview) -> None:
    with _from_the_start(file) as stream:
        while part and (n := stream.readinto(part)):
            part = part[n:]


def _from_the_start(descriptor: int) -> io.FileIO:
    file = io.FileIO(descriptor, "r+", closefd=False)
    file.seek(0)
    return file
