"""EstimatorListeners: the callbacks of an estimator, scikit-learn's own among them."""

from __future__ import annotations

from typing import Any

from .. import callbacks
from ..callbacks import TrainingState
from ..history import History
from ..stopping import EarlyStopping
from .sklearn_callbacks import Tasks
from .solver import Solver


class EstimatorListeners(callbacks.Listeners):
    """All callbacks of a training, scikit-learn's last.

    ``state.trainer`` is the estimator, whose fitted attributes are those of the last epoch.
    """

    def __init__(self, estimator: Any, solver: Solver, history: History, tasks: Tasks | None = None) -> None:
        found = callbacks.check(estimator.callbacks or ())
        if any(isinstance(callback, EarlyStopping) for callback in found):
            raise ValueError(
                "callbacks must hold no EarlyStopping: an estimator has early_stopping=True, n_iter_no_change, tol and"
                " scoring"
            )
        if estimator.progress:
            found.append(callbacks.ProgressBar())
        super().__init__(found, TrainingState(0, int(estimator.max_iter), solver.net, history, estimator))
        self.tasks = tasks

    def epoch_begins(self) -> None:
        """Call scikit-learn's callbacks; the others have no such method."""
        if self.tasks:
            self.tasks.begin()

    def epoch_ended(self) -> bool:
        """Call all callbacks; return whether any of them asks to stop."""
        self.state.epoch += 1
        stop = self.tell("on_epoch_end")
        return (self.tasks.end() or stop) if self.tasks else stop
