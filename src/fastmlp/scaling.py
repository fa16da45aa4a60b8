"""Standardisation of a network's inputs and targets, learned before its weights are trained.

The gather op standardises inputs batch by batch, so that X is never copied as a whole; statistics are computed from
slices of X, so that a memory-mapped file is read piece by piece. They describe the values in the network's dtype: a
column whose differences vanish in float32 counts as constant.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import checks, memory
from .runtime import level_of_caller

METHODS = ("mean", "robust")
CHUNK = 1 << 20  # elements of a slice
QUANTILE_ROWS = 1 << 20  # quantiles of longer columns are computed from every k-th row

Vector = NDArray[np.float64]


def warn_if_all_constant(scale: Vector, rows: int) -> None:
    """Issue a UserWarning if every column has scale 0."""
    if not scale.any():
        warnings.warn(
            f"every column of X is constant over the {checks.counted(rows, 'row')} that standardisation is learned"
            " from, so the network will always read all inputs as 0: create a new one, and fit it to rows that differ",
            stacklevel=level_of_caller(),
        )


class InputScaling:
    """x' = (x - shift) * scale, for each column of the inputs.

    ``"mean"``: shift = mean, scale = 1 / standard deviation (with divisor n).

    ``"robust"``: shift = median, scale = 1 / (q75 - q25); where the quartiles are equal, 2 / (max - min). Then x' is
    smoothly clipped to (-3, 3): x' / sqrt(1 + (x' / 3)^2). Holzmüller, Grinsztajn and Steinwart, arXiv:2407.04491
    (RealMLP-TD-S).

    A constant column has scale 0: it is read as 0, whatever value it takes later. So are all columns if learned from
    a single row. Sample weights are ignored.

    Parameters
    ----------
    method : "mean" or "robust"
    columns : int
    dtype : numpy.dtype
        The network's.

    Attributes
    ----------
    shift, scale : float64 array, shape (columns,)
        0 and 1 until `learn` or `set` is called.
    matrix : array, shape (2, columns)
        Both, as read by gather; never reallocated, because plans refer to it.

    Examples
    --------
    >>> scaling = InputScaling("mean", 2, np.dtype("float64"))
    >>> scaling.learn(np.array([[0.0, 7.0], [4.0, 7.0]]))
    >>> scaling.shift, scaling.scale
    (array([2., 7.]), array([0.5, 0. ]))
    """

    def __init__(self, method: str, columns: int, dtype: np.dtype[Any]) -> None:
        self.method, self.dtype, self.learned = method, dtype, False
        self.matrix = memory.matrix(2, columns, dtype)
        self.shift, self.scale = np.zeros(columns), np.ones(columns)
        self.matrix[1] = 1

    @property
    def smooth_clip(self) -> bool:
        """Whether the standardised inputs are clipped."""
        return self.method == "robust"

    def learn(self, X: NDArray[Any], rows: NDArray[np.int64] | None = None) -> None:
        """Compute shift and scale from X, or from the given rows of it.

        Raises
        ------
        ValueError
            If a column's spread, or its inverse, is not finite in the network's dtype; nothing is changed then.

        Warns
        -----
        UserWarning
            If all columns are constant.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            shift, spread = (self._median if self.method == "robust" else self._mean)(X, rows)
            scale = np.where(spread > 0, 1 / spread, 0.0)
            usable = np.isfinite(np.stack((shift, spread, scale)).astype(self.dtype)).all(axis=0)
        if not usable.all():
            column = int(np.argmin(usable))
            raise ValueError(
                f"X cannot be standardised in {self.dtype}: column {column} has a spread of {spread[column]:g}"
                f" around {shift[column]:g}"
            )
        warn_if_all_constant(scale, len(X if rows is None else rows))
        self.set(shift, scale)

    def set(self, shift: Vector, scale: Vector) -> None:
        """Set values that were learned elsewhere."""
        self.shift, self.scale, self.learned = shift.copy(), scale.copy(), True
        self.matrix[0], self.matrix[1] = shift, scale

    def numbers(self) -> tuple[Vector, Vector]:
        """The arguments for `set`."""
        return self.shift, self.scale

    def _mean(self, X: NDArray[Any], rows: NDArray[np.int64] | None) -> tuple[Vector, Vector]:
        n = len(X if rows is None else rows)
        low, high, total = self._extremes(X, rows)
        mean = total / n
        squares = np.zeros_like(mean)
        for chunk in self._slices(X, rows):
            squares += ((chunk - mean) ** 2).sum(axis=0)
        return np.where(low < high, mean, low), np.where(low < high, np.sqrt(squares / n), 0.0)

    def _median(self, X: NDArray[Any], rows: NDArray[np.int64] | None) -> tuple[Vector, Vector]:
        low, high, _ = self._extremes(X, rows)
        every = slice(None, None, -(-len(X if rows is None else rows) // QUANTILE_ROWS))
        taken = every if rows is None else rows[every]
        at_once = max(1, 4 * CHUNK // min(len(X), QUANTILE_ROWS))
        blocks = (self._values(X[taken, a : a + at_once]) for a in range(0, X.shape[1], at_once))
        q25, median, q75 = np.concatenate([np.quantile(b, (0.25, 0.5, 0.75), axis=0) for b in blocks], axis=1)
        return median, np.where(q25 < q75, q75 - q25, (high - low) / 2)

    def _extremes(self, X: NDArray[Any], rows: NDArray[np.int64] | None) -> tuple[Vector, Vector, Vector]:
        """Minimum, maximum and sum of each column."""
        low, high, total = np.full(X.shape[1], np.inf), np.full(X.shape[1], -np.inf), np.zeros(X.shape[1])
        for chunk in self._slices(X, rows):
            low, high = np.minimum(low, chunk.min(axis=0)), np.maximum(high, chunk.max(axis=0))
            total += chunk.sum(axis=0)
        return low, high, total

    def _slices(self, X: NDArray[Any], rows: NDArray[np.int64] | None) -> Iterator[Vector]:
        n, size = len(X if rows is None else rows), max(1, CHUNK // X.shape[1])
        for start in range(0, n, size):
            part = slice(start, start + size)
            yield self._values(X[part if rows is None else rows[part]])

    def _values(self, part: NDArray[Any]) -> Vector:
        """Values rounded to the network's dtype, in C order whatever X's: sums then do not depend on it."""
        return np.ascontiguousarray(part.astype(self.dtype), dtype=np.float64)

    def slope(self, X: NDArray[Any]) -> Vector:
        """dx' / dx for each element of some rows."""
        if not self.smooth_clip:
            return np.broadcast_to(self.scale, X.shape)
        x = (self._values(X) - self.shift) * self.scale
        return self.scale * (1 + (x / 3) ** 2) ** -1.5  # d/dx of x / sqrt(1 + (x / 3)^2)


class TargetScaling:
    """y' = (y - mean) / std of each output, for regression; undone in predictions.

    A constant target is only shifted.

    Examples
    --------
    >>> scaling = TargetScaling(1, np.dtype("float64"))
    >>> scaling.learn(np.array([[1.0], [5.0]]))
    >>> scaling.apply(np.array([[7.0]])), scaling.undo(np.array([[2.0]]))
    (array([[2.]]), array([[7.]]))
    """

    def __init__(self, outputs: int, dtype: np.dtype[Any]) -> None:
        self.dtype, self.learned = dtype, False
        self.mean, self.std = np.zeros(outputs), np.ones(outputs)

    def learn(self, y: NDArray[Any]) -> None:
        """Compute mean and standard deviation from targets (rows, outputs)."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.ascontiguousarray(y.astype(self.dtype), dtype=np.float64)
            mean = values.mean(axis=0)
            std = np.sqrt(((values - mean) ** 2).mean(axis=0))
        if not (np.isfinite(mean) & np.isfinite(std)).all():
            raise ValueError(f"y cannot be standardised: its mean is {mean.tolist()}, its deviation {std.tolist()}")
        constant = (values == values[0]).all(axis=0)
        self.set(np.where(constant, values[0], mean), np.where(constant | (std < np.finfo(self.dtype).tiny), 1.0, std))

    def set(self, mean: Vector, std: Vector) -> None:
        """Set values that were learned elsewhere."""
        self.mean, self.std, self.learned = mean.copy(), std.copy(), True

    def numbers(self) -> tuple[Vector, Vector]:
        """The arguments for `set`."""
        return self.mean, self.std

    def apply(self, y: NDArray[Any]) -> NDArray[Any]:
        """Return the standardised targets, a new array of the network's dtype."""
        return ((y - self.mean) / self.std).astype(self.dtype)

    def undo(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Return the outputs in the original units of the targets, a new array."""
        return (outputs * self.std + self.mean).astype(outputs.dtype)
