"""Trainer: epochs, batches, validation and history around a plan that is run in slices of about 50 ms.

C knows steps, this file knows epochs. The order of the rows, the rates and the batch boundaries of a slice are plain
arrays; between slices Python has control, so Ctrl-C works and callbacks run, and the weights are always those after a
whole step.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks, optimizers
from .history import DivergenceError, History
from .metrics import batch_weights
from .mlp import MLP, Evaluator
from .plan import Plan
from .runtime import Executor, executor, get_num_threads
from .tape import training_plan

SLICE_SECONDS = 0.05
GROUP_ROWS = 1 << 16  # epochs of a tiny data set run together up to so many rows


@dataclass
class TrainingState:
    """What a callback sees after each epoch.

    Attributes
    ----------
    epoch : int
        Epochs done in this call, from 1 (0 before the first).
    epochs : int
        Epochs asked for.
    net : MLP
    history : History
    trainer : Trainer
    """

    epoch: int
    epochs: int
    net: MLP
    history: History
    trainer: Trainer


@dataclass
class Data:
    """The training data as the plan reads them."""

    X: NDArray[Any]
    y: NDArray[Any]
    labels: bool
    weight: NDArray[np.float64] | None


class Trainer:
    """Trains a network, and keeps the optimizer's state from one call to the next.

    Parameters
    ----------
    net : MLP
    optimizer : str or Optimizer
        A name (``"sgd"``, ``"adam"``, ...) stands for the defaults.

    Examples
    --------
    >>> import fastmlp
    >>> X, y = fastmlp.datasets.xor()
    >>> net = fastmlp.MLP([2, 4, 1], activation="tanh", loss="binary_cross_entropy", seed=0)
    >>> trainer = fastmlp.Trainer(net, fastmlp.SGD(1.0, momentum=0.5))
    >>> first = trainer.step(X, y)
    >>> history = trainer.fit(X, y, epochs=300, batch_size=None)
    >>> history.loss[-1] < 0.05 < first
    True
    """

    def __init__(self, net: MLP, optimizer: str | optimizers.Optimizer = "sgd") -> None:
        if not isinstance(net, MLP):
            raise TypeError(f"net must be an MLP, got {net!r}")
        self.net = net
        self.optimizer = optimizers.get(optimizer)
        self.optimizer.check()
        self.states = [net.layout.zeros() for _ in range(self.optimizer.n_states)]
        self.steps = 0
        self._plans: dict[tuple[int, bool, int], Executor] = {}

    # ---- plans -------------------------------------------------------------------------------------------------------

    def plan_for(self, rows: int, labels: bool) -> Plan:
        """The plan of one training step on up to `rows` rows."""
        matrices = [self.net.layout.matrices(s) for s in self.states]
        rule = self.optimizer.rule()
        return training_plan(self.net, rows, labels, self.optimizer.kind, rule, matrices, n_threads=get_num_threads())

    def _executor(self, rows: int, data: Data) -> Executor:
        key = (rows, data.labels, get_num_threads())
        if key not in self._plans:
            self._plans = {key: executor(self.plan_for(rows, data.labels), self.net.backend)}
        found = self._plans[key]
        for i, array in zip(found.plan.gathers, (data.X, data.y), strict=True):
            found.bind(i, array)
        return found

    # ---- one step ----------------------------------------------------------------------------------------------------

    def step(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Train on exactly this batch; returns its loss before the update.

        Raises
        ------
        DivergenceError
            If the loss is not finite; the parameters are then as before the step.
        """
        X, y, labels = self.net.check_data(X, y)
        data = Data(X, y, labels, checks.sample_weight(sample_weight, len(X)))
        with self._exclusive():
            before = self.net.parameters.copy()
            runner, lr = self._executor(len(X), data), self.optimizer.rates(self.steps, 1, self.steps + 1)
            losses = self._run(runner, None, np.array([0, len(X)]), lr, data)
            if not np.isfinite(losses[0]):
                self.net.parameters[:] = before
                raise DivergenceError(f"the loss of step {self.steps} is {losses[0]}", 1, self.steps, History())
        return float(losses[0])

    def _run(self, runner: Executor, order: Any, offsets: Any, lr: Any, data: Data) -> NDArray[np.float64]:
        losses = runner.run(
            order, offsets, lr, weight=data.weight, first_number=self.steps, n_threads=runner.plan.n_threads
        )
        self.steps += len(losses)
        return losses

    def _exclusive(self) -> Exclusive:
        return Exclusive(self.net)

    # ---- epochs ------------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        epochs: int = 10,
        batch_size: int | None = 32,
        validation: tuple[ArrayLike, ...] | None = None,
        sample_weight: ArrayLike | None = None,
        shuffle: bool = True,
        callbacks: Sequence[Any] = (),
    ) -> History:
        """Train for some epochs, going on from the current weights and optimizer state.

        Parameters
        ----------
        X : array-like, shape (rows, n_in)
        y : array-like
            Class numbers (rows,), or targets (rows, n_out).
        epochs : int
        batch_size : int or None
            Rows of a step: 1 is stochastic, None full-batch gradient descent. A shorter last batch is trained as it is.
        validation : (X, y) or (X, y, sample_weight), optional
            Evaluated after each epoch.
        sample_weight : array-like, shape (rows,), optional
            The loss of a batch is ``sum(w * loss) / sum(w)``.
        shuffle : bool
            Whether each epoch takes the rows in a new order, from the network's seed.
        callbacks : list
            Objects with any of ``on_train_begin(state)``, ``on_epoch_end(state)`` (True stops), ``on_train_end(state)``.

        Returns
        -------
        History

        Raises
        ------
        TypeError, ValueError
            For bad input, before anything is changed.
        DivergenceError
            If the loss stops being finite; the parameters of the last finite epoch are kept.
        """
        epochs = checks.whole("epochs", epochs)
        batch_size = None if batch_size is None else checks.whole("batch_size", batch_size)
        X, y, labels = self.net.check_data(X, y)
        data = Data(X, y, labels, checks.sample_weight(sample_weight, len(X)))
        evaluator = self._evaluator(validation)
        with self._exclusive():
            return EpochLoop(self, data, epochs, batch_size, shuffle, evaluator, callbacks).run()

    def _evaluator(self, validation: Any) -> Evaluator | None:
        if validation is None:
            return None
        if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
            raise TypeError(f"validation must be (X, y) or (X, y, sample_weight), got {type(validation).__name__}")
        X, y, labels = self.net.check_data(validation[0], validation[1], "validation ")
        weight = checks.sample_weight(validation[2], len(X), "validation sample_weight") if len(validation) == 3 else None
        return Evaluator(self.net, X, y, labels, weight)


class Exclusive:
    """One training run of a network at a time; a second one, from another thread, is refused."""

    def __init__(self, net: MLP) -> None:
        self.net = net

    def __enter__(self) -> None:
        if not self.net.training.acquire(blocking=False):
            raise RuntimeError("this network is being trained already, by another thread or by a callback's own call")

    def __exit__(self, *error: Any) -> None:
        self.net.training.release()


class EpochLoop:
    """The loop of one `fit` call.

    Epochs go in groups of one, or of many where the data are tiny and nobody looks between them. If a group ends with
    something that is not finite, it is undone and its finite epochs are run again: the same bits, since nothing in a run
    depends on anything but its arguments.
    """

    def __init__(
        self,
        trainer: Trainer,
        data: Data,
        epochs: int,
        batch_size: int | None,
        shuffle: bool,
        evaluator: Evaluator | None,
        callbacks: Iterable[Any],
    ) -> None:
        self.trainer, self.data, self.epochs, self.evaluator = trainer, data, epochs, evaluator
        self.callbacks = list(callbacks)
        self.n = len(data.X)
        self.batch = min(batch_size or self.n, self.n)
        self.shuffle = shuffle and self.batch < self.n
        self.runner = trainer._executor(self.batch, data)
        self.offsets = np.minimum(np.arange(-(-self.n // self.batch) + 1, dtype=np.int64) * self.batch, self.n)
        self.total_steps = trainer.steps + epochs * (len(self.offsets) - 1)
        self.seconds_a_step = 2e-5
        self.history = History()
        self.state = TrainingState(0, epochs, trainer.net, self.history, trainer)

    def run(self) -> History:
        self._tell("on_train_begin")
        stop = False
        while self.state.epoch < self.epochs and not stop:
            group = min(self._group(), self.epochs - self.state.epoch)
            self._run_group(group)
            self.state.epoch += group
            if self.evaluator:
                scores = self.evaluator()
                self.history.add(**{f"val_{name}": value for name, value in scores.items()})
            stop = self._tell("on_epoch_end")
        self._tell("on_train_end")
        return self.history

    def _tell(self, event: str) -> bool:
        """Call that method of every callback that has it; whether any of them answered True."""
        answers = [getattr(c, event)(self.state) for c in self.callbacks if hasattr(c, event)]
        return any(answer is True for answer in answers)

    def _group(self) -> int:
        """How many epochs to run before anybody looks."""
        if self.evaluator or self.callbacks:
            return 1
        epoch_seconds = self.seconds_a_step * (len(self.offsets) - 1)
        return max(1, min(int(SLICE_SECONDS / epoch_seconds), GROUP_ROWS // self.n))

    def _run_group(self, epochs: int) -> None:
        trainer, net = self.trainer, self.trainer.net
        before = net.parameters.copy()
        state = [s.copy() for s in trainer.states] if epochs > 1 else []
        first_step, generator = trainer.steps, net.shuffle_rng.bit_generator.state
        start = time.perf_counter()
        losses, lr = self._run_epochs(epochs)
        seconds = (time.perf_counter() - start) / epochs
        bad = self._first_bad_epoch(losses)
        if bad is not None:  # undo all, then run the finite epochs again
            net.parameters[:] = before
            trainer.steps, net.shuffle_rng.bit_generator.state = first_step, generator
            for array, saved in zip(trainer.states, state, strict=False):
                array[:] = saved
            if bad:
                self._run_epochs(bad)
            self._record(losses[:bad], lr[:bad], seconds)
            for array in trainer.states:
                array[:] = 0
            self._raise_divergence(losses[bad], bad)
        self._record(losses, lr, seconds)

    def _first_bad_epoch(self, losses: NDArray[np.float64]) -> int | None:
        finite = np.isfinite(losses).all(axis=1)
        if not finite.all():
            return int(np.argmin(finite))
        return None if np.isfinite(self.trainer.net.parameters).all() else len(losses) - 1

    def _raise_divergence(self, losses: NDArray[np.float64], bad: int) -> None:
        epoch = self.state.epoch + bad + 1
        wrong = np.flatnonzero(~np.isfinite(losses))
        step = int(wrong[0]) + 1 if wrong.size else len(losses)
        what = f"the loss became {losses[step - 1]}" if wrong.size else "a weight became infinite or NaN"
        kept = f"the parameters after epoch {epoch - 1} are kept" if epoch > 1 else "the initial parameters are kept"
        raise DivergenceError(
            f"{what} in epoch {epoch} of {self.epochs}, step {step} of {len(losses)}; {kept}. "
            "A smaller learning rate, clipping (clip_norm) or scaled inputs may help.",
            epoch,
            step,
            self.history,
        )

    def _record(self, losses: NDArray[np.float64], lr: NDArray[np.float64], seconds: float) -> None:
        for epoch_losses, rate, share in zip(losses, lr, self._shares(len(losses)), strict=True):
            self.history.add(
                loss=float(epoch_losses @ share / share.sum()),
                learning_rate=float(rate[-1]),
                seconds=seconds,
                samples_per_second=self.n / seconds,
            )

    def _shares(self, epochs: int) -> Iterable[NDArray[np.float64]]:
        """The weight of each batch in its epoch's loss."""
        weight = self.data.weight
        if weight is None or not self.shuffle:
            return [batch_weights(weight, self.offsets)] * epochs
        return [batch_weights(weight[order], self.offsets) for order in self.orders]

    def _run_epochs(self, epochs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Losses and rates of every step, ``(epochs, steps)``."""
        steps = len(self.offsets) - 1
        order, offsets = self._order(epochs)
        lr = self.trainer.optimizer.rates(self.trainer.steps, epochs * steps, self.total_steps)
        losses = np.empty(epochs * steps)
        done = 0
        while done < len(losses):
            count = min(max(1, int(SLICE_SECONDS / self.seconds_a_step)), len(losses) - done)
            start = time.perf_counter()
            slice_ = slice(done, done + count)
            losses[slice_] = self.trainer._run(
                self.runner, order, offsets[done : done + count + 1], lr[slice_], self.data
            )
            self.seconds_a_step = max((time.perf_counter() - start) / count, 1e-8)
            done += count
        return losses.reshape(epochs, steps), lr.reshape(epochs, steps)

    def _order(self, epochs: int) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        """Row numbers of some epochs, one after the other, and where their batches begin."""
        if epochs == 1 and not self.shuffle:
            self.orders: NDArray[np.int64] | None = None
            return None, self.offsets
        rows = np.broadcast_to(np.arange(self.n), (epochs, self.n))
        self.orders = self.trainer.net.shuffle_rng.permuted(rows, axis=1) if self.shuffle else np.ascontiguousarray(rows)
        starts = self.offsets[:-1] + np.arange(epochs)[:, None] * self.n
        return self.orders.reshape(-1), np.append(starts.reshape(-1), epochs * self.n)
