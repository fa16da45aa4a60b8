"""Snapshot: what an epoch is going to change, as it was before, should the epoch diverge."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 1 << 18  # bytes; larger ones go to a temporary file, which takes hardly longer than a copy in memory


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
        if like.nbytes > in_memory:
            with suppress(OSError):  # nowhere to write
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as self)
        if self._file is None:
            self._copy = np.empty_like(like)

    def take(self, vector: NDArray[Any]) -> None:
        """Remember the vector as it is now."""
        if self._file:
            try:
                self._file.seek(0)
                self._file.write(vector.data.cast("B"))
                self._file.flush()
                return
            except OSError:  # no room
                self._file.close()
                self._file, self._copy = None, np.empty_like(vector)
        np.copyto(self._copy, vector)  # type: ignore[arg-type]

    def restore(self, vector: NDArray[Any]) -> None:
        """Put back what was taken last."""
        if self._file:
            self._file.seek(0)
            self._file.readinto(vector.data.cast("B"))
        else:
            vector[:] = self._copy

    def __del__(self) -> None:
        if file := getattr(self, "_file", None):
            file.close()
