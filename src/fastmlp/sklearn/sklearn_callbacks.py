"""Support for scikit-learn's own callbacks (>= 1.9): those set by ``set_callbacks`` are called at each epoch.

Before 1.9 there is no ``set_callbacks``, and this module has no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Placeholder for scikit-learn's class of this name, if there is none."""


__all__ = ["CallbackSupportMixin", "Tasks"]


class Tasks:
    """The task tree of one `fit` or `partial_fit`: a root with one child per epoch (with lbfgs: per iteration).

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
    name : str
        Name of the root: the method's.
    epochs : int
        Maximum number of epochs.
    X : array-like
        As given by the caller, so that its columns keep their names.
    y : array
    weight : array or None
        The caller's sample weights.
    """

    def __init__(
        self, estimator: Any, name: str, epochs: int, X: Any, y: NDArray[Any], weight: NDArray[np.float64] | None
    ) -> None:
        self.estimator, self.data, self.weight = estimator, (X, y), weight
        self.best: NDArray[Any] | None = None
        self.root = estimator._init_callback_context(task_name=name, max_subtasks=epochs)
        self.current: Any = None
        self.root.call_on_fit_task_begin(estimator=estimator, **self._fit_data())

    @classmethod
    def of(cls, estimator: Any, *arguments: Any) -> Tasks | None:
        """The tasks of this estimator; None, at no cost, if it has no such callbacks."""
        listening = getattr(estimator, "_skl_callbacks", None) and hasattr(estimator, "_init_callback_context")
        return cls(estimator, *arguments) if listening else None

    def train_on(self, chosen: NDArray[np.int64] | None, best: NDArray[Any] | None) -> None:
        """Set the rows of the coming epochs; `best`, if not None, holds the parameters that training will end with."""
        self.best = best
        self.chosen = chosen
        self.parts: tuple[Any, ...] | None = None if chosen is not None else (*self.data, self.weight)

    def begin(self) -> None:
        """Begin an epoch, unless one is in progress."""
        if self.current is None:
            self.current = self.root.subcontext(task_name="epoch")
            self.current.call_on_fit_task_begin(
                estimator=self.estimator, **self._epoch_data(), reconstruction_attributes=self._snapshot
            )

    def end(self) -> bool:
        """End the epoch; return whether any callback asks to stop."""
        task, self.current = self.current, None
        return bool(
            task.call_on_fit_task_end(
                estimator=self.estimator, **self._epoch_data(), reconstruction_attributes=self._snapshot
            )
        )

    def close(self) -> None:
        """End the training, and first an unfinished epoch, if there is one, without data."""
        if self.current is not None:
            self.current.call_on_fit_task_end(estimator=self.estimator)
        self.best = None
        self.root.call_on_fit_task_end(
            estimator=self.estimator, **self._fit_data(), reconstruction_attributes=self._snapshot
        )

    # ---- data for callbacks, computed on request ---------------------------------------------------------------------

    def _fit_data(self) -> dict[str, Any]:
        X, y = self.data
        return {"X": lambda: X, "y": lambda: y, "metadata": weights(self.weight)}

    def _epoch_data(self) -> dict[str, Callable[[], Any]]:
        return {
            "X": lambda: self._part()[0],
            "y": lambda: self._part()[1],
            "metadata": lambda: weights(self._part()[2]),
        }

    def _part(self) -> tuple[Any, ...]:
        """Rows, targets and weights of the training part."""
        if self.parts is None:
            whole = (*self.data, self.weight)
            self.parts = tuple(None if a is None else _safe_indexing(a, self.chosen) for a in whole)
        return self.parts

    def _snapshot(self) -> dict[str, Any]:
        """Attributes of an estimator as if training ended here; independent of this one's."""
        estimator = self.estimator
        net = estimator._net.twin(estimator._net.dtype)
        if self.best is not None:
            net.parameters[:] = self.best
        coefs, intercepts = list(net.weights), list(net.biases)
        lists = {name: getattr(estimator, name) for name in ("loss_curve_", "validation_scores_")}
        return {
            "_net": net,
            "_solver": None,
            "_spare": None,
            "coefs_": coefs,
            "intercepts_": intercepts,
            "_lists": (coefs, intercepts),
            "_shown": (*coefs, *intercepts),
            **{name: None if values is None else list(values) for name, values in lists.items()},
        }


def weights(weight: NDArray[np.float64] | None) -> dict[str, NDArray[np.float64]] | None:
    """Sample weights as the protocol's metadata."""
    return None if weight is None else {"sample_weight": weight}
