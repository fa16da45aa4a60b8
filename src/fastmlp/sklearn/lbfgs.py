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
from ..tape import Tape, gradient_plan
from . import notices, wide
from .epochs import constant_part
from .listeners import Listeners
from .protocol import Tasks
from .rows import Rows, is_sparse, short
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
        self.offsets = batches(len(rows), self._slice_rows())
        weight = rows.weight if rows.weight is None or rows.chosen is None else rows.weight[rows.chosen]
        self.weights = batch_weights(weight, self.offsets)
        self.l2 = alpha / float(self.weights.sum())
        self.sum = GradientSum(layout)
        self._prepare(int(self.offsets[1]), get_num_threads())

    def _slice_rows(self) -> int:
        most = min(SLICE_ROWS, short(self.rows.X)) if is_sparse(self.rows.X) else SLICE_ROWS
        return min(len(self.rows), most)

    def _prepare(self, rows: int, n_threads: int) -> None:
        """A plan of so many rows."""
        labels, gradients = self.rows.labels, self.sum.matrices
        plan, _ = gradient_plan(self.net, rows, labels, gradients, n_threads, accumulate=True)
        self.runner = executor(plan, self.net.backend)
        self.rows.bind(self.runner)

    def __call__(self, x: Vector) -> tuple[float, Vector]:
        self.net.parameters[self.places] = x
        self.sum.clear()
        total = self._add_up()
        self.sum.finish()
        self._complete()
        self.loss = self.outputs * total / self.sum.total
        penalised = np.where(self.penalised, x, 0.0)
        gradient = self.outputs * self.sum.flat[self.places] + self.l2 * penalised
        return self.loss + self.penalty(x), gradient

    def _add_up(self) -> float:
        """All gradients into the sum; returns the losses times their weights."""
        total = 0.0
        for s, weight in enumerate(self.weights):
            self.sum.expect(float(weight))
            loss = self._run(s)
            total += float(weight * loss) if weight else 0.0
        return total

    def _run(self, s: int) -> float:
        """Loss and gradients of a slice of the rows."""
        return float(self.rows.run(self.runner, self.rows.chosen, self.offsets[s : s + 2])[0])

    def _complete(self) -> None:
        """Nothing is missing."""

    def penalty(self, x: Vector) -> float:
        """alpha / 2 |w|^2 / n."""
        return self.l2 / 2 * float((np.where(self.penalised, x, 0.0) ** 2).sum())


class WideObjective(Objective):
    """The same of wide sparse rows: scipy multiplies by the first layer's weights, and for their gradient.

    Both products are of all rows at once: a product for each slice would write all of the gradient each time.
    """

    def _slice_rows(self) -> int:
        return min(len(self.rows), SLICE_ROWS)

    def _prepare(self, rows: int, n_threads: int) -> None:
        tape = Tape(self.net, rows)
        wide.backward(tape, self.rows.labels)
        tape.gradient(self.sum.matrices, accumulate=True)
        tape.ops.pop()  # that of the first layer
        self.deltas, self.n_threads = tape.deltas[0], n_threads
        self.runner = executor(tape.plan(n_threads), self.net.backend)
        self.X = self.rows.X.astype(np.float64, copy=False)

    def _add_up(self) -> float:
        self.z = wide.sums(self.net, self.X)  # a slice is replaced by the gradient by it once that is known
        for i, array in zip(self.runner.plan.gathers, (self.z, self.rows.y), strict=True):
            self.runner.bind(i, array)
        return super()._add_up()

    def _run(self, s: int) -> float:
        begin, end = self.offsets[s : s + 2]
        weight, n_threads = self.rows.weight, self.n_threads
        loss = self.runner.run(None, self.offsets[s : s + 2], weight=weight, n_threads=n_threads)
        np.multiply(self.deltas[: end - begin], self.weights[s], out=self.z[begin:end])
        return float(loss[0])

    def _complete(self) -> None:
        wide.products(self.X, self.z / self.sum.total, self.sum.matrices[0])


class Minimisation:
    """One `fit`: the estimator's attributes are those of the last iteration."""

    def __init__(self, estimator: Any, solver: Solver, rows: Rows, tasks: Tasks | None = None) -> None:
        self.estimator, self.net, self.history = estimator, solver.net, History()
        kind = WideObjective if wide.is_wide(self.net, rows.X) else Objective
        self.objective = kind(self.net, rows, float(estimator.alpha))
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
