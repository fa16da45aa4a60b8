"""Stepper: a network, an optimizer and its state, and the training steps that they make."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import pairwise
from math import isfinite
from operator import attrgetter
from threading import get_ident
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks, class_weights, optimizers
from .accumulation import GradientSum
from .averaging import Average
from .data import Data, bind_data
from .history import DivergenceError, History
from .interrupts import WholeSteps
from .mlp import MLP
from .options import Options
from .pace import Pace
from .plan import Plan
from .plan_cache import PlanCache
from .plans import training_plan
from .runtime import Executor, executor, quick_step
from .schedules import Schedule
from .tape import Learning
from .threads import get_num_threads


def _fixed(name: str) -> Any:
    """A read-only attribute that plans depend on, stored as ``_name``; reading it calls no Python function."""

    def refuse(trainer: Stepper, value: Any) -> NoReturn:
        raise AttributeError(f"{name} is fixed at construction: create a new Trainer (got {checks.shown(value)})")

    return property(attrgetter(f"_{name}"), refuse)


class Stepper:
    """The part of `Trainer` that executes single steps, with their plans and their memory; epochs are in `Trainer`.

    Apart from the parameters, a step changes only `moving` and `steps`.
    """

    net: MLP = _fixed("net")
    options: Options = _fixed("options")
    states: list[NDArray[Any]] = _fixed("states")

    def __init__(self, net: MLP, optimizer: optimizers.Optimizer, options: Options) -> None:
        self._net, self._options, self._layout = net, options, net.layout
        self._optimizer = copy.deepcopy(optimizer)  # a schedule's progress is this trainer's own
        self._states = [self._layout.zeros() for _ in range(self.optimizer.n_states)]
        self.steps = 0
        self.total_steps: int | None = None  # as given by the caller
        self._planned = 0  # total number of steps used for the last rate
        self._sum = GradientSum(net.layout) if options.accumulate > 1 else None
        self._average = None if options.average is None else Average(net, float(options.average))
        self._show = True  # whether the network holds the averaged weights between epochs
        self._plain = not (
            self._sum or self._average or net.target_scaling or class_weights.chosen(net, options.class_weight)
        )
        self._key: int | None = None  # of dropout's masks
        self._begin_plans()

    def _begin_plans(self) -> None:
        """Initialise what is created while training and not copied."""
        self._before: NDArray[Any] | None = None  # the parameters before a step; the memory is reused
        self._plans: PlanCache[Executor] = PlanCache()
        self._pace: tuple[Plan, Pace] | None = None  # of the plan used last
        self._fits_in: int | None = None  # the thread that is in `fit`

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """This trainer's own copy; may be replaced by an optimizer of the same kind and number of state arrays."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: optimizers.Optimizer) -> None:
        new, old = copy.deepcopy(optimizers.get(optimizer)), self._optimizer
        if (new.kind, new.n_states) != (old.kind, old.n_states):
            raise AttributeError(
                f"optimizer must have the same kind and number of state arrays as {old!r}, got {new!r}:"
                " create a new Trainer"
            )
        if new.rule() != old.rule():  # plans contain it
            self._plans.clear()
        self._optimizer = new

    @property
    def moving(self) -> list[NDArray[Any]]:
        """The arrays that a step changes apart from the parameters: the average, if any, then the optimizer states."""
        return self.states if self._average is None else [self._average.flat, *self.states]

    @property
    def average(self) -> NDArray[Any] | None:
        """The averaged parameters, flat, if ``average`` was set."""
        return None if self._average is None else self._average.flat

    def forget(self) -> None:
        """Set the optimizer's states and the accumulated gradient to 0; `steps` is kept."""
        for array in self.states:
            array[:] = 0
        if self._sum:
            self._sum.clear()

    # ---- copies ------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_before", "_plans", "_pace", "_fits_in")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)  # without using the network, which may not be unpickled yet
        self._states = [self._layout.copy(array) for array in self._states]
        self._begin_plans()

    def __copy__(self) -> Self:
        return copy.deepcopy(self)  # two trainers sharing a network and its average would undo each other's steps

    # ---- plans -------------------------------------------------------------------------------------------------------

    def plan_for(self, rows: int, labels: bool, *, unfused: bool = False) -> Plan:
        """The plan of one training step on up to `rows` rows."""
        self._refuse("a plan of steps", "fit")
        layout, options = self.net.layout, self.options
        dropout = options.dropout_rates(self.net)
        if dropout and self._key is None:  # drawn late: each trainer that trains gets other masks
            self._key = int(self.net.shuffle_rng.integers(1 << 48))
        learning = Learning(
            kind=self.optimizer.kind,
            rules=[self.optimizer.rule(factor) for factor in options.factors(self.net)],
            states=[layout.matrices(s) for s in self.states],
            dropout=dropout,
            key=self._key or 0,
            max_norm=float(options.max_norm or 0.0),
            averages=self._average.matrices if self._average else None,
            decay=self._average.decay if self._average else 0.0,
            gradients=self._sum.matrices if self._sum else None,
        )
        return training_plan(self.net, rows, labels, learning, unfused=unfused, n_threads=get_num_threads())

    def _executor(self, rows: int, data: Data) -> Executor:
        key = (rows, data.labels, get_num_threads())
        found = self._plans.pop(key, None) or executor(self.plan_for(rows, data.labels), self.net.backend)
        self._plans.put(key, found)
        bind_data(found, data.X, data.y)
        return found

    def keeps(self, runner: Executor) -> bool:
        """Whether this is a plan of the current optimizer."""
        return runner in self._plans.values()

    def release(self) -> None:
        """Drop the plans' references to data."""
        for runner in self._plans.values():
            runner.release()

    def pace_of(self, plan: Plan) -> Pace:
        """Number of steps per call into the engine, adapted over all fits with this plan."""
        if self._pace is None or self._pace[0] is not plan:
            self._pace = plan, Pace(plan.work)
        return self._pace[1]

    def _exclusively(self) -> AbstractContextManager[Any]:
        """The lock to hold while weights change; nothing in a callback, as the `fit` that called it holds the lock."""
        return nullcontext() if self._fits_in == get_ident() else self._net.exclusively()

    # ---- steps -------------------------------------------------------------------------------------------------------

    def step_unchecked(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, lr: NDArray[np.float64]
    ) -> float | None:
        """A step on unchecked data, if a plan exists and no array need be created; else None.

        For a tiny network it takes a fraction of the time of `training_data` and `step_on`.
        """
        if not (self._plain and sample_weight is None and type(X) is type(y) is np.ndarray and X.ndim == 2):
            return None
        if self._before is None:
            return None
        net = self._net
        labels = net.loss.is_multiclass and y.ndim == 1
        with WholeSteps():
            runner = self._plans.get((roomy(len(X)), labels, get_num_threads()))
            kept = net._parameters, self._before  # not through properties, which are slower
            found = quick_step(runner, X, y, float(lr[0]), self.steps, kept, net.loss.target_range)
            if found is None:
                return None
            loss, sound = found
            self.steps += 1
            if not sound:
                self._give_up(loss)
            return loss

    def step_on(self, data: Data, lr: NDArray[np.float64]) -> float:
        """A step on checked data."""
        with WholeSteps():
            before = self._before = np.empty_like(self.net.parameters) if self._before is None else self._before
            before[:] = self.net.parameters
            average = None if self._average is None else (self._average.flat.copy(), self._average.begun)
            runner = self._executor(roomy(len(data.X)), data)
            try:
                loss = float(self._run(runner, None, np.array([0, len(data.X)]), lr, data)[0])
            finally:
                runner.release()
            if not (isfinite(loss) and checks.all_finite(self.net.parameters)):
                self.net.parameters[:] = before
                if self._average and average:
                    self._average.flat[:], self._average.begun = average
                self._give_up(loss)
            return loss

    def _give_up(self, loss: float) -> NoReturn:
        self.forget()
        what = f"loss is {loss}" if not isfinite(loss) else "update gave a weight that is not finite"
        raise DivergenceError(f"step {self.steps}: the {what}", 1, self.steps, History())

    def training_data(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> Data:
        """A batch as the plan reads it: checked, with class weights and standardised targets."""
        X, y = self.net.check_data(X, y)
        data = self._weighted(Data(X, y, checks.sample_weight(sample_weight, len(X))))
        data.y = self.net.plan_targets(y)
        return data

    def _weighted(self, data: Data) -> Data:
        """The data with sample weights multiplied by class weights."""
        wanted = class_weights.chosen(self.net, self.options.class_weight)
        return replace(data, weight=class_weights.weighted(self.net, wanted, data.y, data.weight, data.chosen))

    def _refuse(self, what: str, instead: str) -> None:
        if isinstance(self._optimizer, optimizers.LBFGS):
            raise TypeError(f"{what} needs an optimizer that makes steps; L-BFGS takes all data at once: use {instead}")

    def updates(self, batches: int) -> int:
        """Number of updates in an epoch of this many batches; an incomplete group at its end is one, too."""
        return -(-batches // self.options.accumulate)

    def rates(self, epochs: int, batches: int, total_steps: int) -> NDArray[np.float64]:
        """The learning rate of each batch of some epochs: that of the update it contributes to."""
        updates, self._planned = self.updates(batches), total_steps
        rates = self.optimizer.rates(self.steps, epochs * updates, total_steps)
        if self.options.accumulate == 1:
            return rates
        return np.repeat(rates.reshape(epochs, updates), self.options.accumulate, axis=1)[:, :batches].reshape(-1)

    def rate_of(self, planned: int | None) -> NDArray[np.float64]:
        """The rate of the next of `planned` updates; ValueError if that is None and the schedule depends on it."""
        schedule = self.optimizer.learning_rate
        if planned is None and isinstance(schedule, Schedule) and schedule.needs_total:
            raise ValueError(
                f"learning_rate {schedule!r} depends on the total number of steps, which is unknown: give it, as in"
                " Trainer(net, optimizer, total_steps=1000), or use fit with arrays or batches that have a len()"
            )
        self._planned = planned or 0
        return self.optimizer.rates(self.steps, 1, self._planned)

    def _run(
        self,
        runner: Executor,
        order: Any,
        offsets: Any,
        lr: Any,
        data: Data,
        *,
        epoch_rows: int | None = None,
    ) -> NDArray[np.float64]:
        """Train on some batches; an epoch ends after every `epoch_rows` rows."""
        n_threads = runner.plan.n_threads
        if self._average:
            self._average.begin()
        if self._sum:
            return self._accumulate(self._sum, runner, order, offsets, lr, data, epoch_rows)
        losses = runner.run(order, offsets, lr, weight=data.weight, first_number=self.steps, n_threads=n_threads)
        self.steps += len(losses)
        return losses

    def _accumulate(
        self,
        gradient: GradientSum,
        runner: Executor,
        order: Any,
        offsets: Any,
        lr: Any,
        data: Data,
        rows: int | None,
    ) -> NDArray[np.float64]:
        """Sum gradients; update the weights after every k batches and at the end of an epoch."""
        losses, k = np.empty(len(offsets) - 1), self.options.accumulate
        for s, (begin, end) in enumerate(pairwise(offsets)):
            batch = slice(begin, end) if order is None else order[begin:end]
            number = self.steps * k + gradient.count  # gives every batch its own masks
            gradient.expect(float(end - begin if data.weight is None else data.weight[batch].sum()))
            losses[s : s + 1] = runner.run(
                order,
                offsets[s : s + 2],
                weight=data.weight,
                first_number=number,
                last_op=runner.plan.first_update,
                n_threads=runner.plan.n_threads,
            )
            if gradient.count == k or (rows and end % rows == 0):
                self._update(gradient, runner, lr[s : s + 1])
        return losses

    def _update(self, gradient: GradientSum, runner: Executor, lr: NDArray[np.float64]) -> None:
        gradient.finish()
        runner.run(
            None,
            np.array([0, 1]),
            lr,
            first_number=self.steps,
            first_op=runner.plan.first_update,
            n_threads=runner.plan.n_threads,
        )
        self.steps += 1
        gradient.clear()

    def flush(self) -> None:
        """Update the weights with the gradients summed by ``accumulate``, if any, without waiting for more batches.

        Examples
        --------
        >>> import fastmlp
        >>> X, y = fastmlp.datasets.xor()
        >>> trainer = fastmlp.Trainer(fastmlp.MLP([2, 2]), accumulate=8)
        >>> loss = trainer.step(X, y)
        >>> before = trainer.steps
        >>> trainer.flush()
        >>> before, trainer.steps
        (0, 1)
        """
        if not self._sum:
            return
        with self._exclusively(), WholeSteps():
            if self._sum.count:
                if self._average:
                    self._average.hide()
                runner = next(reversed(self._plans.values()), None) or self._updater()
                self._update(self._sum, runner, self.optimizer.rates(self.steps, 1, self._planned))

    def _updater(self) -> Executor:
        """An executor for updates only, if there is no plan yet: in a copy that has not trained."""
        return executor(self.plan_for(1, self.net.loss.is_multiclass), self.net.backend)

    # ---- averaged weights --------------------------------------------------------------------------------------------

    def show_average(self) -> None:
        """Put the averaged weights into the network until training continues; no effect without ``average``.

        Examples
        --------
        >>> import fastmlp, numpy as np
        >>> X, y = fastmlp.datasets.xor()
        >>> net = fastmlp.MLP([2, 2])
        >>> trainer = fastmlp.Trainer(net, average=0.9)
        >>> loss = trainer.step(X, y)
        >>> trainer.show_average()
        >>> bool(np.array_equal(net.parameters, trainer.average))
        True
        """
        with self._exclusively():
            if self._average:
                self._average.show()

    def show_raw(self) -> None:
        """Put the raw weights back into the network; if other weights were assigned meanwhile, these are trained."""
        with self._exclusively():
            if self._average:
                self._average.hide()

    def end_raw(self) -> None:
        """At the end of training, put the averaged weights into the network, if it is to hold them."""
        if self._show and self._average:
            self._average.show()

    def raw_weights(self) -> RawWeights:
        """A block in which the network holds the raw weights; afterwards the averaged ones, if it is to hold them."""
        return RawWeights(self)


class RawWeights:
    """The context manager of `Stepper.raw_weights`; its caller handles a Ctrl-C right before or after the block.

    Not a generator: if Ctrl-C came before its block, its end would run when it is collected, maybe in another training.
    """

    def __init__(self, trainer: Stepper) -> None:
        self.trainer = trainer

    def __enter__(self) -> None:
        self.trainer.show_raw()

    def __exit__(self, kind: type | None, *error: Any) -> None:
        trainer = self.trainer
        if not (trainer._sum or trainer._average):
            return
        with WholeSteps():
            if kind and trainer._sum:  # a batch may be missing in it
                trainer._sum.clear()
            trainer.end_raw()


def roomy(rows: int) -> int:
    """Capacity of the plan for a batch of this many rows: at most a quarter more, so that few capacities occur.

    >>> [roomy(n) for n in (1, 7, 9, 33, 1000)]
    [1, 7, 10, 40, 1024]
    """
    step = 1 << max(0, rows.bit_length() - 3)
    return -(-rows // step) * step
