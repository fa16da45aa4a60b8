"""How good predictions are: one number from targets and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .mlp import MLP


def batch_weights(weight: NDArray[np.float64] | None, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of the sample weights of each batch, or its number of rows."""
    if weight is None:
        return np.diff(offsets).astype(np.float64)
    return np.add.reduceat(weight, offsets[:-1])


def accuracy(right: NDArray[Any], weight: NDArray[np.float64] | None = None) -> float:
    """Weighted share of right answers; `right` may have a column for each label."""
    per_row = right.reshape(len(right), -1).mean(axis=1)
    return float(np.average(per_row, weights=weight))


def r2(y: NDArray[Any], prediction: NDArray[Any], weight: NDArray[np.float64] | None = None) -> float:
    """Coefficient of determination, 1 - sum (y - p)^2 / sum (y - mean y)^2, averaged over outputs.

    As in scikit-learn, an output whose targets are all the same scores 1 where it is matched exactly, else 0.
    """
    y, prediction = y.astype(np.float64), prediction.astype(np.float64)
    w = np.ones(len(y)) if weight is None else weight
    residual = w @ (y - prediction) ** 2
    total = w @ (y - np.average(y, axis=0, weights=w)) ** 2
    with np.errstate(all="ignore"):
        score = np.where(total > 0, 1 - residual / total, np.where(residual > 0, 0.0, 1.0))
    return float(score.mean())


def default_metric(
    net: MLP, y: NDArray[Any], out: NDArray[Any], weight: NDArray[np.float64] | None
) -> tuple[str, float]:
    """``("accuracy", share)`` for a classification loss, ``("r2", score)`` for a regression.

    `out` are the outputs before an activation that is part of the loss: logits, or logarithms of rates.
    """
    if net.loss.name == "cross_entropy":
        labels = y if y.ndim == 1 else y.argmax(axis=1)
        return "accuracy", accuracy(out.argmax(axis=1) == labels, weight)
    if net.loss.is_classifier:
        return "accuracy", accuracy((out > 0) == (y > 0.5), weight)
    return "r2", r2(y, np.exp(out) if net.loss.default_output == "exp" else out, weight)
