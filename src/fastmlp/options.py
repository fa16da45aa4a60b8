"""The options of a Trainer, with their checks against the network, and the types of the keywords of `fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks, class_weights

if TYPE_CHECKING:
    from .network import Network
    from .optimizers import Optimizer
    from .stopping import EarlyStopping


class SharedSettings(TypedDict, total=False):
    """The keywords that `MLP.fit` and `fit_restarts` pass to :class:`fastmlp.Trainer` and to its `fit`."""

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
    """The keywords that `fit_restarts` passes to `MLP.fit`."""

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
        """Raise TypeError or ValueError for an option that is out of range or does not fit the network."""
        self.dropout_rates(net)
        self.factors(net)
        if self.max_norm is not None:
            checks.number("max_norm", self.max_norm, "(0, inf)")
        if self.average is not None:
            checks.number("average", self.average, "[0, 1)")
        checks.whole("accumulate", self.accumulate)
        class_weights.check(net, class_weights.chosen(net, self.class_weight))

    def dropout_rates(self, net: Network) -> tuple[float, ...]:
        """A dropout rate for the inputs of each layer; empty if all are 0."""
        hidden = len(net.sizes) - 2
        if checks.sequence(self.dropout):
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
        if not checks.sequence(self.lr_factors):
            raise TypeError(f"lr_factors must be a list of numbers, one for each layer, got {self.lr_factors!r}")
        each = checks.same_length("lr_factors", self.lr_factors, layers, "one factor for each layer")
        return [checks.number(f"lr_factors[{i}]", f, "[0, inf)") for i, f in enumerate(each)]
