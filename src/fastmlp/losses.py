"""Loss functions, which training minimises.

Specify one by name (``"huber"``) or, to set its parameter, as an object (``Huber(delta=2.0)``). The loss of a batch is
sum_r w_r loss_r / sum_r w_r over its rows, with sample weights w (1 by default). A network rejects a nonzero parameter
that its dtype rounds to 0 or to infinity.

y is the output of the last layer. If a loss has a ``fused_output``, y is the value *before* that activation (logits,
or the logarithm of a rate), and the loss's gradient includes the activation's derivative: exact where computing the
two separately would overflow. In cross-entropies a probability below e^-55 = 1e-24 (in float64 e^-650) counts as zero
in the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks
from .hyperparameters import check_number, hyperparameters, lookup

__all__ = ["MAE", "MSE", "BinaryCrossEntropy", "CrossEntropy", "Huber", "Loss", "Poisson", "Quantile", "get"]


@hyperparameters
class Loss:
    """Base class of losses.

    Attributes
    ----------
    name : str
        Name of the loss with its default parameters.
    kind : str
        Name of the kernel's case, in ``fm_loss``.
    param : float
        Smoothing, scale or delta; 0 if there is none.
    default_output : str
        Default output activation.
    fused_output : str or None
        Output activation that is computed within the loss: y is the value before it.
    is_classifier : bool
        Whether targets are classes.
    is_multiclass : bool
        Whether the outputs are the classes, of which each row has one.
    target_range : (float, float)
        Smallest and largest allowed target.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    default_output: ClassVar[str] = "identity"
    fused_output: ClassVar[str | None] = None
    is_classifier: ClassVar[bool] = False
    is_multiclass: ClassVar[bool] = False
    target_range: ClassVar[tuple[float, float]] = (-inf, inf)

    @property
    def param(self) -> float:
        return 0.0

    def aux(self, n_out: int) -> NDArray[np.float64] | None:
        """Return the parameter of each of the n_out outputs, if the loss has one; ValueError for a wrong number."""
        return None

    def decide(self, outputs: NDArray[Any], *, from_logits: bool = False) -> NDArray[Any]:
        """Return the prediction of each row: a class number, 0 or 1 for each label, or values; one column as a vector.

        ``from_logits``: the outputs are those before the softmax or sigmoid. Also applies to targets ``(rows, n_out)``.
        """
        if self.is_multiclass:
            classes: NDArray[Any] = outputs.argmax(axis=1)
            return classes
        if self.is_classifier:
            outputs = (outputs > (0.0 if from_logits else 0.5)).astype(np.int64)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def check(self) -> None:
        """Raise TypeError or ValueError for an invalid parameter; the message gives the allowed range."""


@hyperparameters
class CrossEntropy(Loss):
    """Cross-entropy of the softmax of the logits y: log(sum_c e^y_c) - y_t for a label t.

    For soft targets, sum_c t_c (log(sum e^y) - y_c). Smoothing s replaces t by (1 - s) t + s / n_classes. A class
    weight multiplies the loss of a whole row; PyTorch's multiplies each class's term, so that the two differ with
    smoothing or soft targets.

    Parameters
    ----------
    label_smoothing : float, default 0.0
        In [0, 1).
    class_weight : dict, "balanced" or None, default None
        Weight of each class, 0 or in [1e-100, 1e100], multiplied into the weights of its samples; 1 for classes not in
        the dict. ``"balanced"``: n_samples / (n_classes * count of the class).

    Examples
    --------
    >>> CrossEntropy(class_weight="balanced").class_weights(["no", "yes"], [30, 10])
    array([0.66666667, 2.        ])
    """

    label_smoothing: float = 0.0
    class_weight: Mapping[Any, float] | str | None = None
    name = "cross_entropy"
    kind = "softmax_cross_entropy"
    default_output = "softmax"
    fused_output = "softmax"
    is_classifier = True
    is_multiclass = True
    target_range = (0.0, 1.0)

    @property
    def param(self) -> float:
        return float(self.label_smoothing)

    def class_weights(self, classes: Sequence[Any], counts: ArrayLike) -> NDArray[np.float64]:
        """Return the weight of each class, given the classes in order and their sample counts.

        Raises
        ------
        ValueError
            If ``class_weight`` names a class that is not among them.
        """
        count = np.asarray(counts, dtype=np.float64)
        if self.class_weight is None:
            return np.ones(len(classes))
        if isinstance(self.class_weight, str):  # "balanced"; a class without samples gets no weight
            weights = count.sum() / (len(classes) * np.where(count > 0, count, 1.0))
            return np.where(count > 0, weights, 0.0)
        known = [c.item() if isinstance(c, np.generic) else c for c in classes]
        unknown = [c for c in self.class_weight if c not in known]
        if unknown:
            raise ValueError(f"CrossEntropy: class_weight names {unknown}, not among the classes {known}")
        return np.array([self.class_weight.get(c, 1.0) for c in known], dtype=np.float64)

    def check(self) -> None:
        check_number(self, "label_smoothing", "[0, 1)")
        if isinstance(self.class_weight, Mapping):
            for c, weight in self.class_weight.items():
                check_number(self, f"class_weight[{c!r}]", "[0, inf)", weight)
                checks.weighable(f"CrossEntropy: class_weight[{c!r}]", np.array([weight], dtype=np.float64))
            return
        named = isinstance(self.class_weight, str)
        if self.class_weight is not None and not (named and self.class_weight == "balanced"):
            got = checks.shown(self.class_weight)
            what = f"CrossEntropy: class_weight must be a dict, 'balanced' or None, got {got}"
            raise ValueError(what) if named else TypeError(what)


@hyperparameters
class BinaryCrossEntropy(Loss):
    """Mean over the outputs of log(1 + e^y) - t y, for logits y and targets t in [0, 1]; several outputs: multi-label.

    With a positive weight p: t p log(1 + e^-y) + (1 - t) log(1 + e^y).

    Parameters
    ----------
    positive_weight : float, sequence of floats (one per output) or None, default None
        In (0, 1e30].

    Examples
    --------
    >>> BinaryCrossEntropy(3.0).aux(2)
    array([3., 3.])
    """

    positive_weight: float | Sequence[float] | None = None
    name = "binary_cross_entropy"
    kind = "sigmoid_cross_entropy"
    default_output = "sigmoid"
    fused_output = "sigmoid"
    is_classifier = True
    target_range = (0.0, 1.0)

    def aux(self, n_out: int) -> NDArray[np.float64] | None:
        return None if self.positive_weight is None else each_output(self, "positive_weight", n_out)

    def check(self) -> None:
        if self.positive_weight is not None:
            check_each(self, "positive_weight", "(0, 1e30]")


@hyperparameters
class MSE(Loss):
    """Mean squared error: mean over the outputs of scale (y - t)^2.

    Parameters
    ----------
    scale : float, default 1.0
        In (0, inf). 0.5 gives scikit-learn's loss.

    Examples
    --------
    >>> MSE().kind
    'squared_error'
    """

    scale: float = 1.0
    name = "mse"
    kind = "squared_error"

    @property
    def param(self) -> float:
        return float(self.scale)

    def check(self) -> None:
        check_number(self, "scale", "(0, inf)")


@hyperparameters
class MAE(Loss):
    """Mean absolute error: mean over the outputs of |y - t|. Minimised by the median.

    Examples
    --------
    >>> import fastmlp
    >>> net = fastmlp.MLP([1, 1], loss="mae", weights=[([[2.0]], None)])
    >>> net.evaluate([[1.0], [2.0]], [[3.0], [4.0]])["loss"]
    0.5
    """

    name = "mae"
    kind = "absolute_error"


@hyperparameters
class Huber(Loss):
    """Mean over the outputs of e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2), for e = y - t.

    Quadratic near the target, linear for outliers. Huber, Annals of Mathematical Statistics 35, 1964.

    Parameters
    ----------
    delta : float, default 1.0
        In (0, inf), in the units of the target.

    Examples
    --------
    >>> Huber(2.0).param
    2.0
    """

    delta: float = 1.0
    name = "huber"
    kind = "huber"

    @property
    def param(self) -> float:
        return float(self.delta)

    def check(self) -> None:
        check_number(self, "delta", "(0, inf)")


@hyperparameters
class Quantile(Loss):
    """Pinball loss: mean over the outputs of max(q e, (q - 1) e), for e = t - y. Minimised by the q-quantile.

    Parameters
    ----------
    q : float or sequence of floats, default 0.5
        In (0, 1); a sequence has one per output.

    Examples
    --------
    >>> Quantile((0.1, 0.5, 0.9)).aux(3)
    array([0.1, 0.5, 0.9])
    """

    q: float | Sequence[float] = 0.5
    name = "quantile"
    kind = "quantile"

    def aux(self, n_out: int) -> NDArray[np.float64]:
        return each_output(self, "q", n_out)

    def check(self) -> None:
        check_each(self, "q", "(0, 1)")


@hyperparameters
class Poisson(Loss):
    """Mean over the outputs of e^y - t y, for counts t >= 0: y is the logarithm of the rate, predictions are e^y.

    The negative log-likelihood of a Poisson variable, without the terms that depend on t alone.

    Examples
    --------
    >>> import fastmlp
    >>> fastmlp.MLP([1, 1], loss="poisson", weights=[([[0.0]], None)]).predict([[5.0]])
    array([1.], dtype=float32)
    """

    name = "poisson"
    kind = "poisson"
    default_output = "exp"
    fused_output = "exp"
    target_range = (0.0, inf)


def each_output(owner: Loss, argument: str, n_out: int) -> NDArray[np.float64]:
    """The argument as an array with one number per output; a single number applies to all of them."""
    values = np.asarray(getattr(owner, argument), dtype=np.float64)
    if values.ndim > 0 and values.shape != (n_out,):
        got = f"{checks.counted(values.size, 'value')}, the network {checks.counted(n_out, 'output')}"
        raise ValueError(f"{type(owner).__name__}: {argument} has {got}")
    return np.full(n_out, values)


def check_each(owner: Loss, argument: str, interval: str) -> None:
    """Raise unless the argument is a number in the interval, or a sequence of such numbers."""
    values = getattr(owner, argument)
    if not checks.sequence(values) or getattr(values, "ndim", 1) != 1:
        check_number(owner, argument, interval)
    elif len(values) == 0:
        raise ValueError(f"{type(owner).__name__}: {argument} must have numbers in {interval}, got {values!r}")
    else:
        for value in values:
            check_number(owner, argument, interval, value)


KNOWN: dict[str, Callable[[], Loss]] = {
    kind.name: kind for kind in (CrossEntropy, BinaryCrossEntropy, MSE, MAE, Huber, Quantile, Poisson)
}


def get(loss: str | Loss) -> Loss:
    """Return the loss with this name, or the given object, checked.

    Parameters
    ----------
    loss : str or Loss

    Raises
    ------
    ValueError
        For an unknown name (the message lists the known ones) or a parameter out of range.
    TypeError
        For anything else.

    Examples
    --------
    >>> get("huber")
    Huber(delta=1.0)
    """
    return lookup(loss, KNOWN, Loss)
