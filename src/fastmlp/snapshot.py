"""Snapshot: what an epoch is going to change, as it was before, should the epoch diverge."""

from __future__ import annotations

import atexit
import io
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import forks
from .threads import get_num_threads

IN_MEMORY = 1 << 18  # bytes; larger ones go to temporary files, which takes hardly longer than a copy in memory
SHARE = 1 << 24  # bytes from which a thread is worth its start
SPARE_FILES, SPARE_BYTES = 4, 1 << 27  # a file that was written before takes a quarter of the time a new one does


@dataclass(frozen=True)
class File:
    """A temporary file of our own, as long as its descriptor means it: others may close that, and get it for theirs."""

    descriptor: int
    device: int
    number: int

    @classmethod
    def opened(cls, descriptor: int) -> File:
        found = os.fstat(descriptor)
        return cls(descriptor, found.st_dev, found.st_ino)

    def is_ours(self) -> bool:
        try:
            return File.opened(self.descriptor) == self
        except OSError:
            return False

    def close(self) -> None:
        if self.is_ours():
            os.close(self.descriptor)

    def stream(self) -> io.FileIO:
        """To read or write from the start; OSError if the file has been closed."""
        if not self.is_ours():
            raise OSError("a temporary file was closed by somebody else")
        file = io.FileIO(self.descriptor, "r+", closefd=False)
        file.seek(0)
        return file


_spare: list[File] = []  # that fits have left for the next one


@forks.in_child
def close_spare_files() -> None:
    """At the end of the process, and in a forked one: there they are the parent's."""
    while _spare:
        _spare.pop().close()


atexit.register(close_spare_files)


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
        self._parts = max(1, min(get_num_threads(), like.nbytes // SHARE))
        self._part_bytes, self._files = -(-like.nbytes // self._parts), list[File]()
        self._open(self._parts if like.nbytes > in_memory else 0)
        self._copy = None if self._files else np.empty_like(like)

    def _open(self, files: int) -> None:
        """So many files, or none where there is no place for one."""
        self._process = os.getpid()
        try:
            while len(self._files) < files:
                self._files.append(_file())
        except OSError:
            self._discard()

    def take(self, vector: NDArray[Any]) -> None:
        """Remember the vector as it is now."""
        if self._files and self._process != os.getpid():  # a fork: they are the parent's, who goes on with them
            self._discard()
            self._open(self._parts)
            self._copy = None if self._files else np.empty_like(vector)
        if self._files:
            try:
                self._each(_write, vector)
                return
            except OSError:  # no room
                self._discard()
                self._copy = np.empty_like(vector)
        np.copyto(self._copy, vector)  # type: ignore[arg-type]

    def restore(self, vector: NDArray[Any]) -> None:
        """Put back what was taken last."""
        if self._files:
            self._each(_read, vector)
        else:
            vector[:] = self._copy

    def _each(self, copy: Callable[[File, memoryview], None], vector: NDArray[Any]) -> None:
        """Between every file and its part of the vector; each file has a lock of its own in the system."""
        raw, size = vector.data.cast("B"), self._part_bytes
        parts = [raw[i * size : (i + 1) * size] for i in range(len(self._files))]
        if len(parts) == 1:
            copy(self._files[0], parts[0])
            return
        from concurrent.futures import ThreadPoolExecutor  # takes longer to import than most networks to set up

        try:
            with ThreadPoolExecutor(len(parts)) as pool:
                list(pool.map(copy, self._files, parts))  # raises what a thread raised
        except RuntimeError:  # no thread can be started: there are as many as may be, or Python is about to end
            for file, part in zip(self._files, parts, strict=True):
                copy(file, part)

    def _discard(self) -> None:
        while self._files:
            self._files.pop().close()

    def close(self) -> None:
        """Let go of the copy; its files serve the next one."""
        # A process forked meanwhile has the same files open, which are the parent's.
        keep = self._process == os.getpid() and self._part_bytes <= SPARE_BYTES
        while self._files:
            file = self._files.pop()
            if keep and len(_spare) < SPARE_FILES:
                _spare.append(file)
            else:
                file.close()

    def __del__(self) -> None:
        if getattr(self, "_files", None):  # else it has been closed, or was never made
            self.close()


def _file() -> File:
    """A spare temporary file or a new one, for nothing but `close` to close."""
    with suppress(IndexError):  # there is none, or another thread was faster
        while True:
            if (file := _spare.pop()).is_ours():
                return file
    with tempfile.TemporaryFile(buffering=0) as new:
        return File.opened(os.dup(new.fileno()))


def _write(file: File, part: memoryview) -> None:
    with file.stream() as stream:
        while part:
            part = part[stream.write(part) :]


def _read(file: File, part: memoryview) -> None:
    with file.stream() as stream:
        while part and (n := stream.readinto(part)):
            part = part[n:]
