"""LBFGSLoop: training on all rows at once by scipy's L-BFGS-B, on the flat vector of parameters.

Loss and gradient are those of a float64 copy of the network, computed by a single plan in slices of rows, whose
gradients are summed. After each iteration the new parameters are copied to the network, rounded to its dtype.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .accumulation import GradientSum
from .data import Data
from .epochs import EpochLoop
from .evaluation import Evaluator, batch_weights, batches
from .history import DivergenceError
from .interrupts import check_cancelled
from .options import Options
from .plans import gradient_plan
from .runtime import executor
from .threads import get_num_threads

if TYPE_CHECKING:
    from .network import Network
    from .optimizers import LBFGS
    from .plan import Plan
    from .trainer import Trainer

SLICE_ROWS = 4096  # maximum number of rows whose activations are in memory

Vector = NDArray[np.float64]


def check_options(options: Options) -> None:
    """ValueError for an option of the trainer that L-BFGS does not support."""
    for option in fields(options):
        value, default = getattr(options, option.name), option.default
        if option.name != "class_weight" and (np.ndim(value) or value != default):
            raise ValueError(f"{option.name} must be {default!r} with L-BFGS, which makes no steps, got {value!r}")


def minimizer() -> Any:
    """scipy's minimize; ImportError, with instructions, if scipy is not installed."""
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise ImportError("optimizer='lbfgs' needs scipy: pip install 'fastmlp[lbfgs]'") from error
    return minimize


def minimized(function: Callable[[Vector], Any], start: Vector, iterated: Callable[[Any], bool], options: Any) -> Any:
    """Minimise and return scipy's result; `iterated` is called after every iteration and returns whether to stop.

    All its exceptions reach the caller, even StopIteration, which scipy would take for a request to stop.
    """
    raised: list[StopIteration] = []

    def callback(intermediate_result: Any) -> None:  # the argument's name makes scipy pass the loss, too
        try:
            stop = iterated(intermediate_result)
        except StopIteration as error:
            raised.append(error)
            raise
        if stop:
            raise StopIteration

    found = minimizer()(function, start, jac=True, method="L-BFGS-B", callback=callback, options=options)
    if raised:
        raise raised[0]
    return found


class Objective:
    """Loss plus penalty, and its gradient, as a function of the parameters without padding, in float64.

    Parameters
    ----------
    net : Network
        A float64 copy of it is evaluated.
    data : Data
    l2 : float
        The penalty is l2 / 2 |w|^2.
    scale : float
        Factor on the loss.
    decay_biases : bool
        Whether biases are penalised as well.
    slice_rows : int
        Maximum number of rows per slice.

    Attributes
    ----------
    net : Network
        The copy.
    places : int64 array
        Indices of the parameters in its flat vector.
    loss : float
        The last computed loss, without penalty.
    """

    def __init__(
        self,
        net: Network,
        data: Data,
        l2: float,
        *,
        scale: float = 1.0,
        decay_biases: bool = False,
        slice_rows: int = SLICE_ROWS,
    ) -> None:
        self.net, self.data, self.l2, self.scale = net.twin("float64"), data, l2, scale
        self.places = self.net.layout.places(net.bias)
        self.penalised = np.isin(self.places, self.net.layout.places(bias=net.bias and decay_biases))
        self.offsets = batches(len(data), min(len(data), slice_rows))
        self.weights = batch_weights(data.chosen_weight, self.offsets)
        self.sum, self.n_threads, self.loss = GradientSum(self.net.layout), get_num_threads(), np.nan

    def _gradients(self) -> Plan:
        """Build the plan that adds the gradients of a slice to the sum."""
        rows, n_threads = int(self.offsets[1]), self.n_threads
        return gradient_plan(self.net, rows, self.data.labels, self.sum.matrices, n_threads, accumulate=True)[0]

    def __call__(self, x: Vector) -> tuple[float, Vector]:
        self.net.parameters[self.places] = x
        self.sum.clear()
        total = self._add_up()
        self.sum.finish()
        self._complete()
        self.loss = self.scale * total / self.sum.total
        gradient = self.scale * self.sum.flat[self.places] + self.l2 * np.where(self.penalised, x, 0.0)
        return self.loss + self.penalty(x), gradient

    def penalty(self, x: Vector) -> float:
        """l2 / 2 |w|^2."""
        return self.l2 / 2 * float((np.where(self.penalised, x, 0.0) ** 2).sum())

    def _add_up(self) -> float:
        """Sum the gradients of all slices; return the weighted sum of their losses."""
        total = 0.0
        for s, weight in enumerate(self.weights):
            self.sum.expect(float(weight))
            loss = self._run(s)
            total += float(weight * loss) if weight else 0.0
        return total

    def _run(self, s: int) -> float:
        """Return the loss of a slice, and add its gradient to the sum."""
        raise NotImplementedError

    def _complete(self) -> None:
        """Add what is missing in the sum of gradients: nothing, here."""


class DataObjective(Objective):
    """The objective on a trainer's data."""

    def __init__(self, net: Network, data: Data, l2: float, decay_biases: bool) -> None:
        super().__init__(net, data, l2, decay_biases=decay_biases)
        plan = self._gradients()
        plan.bind(data.X, data.y)
        self.runner = executor(plan, self.net.backend)

    def _run(self, s: int) -> float:
        check_cancelled()
        data, offsets = self.data, self.offsets[s : s + 2]
        return float(self.runner.run(data.chosen, offsets, weight=data.weight, n_threads=self.n_threads)[0])


class LBFGSLoop(EpochLoop):
    """One `fit` call with L-BFGS; callbacks and the history see an iteration as an epoch."""

    def __init__(
        self, trainer: Trainer, data: Data, epochs: int, evaluator: Evaluator | None, callbacks: Iterable[Any]
    ) -> None:
        settings: LBFGS = trainer.optimizer  # type: ignore[assignment]
        self._begin(trainer, settings.max_iter or epochs, evaluator, callbacks)
        minimizer()  # raises if scipy is missing, before anything is changed
        self.settings, self.data = settings, data
        self.n = len(data)

    def take(self, data: Data) -> None:
        self.data = data

    def check_rates(self) -> None:
        """L-BFGS has no learning rates."""

    def _train(self) -> None:
        net, settings = self.trainer.net, self.settings
        self.objective = DataObjective(net, self.data, settings.l2, settings.decay_biases)
        self.start, self.evaluations = time.perf_counter(), 0
        self.places = places = net.layout.places(net.bias)  # in the order of the float64 copy's parameters
        limits = {"maxiter": self.epochs, "gtol": settings.tol, "ftol": 0.0, "maxfun": settings.max_fun}
        limits["maxcor"] = int(settings.history)
        result = minimized(self._evaluate, net.parameters[places].astype(np.float64), self._iterated, limits)
        if not np.isfinite(result.fun):
            epoch = self.state.epoch + 1
            raise DivergenceError(f"the loss became {result.fun} in iteration {epoch}", epoch, 1, self.history)
        if not self.state.epoch:  # no iteration was needed, but the history must have a loss
            loss = float(result.fun) - self.objective.penalty(result.x)
            self.history.update(loss=[loss], learning_rate=[], seconds=[], samples_per_second=[])
            self._validate()

    def _evaluate(self, x: Vector) -> tuple[float, Vector]:
        self.evaluations += 1
        return self.objective(x)

    def _iterated(self, found: Any) -> bool:
        """Copy the parameters that scipy has accepted, and record the iteration; return whether to stop."""
        net, x = self.trainer.net, found.x
        seconds, self.start = time.perf_counter() - self.start, time.perf_counter()
        net.parameters[self.places] = x
        self.trainer.steps += 1
        self.history.add(
            loss=float(found.fun) - self.objective.penalty(x),
            learning_rate=1.0,
            seconds=seconds,
            samples_per_second=self.n * self.evaluations / max(seconds, 1e-9),
        )
        self.evaluations = 0
        return self._report(1)
