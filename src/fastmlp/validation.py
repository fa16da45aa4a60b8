"""Validation in `fit`: converts its arguments to an Evaluator of the validation rows and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import callbacks as listeners
from . import checks, metrics, stopping
from .data import Data
from .evaluation import Evaluator, held_out

if TYPE_CHECKING:
    from .mlp import MLP


def listen(early_stopping: Any, callbacks: Any) -> list[Any]:
    """All callbacks of a `fit`; early stopping first, so that the others see the weights it restores."""
    stop = stopping.check(early_stopping)
    found = listeners.check(callbacks)
    return found if stop is None else [stop, *found]


def prepare(
    net: MLP, data: Data, validation: Any, fraction: float | None, wanted: Any, callbacks: Sequence[Any]
) -> tuple[Data, Evaluator | None]:
    """Return the data without held-out rows, and the evaluator of the validation rows, if there are any.

    Parameters
    ----------
    validation : None, ``(X, y)``, ``(X, y, sample_weight)``, or an array of row numbers
    fraction : float or None
        ``validation_fraction``.
    wanted : list or None
        ``metrics``.
    callbacks : list
        The metrics monitored by EarlyStopping objects among them are reported, too.
    """
    stops = [c for c in callbacks if isinstance(c, stopping.EarlyStopping)]
    if fraction is not None:
        if validation is not None:
            raise ValueError(f"validation_fraction must be None where validation is given, got {fraction!r}")
        validation = held_out_rows(net, data, fraction)
    if validation is None:
        _check_unwatched(wanted, stops)
        return data, None
    rest, held = _divide(net, data, validation)
    evaluator = Evaluator(net, held, _reported(net, wanted, stops))
    for stop in stops:
        stop.watch(evaluator.metrics)
    return rest, evaluator


def held_out_rows(net: MLP, data: Data, fraction: Any) -> NDArray[np.int64]:
    """A random fraction of the rows, the same in every `fit` of a network; single labels are stratified."""
    fraction = checks.number("validation_fraction", fraction, "(0, 1)")
    one_label = net.loss.is_classifier and data.y.shape[1:] in ((), (1,))
    return held_out(data.y, fraction, one_label, net.seed)


def _check_unwatched(wanted: Any, stops: list[stopping.EarlyStopping]) -> None:
    """Raise ValueError if `metrics` or early stopping need validation rows."""
    how = "give validation=(X, y) or validation_fraction=0.1"
    for stop in stops:
        if stop.needs_validation:
            raise ValueError(f"EarlyStopping with monitor={stop.monitor!r} needs validation rows: {how}")
        stop.watch([])
    if wanted is not None:
        raise ValueError(f"metrics need validation rows: {how}")


def _reported(net: MLP, wanted: Any, stops: list[stopping.EarlyStopping]) -> list[metrics.Metric]:
    """The requested metrics, and those monitored by early stopping."""
    chosen = metrics.choose(wanted, net)
    for stop in stops:
        watched = stop.metric()
        if watched is None or watched in [metric.name for metric in chosen]:
            continue
        metric = metrics.get(watched, "EarlyStopping: monitor")
        if metric.name not in [m.name for m in chosen]:
            chosen.append(metric)
    return chosen


def _divide(net: MLP, data: Data, validation: Any) -> tuple[Data, Data]:
    if isinstance(validation, np.ndarray) and validation.ndim == 1:
        return _divide_rows(data, validation)
    if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
        raise TypeError(
            "validation must be (X, y), (X, y, sample_weight) or an array of row numbers, "
            f"got {type(validation).__name__}"
        )
    X, y = net.check_data(validation[0], validation[1], "validation ")
    weight = validation[2] if len(validation) == 3 else None
    return data, Data(X, y, checks.sample_weight(weight, len(X), "validation sample_weight"))


def _divide_rows(data: Data, rows: NDArray[Any]) -> tuple[Data, Data]:
    n = len(data.X)
    checks.unmasked("validation", rows)
    if rows.dtype.kind not in "iu":
        raise TypeError(f"validation rows must be whole numbers, got an array of {rows.dtype}")
    chosen = np.zeros(n, dtype=bool)
    if not rows.size or rows.min() < 0 or rows.max() >= n:
        got = rows.tolist() if rows.size < 10 else f"{rows.min()}..{rows.max()}"
        raise ValueError(f"validation rows must be numbers 0..{n - 1}, at least one, got {got}")
    chosen[rows] = True
    rest = np.flatnonzero(~chosen)
    if not rest.size:
        raise ValueError(f"validation rows must leave some of the {n} rows to train on, got all of them")
    weight = data.weight
    for name, part in (("train on", rest), ("validate on", rows)):
        if weight is not None and not weight[part].max() > 0:
            raise ValueError(f"sample_weight must not be all zero on the {part.size} rows to {name}")
    held = Data(data.X[rows], data.y[rows], None if weight is None else weight[rows])
    return replace(data, chosen=rest), held
