"""Snapshot: what an epoch is going to change, as it was before, should the epoch diverge."""

from __future__ import annotations

import atexit
import io
import os
import tempfile
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 1 << 18  # bytes; larger ones go to a temporary file, which takes hardly longer than a copy in memory
SPARE_FILES, SPARE_BYTES = 2, 1 << 28  # a file that was written before takes a quarter of the time a new one does

_spare: list[int] = []  # descriptors of the files that fits have left for the next one


def close_spare_files() -> None:
    """At the end of the process, and in a forked one: there they are the parent's."""
    while _spare:
        os.close(_spare.pop())


atexit.register(close_spare_files)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=close_spare_files)


class Snapshot:
    """A copy of a vector, taken again and again: in memory, or for a large one in a temporary file.

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
        self._file = self._copy = None
        self._process, self._bytes = os.getpid(), like.nbytes
        if like.nbytes > in_memory:
            with suppress(OSError):  # nowhere to write
                self._file = _file()
        if self._file is None:
            self._copy = np.empty_like(like)

    def take(self, vector: NDArray[Any]) -> None:
        """Remember the vector as it is now."""
        if self._file is not None:
            try:
                with _from_the_start(self._file) as file:
                    rest = vector.data.cast("B")
                    while rest:
                        rest = rest[file.write(rest) :]
                return
            except OSError:  # no room
                os.close(self._file)
                self._file, self._copy = None, np.empty_like(vector)
        np.copyto(self._copy, vector)  # type: ignore[arg-type]

    def restore(self, vector: NDArray[Any]) -> None:
        """Put back what was taken last."""
        if self._file is not None:
            with _from_the_start(self._file) as file:
                rest = vector.data.cast("B")
                while rest and (n := file.readinto(rest)):
                    rest = rest[n:]
        else:
            vector[:] = self._copy

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        if file is None:
            return
        # A process forked meanwhile has the same file open, which is the parent's.
        if self._process == os.getpid() and self._bytes <= SPARE_BYTES and len(_spare) < SPARE_FILES:
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


def _from_the_start(descriptor: int) -> io.FileIO:
    file = io.FileIO(descriptor, "r+", closefd=False)
    file.seek(0)
    return file
