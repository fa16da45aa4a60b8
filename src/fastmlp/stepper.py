"""Stepper: a network, an optimizer and its state; what makes the steps of a training."""

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
    """An attribute that plans are written for, kept in ``_name``; reading it takes no call of Python's."""

    def refuse(trainer: Stepper, value: Any) -> NoReturn:
        raise AttributeError(f"{name} is what this trainer is made with: make a new Trainer, got {checks.shown(value)}")

    return property(attrgetter(f"_{name}"), refuse)


class Stepper:
    """The part of `Trainer` that knows steps, with their plans and their memory, but no epochs.

    Everything a step changes beside the parameters is in `moving` and `steps`.
    """

    net: MLP = _fixed("net")
    options: Options = _fixed("options")
    states: list[NDArray[Any]] = _fixed("states")

    def __init__(self, net: MLP, optimizer: optimizers.Optimizer, options: Options) -> None:
        self._net, self._options, self._layout = net, options, net.layout
        self._optimizer = copy.deepcopy(optimizer)  # a schedule's progress is this trainer's own
        self._states = [self._layout.zeros() for _ in range(self.optimizer.n_states)]
        self.steps = 0
        self.total_steps: int | None = None  # there will be, as far as the caller has told
        self._planned = 0  # steps in all, as of the last rate
        self._sum = GradientSum(net.layout) if options.accumulate > 1 else None
        self._average = None if options.average is None else Average(net, float(options.average))
        self._show = True  # whether the network has the averaged weights between epochs
        self._plain = not (
            self._sum or self._average or net.target_scaling or class_weights.chosen(net, options.class_weight)
        )
        self._key: int | None = None  # of dropout's masks
        self._begin_plans()

    def _begin_plans(self) -> None:
        """What is made on the way, and is no part of a copy."""
        self._before: NDArray[Any] | None = None  # the parameters before a step, in memory that is kept for it
        self._plans: PlanCache[Executor] = PlanCache()
        self._pace: tuple[Plan, Pace] | None = None  # of the last plan that was trained
        self._fits_in: int | None = None  # the thread

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """This trainer's own; another may take its place if it keeps as many numbers of the same kind."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: optimizers.Optimizer) -> None:
        new, old = copy.deepcopy(optimizers.get(optimizer)), self._optimizer
        if (new.kind, new.n_states) != (old.kind, old.n_states):
            raise AttributeError(
                f"optimizer must remember what {old!r} does, or that would be lost: make a new Trainer, got {new!r}"
            )
        if new.rule() != old.rule():  # plans hold it
            self._plans.clear()
        self._optimizer = new

    @property
    def moving(self) -> list[NDArray[Any]]:
        """Everything beside the parameters that a step changes; the average, if there is one, first."""
        return self.states if self._average is None else [self._average.flat, *self.states]

    @property
    def average(self) -> NDArray[Any] | None:
        """The averaged parameters, flat, where they were asked for."""
        return None if self._average is None else self._average.flat

    def forget(self) -> None:
        """Lose the optimizer's memory of former steps, but for their number, and what is summed up."""
        for array in self.states:
            array[:] = 0
        if self._sum:
            self._sum.clear()

    # ---- copies ------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_before", "_plans", "_pace", "_fits_in")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)  # the network may be one that is being unpickled: nothing is asked of it here
        self._states = [self._layout.copy(array) for array in self._states]
        self._begin_plans()

    def __copy__(self) -> Self:
        return copy.deepcopy(self)  # two that shared a network and its average would undo each other's steps

    # ---- plans -------------------------------------------------------------------------------------------------------

    def plan_for(self, rows: int, labels: bool, *, unfused: bool = False) -> Plan:
        """The plan of one training step on up to `rows` rows."""
        self._refuse("a plan of steps", "fit")
        layout, options = self.net.layout, self.options
        dropout = options.dropout_rates(self.net)
        if dropout and self._key is None:  # not before there is something to train: another trainer gets other masks
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
        """Whether this is one of the plans of the optimizer as it is now."""
        return runner in self._plans.values()

    def release(self) -> None:
        """Let go of the data that the plans were bound to."""
        for runner in self._plans.values():
            runner.release()

    def pace_of(self, plan: Plan) -> Pace:
        """How many steps a call may cover, as learnt in all fits with this plan."""
        if self._pace is None or self._pace[0] is not plan:
            self._pace = plan, Pace(plan.work)
        return self._pace[1]

    def _exclusively(self) -> AbstractContextManager[Any]:
        """What to hold while weights change; a callback has it already, of the `fit` that calls it."""
        return nullcontext() if self._fits_in == get_ident() else self._net.exclusively()

    # ---- steps -------------------------------------------------------------------------------------------------------

    def step_unchecked(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, lr: NDArray[np.float64]
    ) -> float | None:
        """A step on unchecked data, if there is a plan for them and no array to be made; else None.

        A tiny network's step takes a fraction of the time that `training_data` and `step_on` do.
        """
        if not (self._plain and sample_weight is None and type(X) is type(y) is np.ndarray and X.ndim == 2):
            return None
        if self._before is None:
            return None
        net = self._net
        labels = net.loss.is_multiclass and y.ndim == 1
        with WholeSteps():
            runner = self._plans.get((roomy(len(X)), labels, get_num_threads()))
            kept = net._parameters, self._before  # not by way of properties, as this is done at every step
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
        """One batch, checked, as the plan reads it: with class weights, and standardised targets."""
        X, y = self.net.check_data(X, y)
        data = self._weighted(Data(X, y, checks.sample_weight(sample_weight, len(X))))
        data.y = self.net.plan_targets(y)
        return data

    def _weighted(self, data: Data) -> Data:
        """The data with the class weights as factors on the sample weights."""
        wanted = class_weights.chosen(self.net, self.options.class_weight)
        return replace(data, weight=class_weights.weighted(self.net, wanted, data.y, data.weight, data.chosen))

    def _refuse(self, what: str, instead: str) -> None:
        if isinstance(self._optimizer, optimizers.LBFGS):
            raise TypeError(f"{what} needs an optimizer that makes steps; L-BFGS takes all data at once: use {instead}")

    def updates(self, batches: int) -> int:
        """How many updates an epoch of so many batches has; what is left over at its end makes one too."""
        return -(-batches // self.options.accumulate)

    def rates(self, epochs: int, batches: int, total_steps: int) -> NDArray[np.float64]:
        """The learning rate of every batch of some epochs: that of the update it is for."""
        updates, self._planned = self.updates(batches), total_steps
        rates = self.optimizer.rates(self.steps, epochs * updates, total_steps)
        if self.options.accumulate == 1:
            return rates
        return np.repeat(rates.reshape(epochs, updates), self.options.accumulate, axis=1)[:, :batches].reshape(-1)

    def rate_of(self, planned: int | None) -> NDArray[np.float64]:
        """The rate of the next update, of so many in all; ValueError if the schedule must know that, and it is None."""
        schedule = self.optimizer.learning_rate
        if planned is None and isinstance(schedule, Schedule) and schedule.needs_total:
            raise ValueError(
                f"learning_rate {schedule!r} must know how many steps there will be: tell the trainer, as in"
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
        """Add up gradients; every k batches and at the end of an epoch, move the weights."""
        losses, k = np.empty(len(offsets) - 1), self.options.accumulate
        for s, (begin, end) in enumerate(pairwise(offsets)):
            batch = slice(begin, end) if order is None else order[begin:end]
            number = self.steps * k + gradient.count  # every batch has its own masks
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
        """Move the weights by the gradients that ``accumulate`` still holds back, if any."""
        if not self._sum:
            return
        with self._exclusively(), WholeSteps():
            if self._sum.count:
                if self._average:
                    self._average.hide()
                runner = next(reversed(self._plans.values()), None) or self._updater()
                self._update(self._sum, runner, self.optimizer.rates(self.steps, 1, self._planned))

    def _updater(self) -> Executor:
        """Of a plan for its updates alone, where there is none: in a copy that has not trained yet."""
        return executor(self.plan_for(1, self.net.loss.is_multiclass), self.net.backend)

    # ---- averaged weights --------------------------------------------------------------------------------------------

    def show_average(self) -> None:
        """Let the network have the averaged weights until training goes on; without ``average`` nothing happens."""
        with self._exclusively():
            if self._average:
                self._average.show()

    def show_raw(self) -> None:
        """Let the network have the weights to train again; if it was given others meanwhile, those are trained."""
        with self._exclusively():
            if self._average:
                self._average.hide()

    def end_raw(self) -> None:
        """Training is over for now: let the network have the averaged weights, if it is to."""
        if self._show and self._average:
            self._average.show()

    def raw_weights(self) -> RawWeights:
        """A block to train in; afterwards the network has the averaged weights, if it is to."""
        return RawWeights(self)


class RawWeights:
    """What `Stepper.raw_weights` gives; Ctrl-C before or after the block is for whoever is around it.

    A generator that Ctrl-C leaves before its block would end whenever it is collected, in another training perhaps.
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
    """Rows for a plan that serves batches of about that many: at most a quarter more, so that few lengths occur.

    >>> [roomy(n) for n in (1, 7, 9, 33, 1000)]
    [1, 7, 10, 40, 1024]
    """
    step = 1 << max(0, rows.bit_length() - 3)
    return -(-rows // step) * step
