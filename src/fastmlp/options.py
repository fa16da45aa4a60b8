"""Options: what a Trainer does beside its optimizer, checked against the network; class weights as sample weights.

And the keywords of `fit`, for those who hand them on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks
from .losses import CrossEntropy

if TYPE_CHECKING:
    from .network import Network
    from .optimizers import Optimizer
    from .stopping import EarlyStopping


class SharedSettings(TypedDict, total=False):
    """The keywords that `MLP.fit` and `fit_restarts` hand on to :class:`fastmlp.Trainer` and to its `fit`."""

    epochs: int
    batch_size: int | None
    dropout: float | Sequence[float]
    input_dropout: float
    max_norm: float | None
    average: float | None
    accumulate: int
    lr_factors: Sequence[float] | None
    class_weight: Mapping[Any, float] | str | None
    metrics: Sequence[Any] | None
    early_stopping: bool | EarlyStopping
    sample_weight: ArrayLike | None
    shuffle: bool
    use_average: bool


class FitSettings(SharedSettings, total=False):
    """The keywords of `MLP.fit`."""

    validation: tuple[ArrayLike, ...] | NDArray[np.integer[Any]] | None
    validation_fraction: float | None
    callbacks: Sequence[Any]


class RestartSettings(SharedSettings, total=False):
    """What `fit_restarts` hands to `MLP.fit`, beside the keywords that it has itself."""

    optimizer: str | Optimizer


@dataclass(frozen=True)
class Options:
    """The keywords of :class:`fastmlp.Trainer`, described there."""

    dropout: float | Sequence[float] = 0.0
    input_dropout: float = 0.0
    max_norm: float | None = None
    average: float | None = None
    accumulate: int = 1
    lr_factors: Sequence[float] | None = None
    class_weight: Mapping[Any, float] | str | None = None

    def check(self, net: Network) -> None:
        """Raise TypeError or ValueError, with the range, for what is out of it or does not fit the network."""
        self.dropout_rates(net)
        self.factors(net)
        if self.max_norm is not None:
            checks.number("max_norm", self.max_norm, "(0, inf)")
        if self.average is not None:
            checks.number("average", self.average, "[0, 1)")
        checks.whole("accumulate", self.accumulate)
        weights = self.weight_of_classes(net)
        if weights is not None:
            CrossEntropy(class_weight=weights).check()
            CrossEntropy(class_weight=weights).class_weights(range(n_classes(net)), np.ones(n_classes(net)))

    def dropout_rates(self, net: Network) -> tuple[float, ...]:
        """A rate for the inputs of each layer; nothing if all are 0."""
        hidden = len(net.sizes) - 2
        if isinstance(self.dropout, (list, tuple, np.ndarray)):
            each = checks.same_length("dropout", self.dropout, hidden, "one rate for each hidden layer")
            rates = [checks.number(f"dropout[{i}]", rate, "[0, 1)") for i, rate in enumerate(each)]
        else:
            rates = [checks.number("dropout", self.dropout, "[0, 1)")] * hidden
        found = (checks.number("input_dropout", self.input_dropout, "[0, 1)"), *rates)
        return found if any(found) else ()

    def factors(self, net: Network) -> list[float]:
        """A factor on the learning rate for each layer."""
        layers = len(net.sizes) - 1
        if self.lr_factors is None:
            return [1.0] * layers
        if not isinstance(self.lr_factors, (list, tuple, np.ndarray)):
            raise TypeError(f"lr_factors must be a list of numbers, one for each layer, got {self.lr_factors!r}")
        each = checks.same_length("lr_factors", self.lr_factors, layers, "one factor for each layer")
        return [checks.number(f"lr_factors[{i}]", f, "[0, inf)") for i, f in enumerate(each)]

    def weight_of_classes(self, net: Network) -> Mapping[Any, float] | str | None:
        """The class weights asked for here or in the loss."""
        own = net.loss.class_weight if isinstance(net.loss, CrossEntropy) else None
        if self.class_weight is None:
            return own
        if own is not None:
            raise ValueError(f"class_weight must be given once: the loss has {own!r}, got {self.class_weight!r}")
        if not net.loss.is_classifier or (net.loss.name != "cross_entropy" and net.sizes[-1] > 1):
            raise ValueError(
                "class_weight must be None but for cross-entropy over classes or a single label, got"
                f" {self.class_weight!r} with loss {net.loss.name!r} and {checks.counted(net.sizes[-1], 'output')}"
            )
        return self.class_weight


def n_classes(net: Network) -> int:
    """How many classes there are: one an output, or two for a single label."""
    return net.sizes[-1] if net.loss.name == "cross_entropy" else 2


def weighted(
    net: Network,
    class_weight: Any,
    y: NDArray[Any],
    weight: NDArray[np.float64] | None,
    rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float64] | None:
    """The sample weights times those of the classes; None: all equal. ValueError if nothing is left of them."""
    if class_weight is None:
        return weight
    found = class_sample_weights(net, class_weight, y, rows) * (1 if weight is None else weight)
    if not (found if rows is None else found[rows]).max() > 0:
        raise ValueError(f"class_weight must leave some rows a weight above 0, got {class_weight!r}")
    checks.weighable("class_weight times sample_weight", found)
    return np.ascontiguousarray(found, dtype=np.float64)


def class_sample_weights(
    net: Network, class_weight: Any, y: NDArray[Any], rows: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """The weight of each row of y: that of its class, and for soft targets the mean over classes, weighted by them.

    ``"balanced"`` counts the classes of the given `rows` (all by default); sample weights play no part in the count.
    """
    spec, n = CrossEntropy(class_weight=class_weight), n_classes(net)
    counted = y if rows is None else y[rows]
    if y.ndim == 1:
        counts = np.bincount(counted.astype(np.int64), minlength=n)
        return np.asarray(spec.class_weights(range(n), counts)[y.astype(np.int64)])
    if net.loss.name == "cross_entropy":
        counts = counted.sum(axis=0, dtype=np.float64)
        found = np.zeros(len(y))
        for column, factor in zip(y.T, spec.class_weights(range(n), counts), strict=True):
            found += column * factor  # one by one: how a matrix product rounds hangs on the machine
    else:
        positive = float(counted.sum(dtype=np.float64))
        no, yes = spec.class_weights(range(n), [len(counted) - positive, positive])
        t: NDArray[np.float64] = y[:, 0].astype(np.float64)
        found = np.asarray((1 - t) * no + t * yes)
    return np.where(found < checks.LEAST_WEIGHT, 0.0, found)  # a target may give a class next to nothing
