"""Layout: all parameters of a network in one flat vector, as a matrix with padded rows for each layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .memory import aligned, check_size, padded


class Layout:
    """Layout of the parameters of a network in a flat vector.

    Layer ``i`` is a matrix ``(sizes[i] + 1, sizes[i + 1])`` with padded rows: the weights, then the bias as last row.
    Gradients and optimizer states have the same layout, so that a norm, an update or a checkpoint is one operation on
    one vector.

    >>> layout = Layout([2, 4, 1], "float32")
    >>> layout.size, [m.shape for m in layout.matrices(layout.zeros())]
    (128, [(3, 4), (5, 1)])
    """

    def __init__(self, sizes: list[int] | tuple[int, ...], dtype: DTypeLike) -> None:
        self.sizes = tuple(sizes)
        self.dtype = np.dtype(dtype)
        self.strides = [padded(n, dtype) for n in self.sizes[1:]]
        spans = [(n + 1) * ld for n, ld in zip(self.sizes, self.strides, strict=False)]
        self.starts = [sum(spans[:i]) for i in range(len(spans))]
        self.size = sum(spans)
        check_size(self.size, dtype, f"sizes={list(self.sizes)}")

    def zeros(self) -> NDArray[Any]:
        """A new flat vector of zeros."""
        return aligned(self.size, self.dtype)

    def copy(self, flat: NDArray[Any]) -> NDArray[Any]:
        """An aligned copy of a flat vector; NumPy's own copies are not aligned."""
        found = self.zeros()
        found[:] = flat
        return found

    def places(self, bias: bool = True) -> NDArray[np.int64]:
        """Indices of the parameters in a flat vector: all but the padding and, with ``bias=False``, the biases."""
        mark = np.zeros(self.size, dtype=bool)
        for matrix in self.matrices(mark):
            matrix[: None if bias else -1] = True
        return np.flatnonzero(mark)

    def matrices(self, flat: NDArray[Any]) -> list[NDArray[Any]]:
        """Views ``(n_in + 1, n_out)`` of a flat vector, one per layer, with the bias in the last row."""
        found = []
        for n_in, n_out, ld, start in zip(self.sizes, self.sizes[1:], self.strides, self.starts, strict=False):
            found.append(flat[start : start + (n_in + 1) * ld].reshape(n_in + 1, ld)[:, :n_out])
        return found


class Vector:
    """A flat vector and its matrices, which stay views of it in copies and after unpickling.

    Attributes
    ----------
    layout : Layout
    flat : array
    matrices : list of array
    """

    def __init__(self, layout: Layout) -> None:
        self.layout, self.flat = layout, layout.zeros()
        self.matrices = layout.matrices(self.flat)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "matrices"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.flat = self.layout.copy(self.flat)
        self.matrices = self.layout.matrices(self.flat)
