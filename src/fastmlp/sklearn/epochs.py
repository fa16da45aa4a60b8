"""Training: the epochs of one `fit` or `partial_fit`, and scikit-learn's rule for when to stop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from ..history import History
from ..schedules import plateau
from .listeners import EstimatorListeners
from .rows import Rows
from .sklearn_callbacks import Tasks
from .sklearn_warnings import warn
from .solver import Solver
from .validation import Validation


class Training:
    """Runs epochs and keeps the estimator's fitted attributes up to date.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
    solver : Solver
    rows : Rows
        To train on.
    validation : Validation or None
    random_state : numpy.random.RandomState
        Shuffles the rows, with the same draws as scikit-learn.
    tasks : Tasks, optional
    """

    def __init__(
        self,
        estimator: Any,
        solver: Solver,
        rows: Rows,
        validation: Validation | None,
        random_state: Any,
        tasks: Tasks | None = None,
    ) -> None:
        self.estimator, self.solver, self.rows, self.validation = estimator, solver, rows, validation
        self.random_state, self.order, self.tasks = random_state, np.arange(len(rows)), tasks
        self.batch = self._batch_size()
        self.stops_on_score = bool(estimator.early_stopping and validation)
        self.history, self.terms = History(), constant_terms(rows.y, solver.net.loss.name)
        self.constant = mean_of(self.terms, rows)
        needs = "a validation score; else only the loss is monitored"
        self.plateau = plateau(solver.optimizer.learning_rate, bool(validation), needs)
        solver.begin(rows, self.batch, float(estimator.alpha), int(estimator.max_iter))

    def _batch_size(self) -> int:
        wanted, n = self.estimator.batch_size, len(self.rows)
        if wanted == "auto":
            return min(200, n)
        if wanted > n:
            warn("Got `batch_size` less than 1 or larger than sample size. It is going to be clipped")
        return int(np.clip(wanted, 1, n))

    def _next_order(self) -> NDArray[np.int64] | None:
        """Order of the rows. A single batch ignores it, but draws all the same: `random_state` may be shared."""
        several = self.batch < len(self.rows)
        if self.estimator.shuffle:
            permutation = np.arange(len(self.rows))
            self.random_state.shuffle(permutation)
            self.order = self.order[permutation] if several else self.order
        if self.rows.chosen is None and not (self.estimator.shuffle and several):
            return None
        return self.order if self.rows.chosen is None else self.rows.chosen[self.order]

    def run(self, incremental: bool) -> None:
        """Train for at most max_iter epochs, or for one if `incremental`."""
        estimator, best = self.estimator, self.solver.net.parameters.copy() if self.stops_on_score else None
        estimator.n_iter_ = 0
        listeners = EstimatorListeners(estimator, self.solver, self.history, self.tasks)
        if self.tasks:
            self.tasks.train_on(self.rows.chosen, best)
        try:
            with listeners:
                listeners.begin()
                stop = False
                while not stop and estimator.n_iter_ < estimator.max_iter:
                    listeners.epoch_begins()
                    improved = self._epoch()
                    if best is not None and improved:
                        best[:] = self.solver.net.parameters
                    stop = self._is_over() or incremental
                    stop = listeners.epoch_ended() or stop or self._diverged()
            if not stop:
                warn(
                    f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached and the optimization "
                    "hasn't converged yet.",
                    ConvergenceWarning,
                )
        except KeyboardInterrupt:
            warn("Training interrupted by user.")
        finally:
            self.solver.end()
        if best is not None:
            self.solver.net.parameters[:] = best

    def _epoch(self) -> bool:
        """Train one epoch and record its numbers; return whether the validation score is the best so far."""
        estimator, solver = self.estimator, self.solver
        order = self._next_order()
        loss = solver.epoch(order) + self._constant_of(order)
        estimator.n_iter_ += 1
        estimator.loss_ = loss
        estimator.t_ += len(self.rows)
        estimator.loss_curve_.append(loss)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {loss:.8f}")
        self.history.add(loss=loss, learning_rate=solver.last_rate)
        improved = self._scored() if self.validation else False
        if not self.stops_on_score:
            self._count(loss > estimator.best_loss_ - estimator.tol)
            estimator.best_loss_ = min(loss, estimator.best_loss_)
        if self.plateau:
            self.plateau.observe(estimator.validation_scores_[-1] if self.plateau.mode == "max" else loss)
        if estimator.learning_rate == "invscaling" and self._rate_may_change():
            solver.set_rate(float(estimator.learning_rate_init) / (estimator.t_ + 1) ** float(estimator.power_t))
        return improved

    def _constant_of(self, order: NDArray[np.int64] | None) -> float:
        """The constant part of an epoch's loss: a mean over batches, each with its own sum of sample weights."""
        weight = self.rows.weight
        if weight is None or self.terms is None:
            return self.constant
        terms, w = (self.terms, weight) if order is None else (self.terms[order], weight[order])
        starts = self.solver.offsets[:-1]
        sums, weights = np.add.reduceat(w * terms, starts), np.add.reduceat(w, starts)
        means = np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0)
        return float((means * self.solver.shares).sum())

    def _rate_may_change(self) -> bool:
        """Whether `learning_rate` applies: not to Adam, as in scikit-learn, nor to solver objects with their own."""
        return isinstance(self.estimator.solver, str) and self.estimator.solver != "adam"

    def _scored(self) -> bool:
        estimator, score = self.estimator, self.validation.score() if self.validation else 0.0
        estimator.validation_scores_.append(score)
        self.history.add(val_score=score)
        if estimator.verbose:
            print(f"Validation score: {score:f}")
        if self.stops_on_score:
            self._count(score < estimator.best_validation_score_ + estimator.tol)
        improved = bool(score > estimator.best_validation_score_)
        if improved:
            estimator.best_validation_score_ = score
        return improved

    def _count(self, no_better: bool) -> None:
        self.estimator._no_improvement_count = self.estimator._no_improvement_count + 1 if no_better else 0

    def _is_over(self) -> bool:
        """Whether to stop for lack of improvement; with "adaptive" the rate is lowered instead, as long as possible."""
        estimator, solver = self.estimator, self.solver
        if estimator._no_improvement_count <= estimator.n_iter_no_change:
            return False
        what = "Validation score" if self.stops_on_score else "Training loss"
        patience = f"for {estimator.n_iter_no_change} consecutive epochs."
        text = f"{what} did not improve more than tol={estimator.tol:f} {patience}"
        adaptive = estimator.learning_rate == "adaptive" and self._rate_may_change()
        if adaptive and solver.rate > 1e-6:
            solver.set_rate(solver.rate / 5)
            self._print(f"{text} Setting learning rate to {solver.rate:f}")
            estimator._no_improvement_count = 0
            return False
        self._print(f"{text} Learning rate too small. Stopping." if adaptive else f"{text} Stopping.")
        return True

    def _print(self, text: str) -> None:
        if self.estimator.verbose:
            print(text)

    def _diverged(self) -> bool:
        """Whether loss and weights are not finite, so that further epochs would change nothing."""
        return not math.isfinite(self.estimator.loss_) and not np.isfinite(self.solver.net.parameters).all()


def constant_terms(y: NDArray[Any], loss: str) -> NDArray[np.float64] | None:
    """Terms of each row's loss in scikit-learn that fastmlp omits: its Poisson loss is 0 for exact predictions."""
    if loss != "poisson":
        return None
    y = y.astype(np.float64)
    return (y * np.log(np.where(y > 0, y, 1.0)) - y).sum(axis=1)  # type: ignore[no-any-return]


def mean_of(terms: NDArray[np.float64] | None, rows: Rows) -> float:
    """Weighted mean of the terms of the rows in use."""
    if terms is None:
        return 0.0
    return float(np.average(terms if rows.chosen is None else terms[rows.chosen], weights=rows.chosen_weight))
