"""Listeners: calls the callbacks of an estimator as :mod:`fastmlp.callbacks` specifies."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any

from .. import callbacks as listening
from ..callbacks import TrainingState
from ..history import History
from ..stopping import EarlyStopping
from .protocol import Tasks
from .solver import Solver


class Listeners:
    """All callbacks of a training, scikit-learn's last; a context manager, entered before the first epoch.

    ``state.trainer`` is the estimator, whose fitted attributes are those of the last epoch.
    """

    def __init__(self, estimator: Any, solver: Solver, history: History, tasks: Tasks | None = None) -> None:
        self.tasks = tasks
        self.all = listening.check(estimator.callbacks or ())
        if any(isinstance(callback, EarlyStopping) for callback in self.all):
            raise ValueError(
                "callbacks must hold no EarlyStopping: an estimator has early_stopping=True, n_iter_no_change, tol and"
                " scoring"
            )
        if estimator.progress:
            self.all.append(listening.ProgressBar())
        self.state = TrainingState(0, int(estimator.max_iter), solver.net, history, estimator)
        self.ends = ExitStack()

    def __enter__(self) -> Listeners:
        for callback in reversed(self.all):
            if hasattr(callback, "on_train_end"):
                self.ends.callback(callback.on_train_end, self.state)
        self._call("on_train_begin")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.state.error = error
        self.ends.close()

    def epoch_begins(self) -> None:
        """Call scikit-learn's callbacks; the others have no such method."""
        if self.tasks:
            self.tasks.begin()

    def epoch_ended(self) -> bool:
        """Call all callbacks; return whether any of them asks to stop."""
        self.state.epoch += 1
        stop = listening.wants_to_stop(self._call("on_epoch_end")) if self.all else False
        return (self.tasks.end() or stop) if self.tasks else stop

    def _call(self, event: str) -> list[Any]:
        return [getattr(callback, event)(self.state) for callback in self.all if hasattr(callback, event)]
