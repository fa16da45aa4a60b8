"""EarlyStopping: stops training when a metric stops improving, and restores the best weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import checks, metrics
from .callbacks import Callback, TrainingState
from .hyperparameters import check_bool, check_number
from .keywords import explained

LOSSES = ("loss", "val_loss")


class EarlyStopping(Callback):
    """Stop when a loss or metric has not improved for some epochs, and restore the weights of its best epoch.

    Pass it as ``fit(early_stopping=...)`` or among the callbacks. After an error or Ctrl-C nothing is restored.

    Parameters
    ----------
    monitor : str or callable(y, prediction), default "val_loss"
        ``"loss"`` is the training loss; a metric (``"roc_auc"``, ``"val_roc_auc"`` or a function) is computed on the
        validation rows, and reported by `fit`.
    patience : int, default 10
        In [1, inf): stop after this many consecutive epochs without improvement.
    min_delta : float, default 0.0
        In [0, inf): an improvement must exceed this to reset the count of epochs. The weights kept are those of the
        best epoch regardless.
    mode : {"min", "max"}, optional
        Whether the monitored value should fall or rise. Known for losses and named metrics; required for a function
        without an attribute ``greater_is_better``.
    restore_best : bool, default True
        Whether to restore the weights of the best epoch, instead of keeping the last ones.
    last_best : bool, default False
        Among equally good epochs, restore the last instead of the first.

    Attributes
    ----------
    best_epoch : int
        Counted from 1; 0 if no epoch had a finite value.
    best_value : float
        The monitored value of that epoch.
    stopped_epoch : int
        The epoch at which training was stopped; 0 if patience did not run out.

    Examples
    --------
    >>> import fastmlp
    >>> X, y = fastmlp.datasets.spirals(200, seed=0)
    >>> net = fastmlp.MLP([2, 16, 2], "tanh")
    >>> stop = fastmlp.EarlyStopping("accuracy", patience=3)
    >>> history = net.fit(X, y, epochs=500, validation_fraction=0.2, early_stopping=stop)
    >>> stop.stopped_epoch == history.epochs == stop.best_epoch + 3
    True
    >>> history.val_accuracy[stop.best_epoch - 1] == stop.best_value == max(history.val_accuracy)
    True
    """

    @explained("EarlyStopping()")
    def __init__(
        self,
        monitor: str | Callable[..., float] = "val_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best: bool = True,
        last_best: bool = False,
    ) -> None:
        self.monitor, self.patience, self.min_delta, self.mode = monitor, patience, min_delta, mode
        self.restore_best, self.last_best = restore_best, last_best
        if not isinstance(monitor, str):
            metrics.get(monitor, "EarlyStopping: monitor")
        check_number(self, "patience", "[1, inf)", whole=True)
        check_number(self, "min_delta", "[0, inf)")
        check_bool(self, "restore_best")
        check_bool(self, "last_best")
        checks.one_of("EarlyStopping: mode", mode, "min", "max", None)
        self._forget()

    def _forget(self) -> None:
        self.best_epoch = self.stopped_epoch = 0
        self.best_value = math.nan
        self._bar, self._waited = math.inf, 0
        self._best: NDArray[Any] | None = None

    # ---- what it watches ---------------------------------------------------------------------------------------------

    @property
    def needs_validation(self) -> bool:
        """Whether the monitored value requires validation rows."""
        return self.monitor != "loss"

    def metric(self) -> Any:
        """The metric that `fit` must report, by name or as a function; None for a loss."""
        if not isinstance(self.monitor, str):
            return self.monitor
        return None if self.monitor in LOSSES else self.monitor.removeprefix("val_")

    def watch(self, reported: list[metrics.Metric]) -> None:
        """Find the monitored value among those that `fit` reports; ValueError if its direction is unknown."""
        self.key, greater = str(self.monitor), False
        if self.monitor not in LOSSES:
            metric = metrics.get(self.monitor) if callable(self.monitor) else None
            name = metric.name if metric else str(self.metric())
            known = next(m for m in reported if m.name == name)
            self.key, greater = f"val_{name}", known.greater_is_better  # type: ignore[assignment]
        if self.mode is None and greater is None:
            raise ValueError(f"EarlyStopping: mode must be 'min' or 'max' for {self.key!r}, whose direction is unknown")
        self.sign = -1.0 if self.mode == "max" or (self.mode is None and greater) else 1.0

    # ---- while training ----------------------------------------------------------------------------------------------

    def on_train_begin(self, state: TrainingState) -> None:
        self._forget()

    def on_epoch_end(self, state: TrainingState) -> bool:
        value = self.sign * float(state.history[self.key][-1])
        best = self.sign * self.best_value
        if value < best or (math.isnan(best) and math.isfinite(value)) or (self.last_best and value == best):
            self.best_value, self.best_epoch = self.sign * value, state.epoch
            if self.restore_best:
                self._keep(state.net.parameters)
        if value < self._bar - self.min_delta:
            self._bar, self._waited = value, 0
        else:
            self._waited += 1
        if self._waited >= self.patience:
            self.stopped_epoch = state.epoch
        return bool(self.stopped_epoch)

    def _keep(self, parameters: NDArray[Any]) -> None:
        if self._best is None:
            self._best = parameters.copy()
        np.copyto(self._best, parameters)

    def on_train_end(self, state: TrainingState) -> None:
        if state.error is None and self._best is not None:
            np.copyto(state.net.parameters, self._best)
        self._best = None


def check(early_stopping: Any) -> EarlyStopping | None:
    """Return an EarlyStopping or None for `fit`'s argument: True for the defaults, False, None or an EarlyStopping."""
    if early_stopping is None or early_stopping is False:
        return None
    if early_stopping is True:
        return EarlyStopping()
    if not isinstance(early_stopping, EarlyStopping):
        raise TypeError(f"early_stopping must be True, False or an EarlyStopping, got {early_stopping!r}")
    return early_stopping
