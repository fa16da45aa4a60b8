"""L-BFGS for the estimators: scipy's minimiser on all rows at once, with scikit-learn's penalty and stopping rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..accumulation import GradientSum
from ..evaluation import batch_weights, batches
from ..history import History
from ..lbfgs import SLICE_ROWS, minimizer
from ..mlp import MLP
from ..runtime import executor, get_num_threads
from ..tape import gradient_plan
from . import notices
from .epochs import constant_part
from .listeners import Listeners
from .protocol import Tasks
from .rows import Rows
from .solver import Solver

Vector = NDArray[np.float64]


class Objective:
    """Loss with penalty, and its gradient, as functions of the parameters; in float64 whatever the network's type.

    Of a loss over several outputs the sum is minimised, whose gradient scikit-learn takes.
    """

    def __init__(self, net: MLP, rows: Rows, alpha: float) -> None:
        self.net, self.rows = net.twin("float64"), rows
        self.outputs = 1 if net.loss.name == "cross_entropy" else net.sizes[-1]
        self.places, layout = self.net.layout.places(), self.net.layout
        self.penalised = np.isin(self.places, layout.places(bias=False))
        self.offsets = batches(len(rows), min(len(rows), SLICE_ROWS))
        weight = rows.weight if rows.weight is None or rows.chosen is None else rows.weight[rows.chosen]
        self.weights = batch_weights(weight, self.offsets)
        self.l2 = alpha / float(self.weights.sum())
        self.sum = GradientSum(layout)
        first = int(self.offsets[1])
        plan, _ = gradient_plan(self.net, first, rows.labels, self.sum.matrices, get_num_threads(), accumulate=True)
        self.runner = executor(plan, net.backend)
        rows.bind(self.runner)

    def __call__(self, x: Vector) -> tuple[float, Vector]:
        self.net.parameters[self.places] = x
        self.sum.clear()
        total = 0.0
        for s, weight in enumerate(self.weights):
            self.sum.expect(float(weight))
            loss = self.rows.run(self.runner, self.rows.chosen, self.offsets[s : s + 2])
            total += float(weight * loss[0]) if weight else 0.0
        self.sum.finish()
        self.loss = self.outputs * total / self.sum.total
        penalised = np.where(self.penalised, x, 0.0)
        gradient = self.outputs * self.sum.flat[self.places] + self.l2 * penalised
        return self.loss + self.penalty(x), gradient

    def penalty(self, x: Vector) -> float:
        """alpha / 2 |w|^2 / n."""
        return self.l2 / 2 * float((np.where(self.penalised, x, 0.0) ** 2).sum())


class Minimisation:
    """One `fit`: the estimator's attributes are those of the last iteration."""

    def __init__(self, estimator: Any, solver: Solver, rows: Rows, tasks: Tasks | None = None) -> None:
        self.estimator, self.net, self.history = estimator, solver.net, History()
        self.objective = Objective(self.net, rows, float(estimator.alpha))
        self.places, self.constant = self.net.layout.places(), constant_part(rows, self.net.loss.name)
        self.unit = solver.unit / self.objective.outputs  # scikit-learn's squared error is a mean over outputs
        self.listeners, self.tasks = Listeners(estimator, solver, self.history, tasks), tasks
        self.memory = int(solver.optimizer.history)  # type: ignore[attr-defined]
        if tasks:
            tasks.train_on(None, None)

    def run(self) -> None:
        estimator = self.estimator
        limits = {"maxfun": int(estimator.max_fun), "maxiter": int(estimator.max_iter), "gtol": float(estimator.tol)}
        limits["maxcor"] = self.memory
        start, estimator.n_iter_ = self.net.parameters[self.places].astype(np.float64), 0
        find, settings = minimizer(), {"jac": True, "method": "L-BFGS-B", "callback": self._iterated, "options": limits}
        try:
            # scipy's own vectors are short: threads would cost more than they save
            with self.listeners, threadpool_limits(1, "blas"):
                found = find(self._evaluated if self.tasks else self.objective, start, **settings)
        except KeyboardInterrupt:
            notices.warn("Training interrupted by user.")
            return
        self._take(found.x, float(found.fun))
        if found.status != 99:  # a callback wanted to stop: that is no failure
            estimator.n_iter_ = notices.iterations(found, int(estimator.max_iter))

    def _take(self, x: Vector, value: float) -> None:
        """Let the network have these parameters, whose loss with penalty is `value`."""
        self.net.parameters[self.places] = x
        estimator, penalty = self.estimator, self.objective.penalty(x)
        estimator.loss_ = (value - penalty) * self.unit + penalty + self.constant
        best = estimator.best_loss_  # None if early stopping, which there is not with L-BFGS, is on
        estimator.best_loss_ = estimator.loss_ if best is None else min(best, estimator.loss_)

    def _evaluated(self, x: Vector) -> tuple[float, Vector]:
        """The objective. Where an iteration has ended, this is the begin of the next one."""
        self.listeners.epoch_begins()
        return self.objective(x)

    def _iterated(self, intermediate_result: Any) -> None:
        """scipy has accepted new parameters; its name for this argument asks for the loss to come along."""
        estimator = self.estimator
        self._take(intermediate_result.x, float(intermediate_result.fun))
        estimator.n_iter_ += 1
        estimator.loss_curve_.append(estimator.loss_)
        self.history.add(loss=estimator.loss_, learning_rate=1.0)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
        if self.listeners.epoch_ended():
            raise StopIteration
