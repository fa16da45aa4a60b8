"""Snapshot: a copy of what an epoch will change, to restore it if the epoch diverges."""

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

IN_MEMORY = 1 << 18  # bytes; larger ones go to temporary files, which is hardly slower than a copy in memory
SHARE = 1 << 24  # minimum bytes per thread, so that starting it pays off
SPARE_FILES, SPARE_BYTES = 4, 1 << 27  # writing to a used file takes a quarter of the time of a new one


@dataclass(frozen=True)
class File:
    """A temporary file of ours; other code may close its descriptor, which can then be reused for another file."""

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
        """A stream to read or write from the start; OSError if the file has been closed."""
        if not self.is_ours():
            raise OSError("a temporary file was closed by other code")
        file = io.FileIO(self.descriptor, "r+", closefd=False)
        file.seek(0)
        return file


_spare: list[File] = []  # left by previous snapshots


@forks.in_child
def close_spare_files() -> None:
    """Close the spare files: at the end of the process, and in a forked one, as they are the parent's."""
    while _spare:
        _spare.pop().close()


atexit.register(close_spare_files)


class Snapshot:
    """A copy of a vector, taken repeatedly: in memory, or for a large vector in temporary files, one per thread.

    So `fit` needs little more memory than for parameters and optimizer state. If files cannot be created or written,
    the copy is in memory.

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
        """Open this number of files, or none if one cannot be created."""
        self._process = os.getpid()
        try:
            while len(self._files) < files:
                self._files.append(_file())
        except OSError:
            self._discard()

    def take(self, vector: NDArray[Any]) -> None:
        """Copy the vector."""
        if self._files and self._process != os.getpid():  # after a fork: the files are the parent's
            self._discard()
            self._open(self._parts)
            self._copy = None if self._files else np.empty_like(vector)
        if self._files:
            try:
                self._each(_write, vector)
                return
            except OSError:  # no space left, for example
                self._discard()
                self._copy = np.empty_like(vector)
        np.copyto(self._copy, vector)  # type: ignore[arg-type]

    def restore(self, vector: NDArray[Any]) -> None:
        """Write the last copy to the vector."""
        if self._files:
            self._each(_read, vector)
        else:
            vector[:] = self._copy

    def _each(self, copy: Callable[[File, memoryview], None], vector: NDArray[Any]) -> None:
        """Copy between each file and its part of the vector, in parallel: the system locks each file separately."""
        raw, size = vector.data.cast("B"), self._part_bytes
        parts = [raw[i * size : (i + 1) * size] for i in range(len(self._files))]
        if len(parts) == 1:
            copy(self._files[0], parts[0])
            return
        from concurrent.futures import ThreadPoolExecutor  # slow to import

        try:
            with ThreadPoolExecutor(len(parts)) as pool:
                list(pool.map(copy, self._files, parts))  # raises the exceptions of threads
        except RuntimeError:  # no thread can be started: at their limit, or at interpreter shutdown
            for file, part in zip(self._files, parts, strict=True):
                copy(file, part)

    def _discard(self) -> None:
        while self._files:
            self._files.pop().close()

    def close(self) -> None:
        """Release the copy; its files become spare files."""
        # In a process forked meanwhile, the open files are the parent's.
        keep = self._process == os.getpid() and self._part_bytes <= SPARE_BYTES
        while self._files:
            file = self._files.pop()
            if keep and len(_spare) < SPARE_FILES:
                _spare.append(file)
            else:
                file.close()

    def __del__(self) -> None:
        if getattr(self, "_files", None):  # else it is closed or not fully constructed
            self.close()


def _file() -> File:
    """A spare temporary file or a new one, closed only by `File.close`."""
    with suppress(IndexError):  # no spare file is left
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
