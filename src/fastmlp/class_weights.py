"""Class weights, multiplied into the sample weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import checks
from .losses import CrossEntropy

if TYPE_CHECKING:
    from .network import Network

ClassWeight = Mapping[Any, float] | str | None  # the weight of each class, "balanced", or None for equal weights


def chosen(net: Network, given: ClassWeight = None) -> ClassWeight:
    """Class weights as `given` to a trainer, else those of the network's loss.

    Raises
    ------
    ValueError
        If both are given, or the loss is not for classes.
    """
    own = net.loss.class_weight if isinstance(net.loss, CrossEntropy) else None
    if given is None:
        return own
    if own is not None:
        raise ValueError(f"class_weight must be given once: the loss has {own!r}, got {given!r}")
    if not net.loss.is_classifier or (not net.loss.is_multiclass and net.sizes[-1] > 1):
        raise ValueError(
            "class_weight must be None except for cross-entropy over classes or a single label, got"
            f" {given!r} with loss {net.loss.name!r} and {checks.counted(net.sizes[-1], 'output')}"
        )
    return given


def check(net: Network, class_weight: ClassWeight) -> None:
    """TypeError or ValueError unless these are valid weights for the network's classes."""
    if class_weight is not None:
        spec, n = CrossEntropy(class_weight=class_weight), n_classes(net)
        spec.check()
        spec.class_weights(range(n), np.ones(n))


def n_classes(net: Network) -> int:
    """Number of classes: that of outputs, or two for a single label."""
    return net.sizes[-1] if net.loss.is_multiclass else 2


def weighted(
    net: Network,
    class_weight: ClassWeight,
    y: NDArray[Any],
    weight: NDArray[np.float64] | None,
    rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float64] | None:
    """Sample weights times class weights; None if all are equal. ValueError if no row keeps a positive weight."""
    if class_weight is None:
        return weight
    found = of_rows(net, class_weight, y, rows) * (1 if weight is None else weight)
    if not (found if rows is None else found[rows]).max() > 0:
        raise ValueError(f"class_weight must leave some rows a weight above 0, got {class_weight!r}")
    checks.weighable("class_weight times sample_weight", found)
    return np.ascontiguousarray(found, dtype=np.float64)


def of_rows(
    net: Network, class_weight: ClassWeight, y: NDArray[Any], rows: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """The class weight of each row of y; for soft targets the mean over classes, weighted by the targets.

    ``"balanced"`` counts the classes in `rows` (default: all), ignoring sample weights.
    """
    spec, n = CrossEntropy(class_weight=class_weight), n_classes(net)
    counted = y if rows is None else y[rows]
    if y.ndim == 1:
        counts = np.bincount(counted.astype(np.int64), minlength=n)
        return np.asarray(spec.class_weights(range(n), counts)[y.astype(np.int64)])
    if net.loss.is_multiclass:
        counts = counted.sum(axis=0, dtype=np.float64)
        found = np.zeros(len(y))
        for column, factor in zip(y.T, spec.class_weights(range(n), counts), strict=True):
            found += column * factor  # by columns, as the rounding of a matrix product depends on the machine
    else:
        positive = float(counted.sum(dtype=np.float64))
        no, yes = spec.class_weights(range(n), [len(counted) - positive, positive])
        t: NDArray[np.float64] = y[:, 0].astype(np.float64)
        found = np.asarray((1 - t) * no + t * yes)
    return np.where(found < checks.LEAST_WEIGHT, 0.0, found)  # a soft target may be tiny
