"""L-BFGS for the estimators: scipy's minimiser on all rows at once, with scikit-learn's penalty and stopping rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ..data import bind_data
from ..history import History
from ..lbfgs import SLICE_ROWS, Objective, Vector, minimized
from ..mlp import MLP
from ..runtime import executor
from ..tape import Tape
from . import sklearn_warnings, wide_sparse
from .epochs import constant_terms, mean_of
from .listeners import EstimatorListeners
from .rows import Rows, is_sparse, short
from .sklearn_callbacks import Tasks
from .solver import Solver


class RowsObjective(Objective):
    """The objective on an estimator's rows.

    With several outputs, the sum of their losses is minimised, whose gradient scikit-learn uses.
    """

    def __init__(self, net: MLP, rows: Rows, alpha: float) -> None:
        scale = 1 if net.loss.is_multiclass else net.sizes[-1]
        super().__init__(net, rows, alpha / rows.total_weight, scale=scale, slice_rows=self._slice_rows(rows))
        self.rows = rows
        self._prepare()

    def _slice_rows(self, rows: Rows) -> int:
        return min(SLICE_ROWS, short(rows.X)) if is_sparse(rows.X) else SLICE_ROWS

    def _prepare(self) -> None:
        """The plan of a slice."""
        self.runner = executor(self._gradients(), self.net.backend)
        self.rows.bind(self.runner)

    def _run(self, s: int) -> float:
        return float(self.rows.run(self.runner, self.rows.chosen, self.offsets[s : s + 2])[0])


class WideObjective(RowsObjective):
    """The objective on wide sparse rows: scipy computes the first layer's sums and the gradient of its weights.

    Both products take all rows at once: a product per slice would write the whole gradient each time.
    """

    def _slice_rows(self, rows: Rows) -> int:
        return SLICE_ROWS

    def _prepare(self) -> None:
        tape = Tape(self.net, int(self.offsets[1]), from_sums=True)
        tape.propagate(self.rows.labels)
        tape.gradient(self.sum.matrices, accumulate=True)
        self.deltas = tape.deltas[0]
        self.runner = executor(tape.plan(self.n_threads), self.net.backend)
        self.X = self.rows.X.astype(np.float64, copy=False)

    def _add_up(self) -> float:
        self.z = wide_sparse.sums(self.net, self.X)  # a slice is overwritten by its gradient once that is known
        bind_data(self.runner, self.z, self.rows.y)
        return super()._add_up()

    def _run(self, s: int) -> float:
        begin, end = self.offsets[s : s + 2]
        weight, n_threads = self.rows.weight, self.n_threads
        loss = self.runner.run(None, self.offsets[s : s + 2], weight=weight, n_threads=n_threads)
        np.multiply(self.deltas[: end - begin], self.weights[s], out=self.z[begin:end])
        return float(loss[0])

    def _complete(self) -> None:
        wide_sparse.products(self.X, self.z / self.sum.total, self.sum.matrices[0])


class Minimisation:
    """One `fit` with L-BFGS; updates the estimator's attributes after each iteration."""

    def __init__(self, estimator: Any, solver: Solver, rows: Rows, tasks: Tasks | None = None) -> None:
        self.estimator, self.net, self.history = estimator, solver.net, History()
        kind = WideObjective if wide_sparse.is_wide(self.net, rows.X) else RowsObjective
        self.objective = kind(self.net, rows, float(estimator.alpha))
        self.places, self.constant = self.net.layout.places(), mean_of(constant_terms(rows.y, self.net.loss.name), rows)
        self.unit = solver.unit / self.objective.scale  # scikit-learn's squared error is a mean over outputs
        self.listeners, self.tasks = EstimatorListeners(estimator, solver, self.history, tasks), tasks
        self.memory = int(solver.optimizer.history)  # type: ignore[attr-defined]
        if tasks:
            tasks.train_on(None, None)

    def run(self) -> None:
        estimator = self.estimator
        limits = {"maxfun": int(estimator.max_fun), "maxiter": int(estimator.max_iter), "gtol": float(estimator.tol)}
        limits["maxcor"] = self.memory
        start, estimator.n_iter_ = self.net.parameters[self.places].astype(np.float64), 0
        try:
            with self.listeners:
                self.listeners.begin()
                with threadpool_limits(1, "blas"):  # scipy's own vectors are too short for threads to pay off
                    found = minimized(self._evaluated if self.tasks else self.objective, start, self._iterated, limits)
        except KeyboardInterrupt:
            sklearn_warnings.warn("Training interrupted by user.")
            return
        self._take(found.x, float(found.fun))
        if found.status != 99:  # 99: stopped by a callback, which is no failure
            estimator.n_iter_ = sklearn_warnings.iterations(found, int(estimator.max_iter))

    def _take(self, x: Vector, value: float) -> None:
        """Copy these parameters to the network; their loss including the penalty is `value`."""
        self.net.parameters[self.places] = x
        estimator, penalty = self.estimator, self.objective.penalty(x)
        estimator.loss_ = (value - penalty) * self.unit + penalty + self.constant
        best = estimator.best_loss_  # None if early_stopping is set, which L-BFGS ignores
        estimator.best_loss_ = estimator.loss_ if best is None else min(best, estimator.loss_)

    def _evaluated(self, x: Vector) -> tuple[float, Vector]:
        """The objective; its first evaluation after an iteration begins the next one."""
        self.listeners.epoch_begins()
        return self.objective(x)

    def _iterated(self, found: Any) -> bool:
        """Called when scipy has accepted new parameters; returns whether to stop."""
        estimator = self.estimator
        self._take(found.x, float(found.fun))
        estimator.n_iter_ += 1
        estimator.loss_curve_.append(estimator.loss_)
        self.history.add(loss=estimator.loss_, learning_rate=1.0)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
        return self.listeners.epoch_ended()
