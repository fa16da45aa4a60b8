"""Data: inputs, targets and sample weights as plans read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .runtime import Executor


@dataclass
class Data:
    """Checked inputs, targets and sample weights, and which rows of them are used.

    Attributes
    ----------
    X : array, shape (rows, n_in)
    y : array
        Class numbers (rows,), or targets (rows, n_out).
    weight : float64 array, shape (rows,), or None
        Sample weights; None if all are equal.
    chosen : int64 array or None
        Numbers of the rows that are used; None for all.

    Examples
    --------
    >>> data = Data(np.zeros((4, 2)), np.array([0, 1, 1, 0]), chosen=np.array([1, 3]))
    >>> len(data), data.labels
    (2, True)
    """

    X: Any
    y: NDArray[Any]
    weight: NDArray[np.float64] | None = None
    chosen: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """The number of rows that are used."""
        return int(self.X.shape[0]) if self.chosen is None else len(self.chosen)

    @property
    def labels(self) -> bool:
        """Whether targets are class numbers."""
        return self.y.ndim == 1

    @property
    def chosen_weight(self) -> NDArray[np.float64] | None:
        """The weights of the rows that are used."""
        return self.weight if self.weight is None or self.chosen is None else self.weight[self.chosen]

    @property
    def total_weight(self) -> float:
        """The sum of the weights of the rows that are used, or their number."""
        weight = self.chosen_weight
        return float(len(self)) if weight is None else float(weight.sum())


def bind_data(runner: Executor, X: NDArray[Any], y: NDArray[Any]) -> None:
    """Bind these inputs and targets to the gathers of a plan."""
    for i, array in zip(runner.plan.gathers, (X, y), strict=True):
        runner.bind(i, array)
