"""Solver: the training steps of an estimator, with the optimizer state that is kept between calls.

Definitions are scikit-learn's: a batch's loss is divided by the sum of its sample weights, and so is ``alpha``; the
gradient of a loss over several outputs is that of their sum. fastmlp's losses are means over k outputs, so everything
that is combined with a gradient is divided by k here, and the learning rate of gradient descent is multiplied by k.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import optimizers
from ..evaluation import batches
from ..mlp import MLP
from ..pace import Pace
from ..plan import Rule
from ..plan_cache import PlanCache
from ..plans import training_plan
from ..runtime import executor
from ..schedules import Schedule
from ..tape import Learning
from ..threads import get_num_threads
from .rows import Rows, Runner
from .wide_sparse import WideStep, is_wide

LATE = 1 << 40  # steps after which Adam's bias correction is 1 to the last bit


class Solver:
    """Trains a network on rows, some steps at a time.

    Parameters
    ----------
    net : MLP
    optimizer : Optimizer
        Its learning rate is a number, which `set_rate` changes, or a schedule.
    dropout : tuple of float
        As returned by :meth:`fastmlp.options.Options.dropout_rates`.
    key : int
        Key of the dropout masks.

    Attributes
    ----------
    states : list of array
        Optimizer state, flat like the network's parameters.
    steps : int
        Number of steps so far.
    rate : float
        The current learning rate, if the optimizer's is a number; else 0.
    last_rate : float
        The learning rate of the last step.
    corrects : bool
        Whether Adam's bias correction is applied here, as a factor on the rate: epsilon is then added before it, as in
        scikit-learn. The kernels add epsilon after it; a large step number makes their correction 1.
    """

    def __init__(
        self, net: MLP, optimizer: optimizers.Optimizer, dropout: tuple[float, ...] = (), key: int = 0
    ) -> None:
        self.optimizer, self.dropout, self.key = optimizer, dropout, key
        lr = optimizer.learning_rate
        self.rate = 0.0 if isinstance(lr, Schedule) or callable(lr) else float(lr)
        self.corrects = isinstance(optimizer, optimizers.Adam) and not optimizer.weight_decay
        self.states = [net.layout.zeros() for _ in range(optimizer.n_states)]
        self.steps = self.total_steps = 0
        self.attach(net)

    def attach(self, net: MLP) -> None:
        """Train this network from now on."""
        self.net, self.outputs = net, 1 if net.loss.is_multiclass else net.sizes[-1]
        self._runners: PlanCache[tuple[Runner, Pace]] = PlanCache()
        self._rates = np.empty(0)
        self.last_rate = self.rate

    # ---- pickling ----------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        kept = ("optimizer", "dropout", "key", "rate", "corrects", "steps", "total_steps", "states")
        return {name: getattr(self, name) for name in kept}

    def restore(self, net: MLP) -> None:
        """Continue with this network after unpickling; ValueError if the states do not fit it or are not finite."""
        count = self.optimizer.n_states
        for state in self.states:
            if not isinstance(state, np.ndarray) or state.shape != (net.layout.size,) or state.dtype != net.dtype:
                raise ValueError(f"the optimizer's state must be {net.layout.size} numbers of type {net.dtype}")
            if not np.isfinite(state).all():
                raise ValueError("the optimizer's state must be finite")
        if len(self.states) != count:
            raise ValueError(f"the optimizer must have {count} states, got {len(self.states)}")
        old, self.states = self.states, [net.layout.zeros() for _ in range(count)]
        for state, saved in zip(self.states, old, strict=True):
            state[:] = saved
        self.attach(net)

    # ---- rates -------------------------------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> float:
        """The rate of the next step, or with a schedule of the last one; Adam's as corrected in its last step."""
        rate = self.rate or self.last_rate
        return rate * float(self._correction(self.steps - 1, 1)[0]) if self.corrects and self.steps else rate

    def set_rate(self, rate: float) -> None:
        """Set the rate. SGD's state is rescaled, because scikit-learn's velocity includes the rate of each step."""
        if isinstance(self.optimizer, optimizers.SGD) and self.states:
            self.states[0] *= self.rate / rate
        self.rate = rate

    def _next_rates(self, n: int) -> NDArray[np.float64]:
        if not self.rate:
            rates = self.optimizer.rates(self.steps, n, self.total_steps)
        else:
            if len(self._rates) != n or self._rates[0] != self.rate:
                self._rates = np.full(n, self.rate)
            rates = self._rates
        self.last_rate = float(rates[-1])
        return rates * self._correction(self.steps, n) if self.corrects else rates

    def _correction(self, done: int, n: int) -> NDArray[np.float64]:
        """Adam's bias correction of the n steps after the first `done`, as a factor on the rate."""
        b1, b2 = self.optimizer.betas  # type: ignore[attr-defined]
        t = np.arange(done + 1, done + n + 1, dtype=np.float64)
        return np.asarray(np.sqrt(1 - b2**t) / (1 - b1**t))

    # ---- plans -------------------------------------------------------------------------------------------------------

    def _rule(self, l2: float) -> Rule:
        rule, k = self.optimizer.rule(), self.outputs
        rule.l2, rule.l1, rule.clip_norm, rule.clip_value = (
            v / k for v in (rule.l2 + l2, rule.l1, rule.clip_norm, rule.clip_value)
        )
        if isinstance(self.optimizer, optimizers.SGD):
            rule.decay, rule.lr_weight, rule.lr_bias = rule.decay / k, rule.lr_weight * k, rule.lr_bias * k
        rule.eps /= k
        return rule

    def _runner(self, rows: int, l2: float, labels: bool, wide: bool) -> tuple[Runner, Pace]:
        key = (rows, l2, labels, get_num_threads(), wide)
        found = self._runners.pop(key, None)
        if found is None:
            net, layout = self.net, self.net.layout
            rules = [self._rule(l2)] * (len(net.sizes) - 1)
            states = [layout.matrices(s) for s in self.states]
            learning = Learning(self.optimizer.kind, rules, states, self.dropout, self.key)
            found = self._new_runner(rows, labels, learning, wide)
        self._runners.put(key, found)
        return found

    def _new_runner(self, rows: int, labels: bool, learning: Learning, wide: bool) -> tuple[Runner, Pace]:
        if wide:
            return WideStep(self.net, rows, labels, learning, get_num_threads()), Pace(np.inf)
        plan = training_plan(self.net, rows, labels, learning, n_threads=get_num_threads())
        return executor(plan, self.net.backend), Pace(plan.work)

    # ---- epochs ------------------------------------------------------------------------------------------------------

    def begin(self, rows: Rows, batch: int, alpha: float, max_iter: int) -> None:
        """Prepare for epochs over these rows. A shorter last batch has its own plan if there is a penalty."""
        self.rows, self.alpha, n = rows, alpha, len(rows)
        self.offsets = batches(n, batch)
        self.mean_weight = rows.mean_weight
        count, last = len(self.offsets) - 1, n % batch
        self.shares = np.diff(self.offsets) / n
        self.total_steps = max_iter * count  # counted from the first call, if there are several
        whole = count - 1 if last and alpha else count
        parts = [(0, whole, batch)] * (whole > 0) + [(whole, count, last)] * (whole < count)
        self._parts, wide = [], is_wide(self.net, rows.X)
        for first, stop, size in parts:
            runner, pace = self._runner(size, alpha / (size * self.mean_weight), rows.labels, wide)
            rows.bind(runner)
            self._parts.append((first, stop, runner, pace))

    def end(self) -> None:
        """Release the rows."""
        del self.rows
        for runner, _ in self._runners.values():
            runner.release()

    def epoch(self, order: NDArray[np.int64] | None) -> float:
        """Train one epoch; returns its loss, including the penalty."""
        squares = self._squares()
        losses = np.empty(len(self.offsets) - 1)
        rates, first_number = self._next_rates(len(losses)), self.steps + LATE * self.corrects
        for first, stop, runner, pace in self._parts:
            for begin, end in pace.slices(first, stop):
                losses[begin:end] = self.rows.run(
                    runner,
                    order,
                    self.offsets[begin : end + 1],
                    lr=rates[begin:end],
                    first_number=first_number + begin,
                )
                self.steps += end - begin
        return float(losses @ self.shares) * self.unit + self._penalty(squares, len(losses))

    @property
    def unit(self) -> float:
        """Ratio of scikit-learn's loss to the plan's: its cross-entropy and Poisson loss are sums over outputs."""
        return self.outputs if self.net.loss.name in ("binary_cross_entropy", "poisson") else 1.0

    def _squares(self) -> float:
        """The sum of all squared weights, without biases."""
        if not self.alpha:
            return 0.0
        with np.errstate(all="ignore"):  # divergence is reported only at the end of training
            biases = sum(float(np.dot(b, b)) for b in self.net.biases)
            return float(np.dot(self.net.parameters, self.net.parameters)) - biases

    def _penalty(self, before: float, steps: int) -> float:
        """Mean penalty over the steps of an epoch, as if the sum of squares changed linearly between its ends."""
        if not self.alpha:
            return 0.0
        total = steps * before + (self._squares() - before) * (steps - 1) / 2 if steps > 1 else before
        return 0.5 * self.alpha * total / (len(self.rows) * self.mean_weight)
