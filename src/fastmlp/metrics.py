"""Metrics: one number that compares predictions with targets.

Specify one by name (``"roc_auc"``) or as any ``callable(y, prediction)``, including scikit-learn's; if it has a
parameter ``sample_weight``, it receives the weights. The functions here agree with scikit-learn's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks, keywords

if TYPE_CHECKING:
    from .mlp import MLP

__all__ = ["KNOWN", "Metric", "accuracy", "balanced_accuracy", "choose", "get", "mae", "r2", "rmse", "roc_auc"]

Array = NDArray[Any]
Weight = NDArray[np.float64] | None


# ---- the formulas ----------------------------------------------------------------------------------------------------


def _pair(y: ArrayLike, prediction: ArrayLike, name: str = "prediction") -> tuple[Array, Array]:
    """Both as arrays, checked to have the same shape and at least one row."""
    y, prediction = checks.as_array("y", y), checks.as_array(name, prediction)
    if y.ndim not in (1, 2) or not len(y):
        raise ValueError(f"y must have shape (rows,) or (rows, n_out), with at least 1 row, got {y.shape}")
    if prediction.shape != y.shape:
        raise ValueError(f"{name} must have the shape of y, {y.shape}, got {prediction.shape}")
    return y, prediction


def _weights(weight: ArrayLike | None, y: Array) -> NDArray[np.float64]:
    found = checks.sample_weight(weight, len(y), "weight")
    return np.ones(len(y)) if found is None else found


def _mean(values: Array, weight: ArrayLike | None) -> Any:
    """Weighted mean over the rows."""
    w = checks.sample_weight(weight, len(values), "weight")
    return values.mean(axis=0) if w is None else np.average(values, axis=0, weights=w)


def _over_outputs(mean: Any) -> float:
    """Mean over the outputs of the means over the rows."""
    return float(mean.mean() if mean.ndim else mean)


def _values(y: ArrayLike, prediction: ArrayLike) -> tuple[Array, Array]:
    """Both as float64 arrays, checked to have the same shape and at least one row."""
    y, prediction = _pair(checks.numeric("y", y), checks.numeric("prediction", prediction))
    return y.astype(np.float64), prediction.astype(np.float64)


def accuracy(y: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Weighted fraction of correct predictions; with a column for each label, the mean over labels.

    >>> accuracy(np.array([0, 1, 2, 1]), np.array([0, 1, 1, 1]))
    0.75
    """
    y, prediction = _pair(y, prediction)
    return _over_outputs(_mean(y == prediction, weight))


def balanced_accuracy(y: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Mean recall over the classes in `y`; with a column for each label, the mean over labels.

    >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
    0.5
    """
    y, prediction = _pair(y, prediction)
    if y.ndim == 2:
        return float(np.mean([balanced_accuracy(t, p, weight) for t, p in zip(y.T, prediction.T, strict=True)]))
    w = _weights(weight, y)
    classes, number = np.unique(y, return_inverse=True)
    total = np.bincount(number, w, len(classes))
    right = np.bincount(number, w * (y == prediction), len(classes))
    return float((right[total > 0] / total[total > 0]).mean())


def roc_auc(y: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Probability that a sample of class 1 has a higher score than one of class 0; ties count half.

    The area under the ROC curve. NaN if a class has no weight.

    >>> roc_auc(np.array([0, 1, 0, 1]), np.array([0.1, 0.8, 0.4, 0.4]))
    0.875
    """
    y, score = _pair(y, checks.numeric("score", score), "score")
    w = _weights(weight, y)
    values, number = np.unique(score, return_inverse=True)
    positive = np.bincount(number, w * (y == 1), len(values))
    negative = np.bincount(number, w * (y != 1), len(values))
    below = np.cumsum(negative) - negative
    total = float(positive.sum() * negative.sum())
    return float(positive @ (below + negative / 2)) / total if total > 0 else float("nan")


def r2(y: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Coefficient of determination, 1 - sum (y - p)^2 / sum (y - mean y)^2, averaged over outputs.

    As in scikit-learn, an output with constant targets scores 1 if predicted exactly, else 0.

    >>> r2(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    0.5
    """
    y, prediction = _values(y, prediction)
    residual = _mean((y - prediction) ** 2, weight)
    total = _mean((y - _mean(y, weight)) ** 2, weight)
    with np.errstate(all="ignore"):
        score = np.where(total > 0, 1 - residual / total, np.where(residual > 0, 0.0, 1.0))
    return float(score.mean())


def mae(y: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Mean of |y - p| over rows and outputs.

    >>> mae(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    1.0
    """
    y, prediction = _values(y, prediction)
    return _over_outputs(_mean(np.abs(y - prediction), weight))


def rmse(y: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Root of the mean of (y - p)^2 over rows, averaged over outputs.

    >>> round(rmse(np.array([1.0, 2.0]), np.array([4.0, 6.0])), 4)
    3.5355
    """
    y, prediction = _values(y, prediction)
    return _over_outputs(np.sqrt(_mean((y - prediction) ** 2, weight)))


# ---- metrics with names ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """A metric that `fit` can report.

    Attributes
    ----------
    name : str
        Its key in the history, without the prefix ``val_``.
    function : callable
        ``(y, prediction, weight) -> float``.
    greater_is_better : bool or None
        None: unknown.
    needs : str
        The kind of loss it applies to: ``"classes"`` (classification), ``"values"`` (regression), ``"score"`` (two
        classes; the function gets the score of class 1) or ``"any"``.
    """

    name: str
    function: Callable[[Array, Array, Weight], float]
    greater_is_better: bool | None
    needs: str = "any"

    def check(self, net: MLP, y: Array) -> None:
        """Raise ValueError unless the metric applies to this network and these targets."""
        if self.needs == "values" and net.loss.is_classifier:
            raise ValueError(
                f"metric {self.name!r} is for regression; the loss is {net.loss.name!r}: use {_names('classes')}"
            )
        if self.needs in ("classes", "score") and not net.loss.is_classifier:
            raise ValueError(
                f"metric {self.name!r} is for classification; the loss is {net.loss.name!r}: use {_names('values')}"
            )
        if self.needs != "score":
            return
        if net.sizes[-1] != (2 if net.loss.is_multiclass else 1):
            outputs = checks.counted(net.sizes[-1], "output")
            raise ValueError(f"metric {self.name!r} needs two classes; the network has {outputs}")
        found = np.unique(truth(net, y))
        if len(found) != 2:
            raise ValueError(f"metric {self.name!r} needs samples of both classes in y, got only class {found[0]}")

    def __call__(self, net: MLP, y: Array, out: Array, weight: Weight) -> float:
        """Compute the metric from outputs `out`, taken before an activation that is part of the loss."""
        answer = scores(net, out) if self.needs == "score" else answers(net, out)
        if KNOWN.get(self.name) is not self and np.may_share_memory(answer, out):
            answer = answer.copy()  # a user's function may keep it, and `out` will be overwritten
        found = self.function(truth(net, y), answer, weight)
        try:
            return float(found)
        except (TypeError, ValueError):
            raise TypeError(f"metric {self.name!r} must return a number, got {checks.shown(found)}") from None


def _names(needs: str) -> str:
    return ", ".join(name for name, metric in KNOWN.items() if metric.needs == needs)


def truth(net: MLP, y: Array) -> Array:
    """The targets in the form of `answers`: class numbers, 0 or 1 for each label, or values; one column as a vector."""
    return y if y.ndim == 1 else net.loss.decide(y)


def answers(net: MLP, out: Array) -> Array:
    """What `MLP.predict` returns for these outputs, except that the logits decide where rounded probabilities tie."""
    if not net.loss.is_classifier:
        out = np.exp(out) if net.loss.default_output == "exp" else net.restored(out)
    return net.loss.decide(out, from_logits=True)


def scores(net: MLP, out: Array) -> Array:
    """The log-odds of class 1."""
    return out[:, 1] - out[:, 0] if out.shape[1] == 2 else out[:, 0]


KNOWN: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", accuracy, True, "classes"),
        Metric("balanced_accuracy", balanced_accuracy, True, "classes"),
        Metric("roc_auc", roc_auc, True, "score"),
        Metric("r2", r2, True, "values"),
        Metric("mae", mae, False, "values"),
        Metric("rmse", rmse, False, "values"),
    )
}


def get(metric: str | Callable[..., float] | Metric, argument: str = "metric") -> Metric:
    """Return the metric with this name, or one that wraps a function.

    Parameters
    ----------
    metric : str, or callable(y, prediction)
        A function may have an attribute ``greater_is_better``. `prediction` is what `MLP.predict` returns.
    argument : str, default "metric"
        Name of the argument in error messages.

    Raises
    ------
    ValueError
        For an unknown name (the message lists the known ones).
    TypeError
        For anything else.

    Examples
    --------
    >>> get("rmse").greater_is_better
    False
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        if metric not in KNOWN:
            raise ValueError(f"{argument}: {keywords.unknown('metric', metric, ['loss', *sorted(KNOWN)])}")
        return KNOWN[metric]
    if not callable(metric) or isinstance(metric, type):
        got = checks.shown(metric)
        raise TypeError(f"{argument} must be the name of a metric or a function (y, prediction) -> number, got {got}")
    name = getattr(metric, "__name__", type(metric).__name__)
    return Metric(name, _Weighted(metric, _takes_weight(metric)), getattr(metric, "greater_is_better", None))


@dataclass(frozen=True)
class _Weighted:
    """Calls a function (y, prediction), with the weights if it accepts them; a class, so that it can be pickled."""

    function: Callable[..., float]
    takes_weight: bool

    def __call__(self, y: Array, prediction: Array, weight: Weight) -> float:
        if self.takes_weight and weight is not None:
            return self.function(y, prediction, sample_weight=weight)
        return self.function(y, prediction)


def _takes_weight(function: Callable[..., float]) -> bool:
    try:
        return "sample_weight" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a built-in function without a signature
        return False


def choose(wanted: Iterable[Any] | str | None, net: MLP) -> list[Metric]:
    """Return the requested metrics, without the loss, which is always reported; None: the default for this loss.

    Raises
    ------
    TypeError, ValueError
        If one is not a metric, or two have the same name.
    """
    if wanted is None:
        return [KNOWN["accuracy" if net.loss.is_classifier else "r2"]]
    if not checks.iterable(wanted):
        raise TypeError(f"metrics must be a list of names or functions, got {checks.shown(wanted)}")
    chosen = [get(metric, "metrics") for metric in wanted if not (isinstance(metric, str) and metric == "loss")]
    names = [metric.name for metric in chosen]
    twice = next((name for name in [*names, "loss"] if [*names, "loss"].count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"metrics must have different names, got {twice!r} twice")
    return chosen
