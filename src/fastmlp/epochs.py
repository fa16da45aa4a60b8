"""The epochs of one `fit` call; each runs a plan in slices of about 50 ms.

The C code executes steps, this module epochs. The order of the rows, the rates and the batch boundaries of a slice are
plain arrays. Between slices Python has control and can handle Ctrl-C; the weights are always those after a whole step.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import checks
from .callbacks import Listeners, TrainingState
from .data import Data
from .evaluation import Evaluator, batch_weights, batches
from .history import DivergenceError, History
from .interrupts import WholeSteps, check_cancelled
from .schedules import ReduceOnPlateau, plateau
from .snapshot import Snapshot

if TYPE_CHECKING:
    from .trainer import Trainer

# State before a group of epochs: arrays, number of steps, state of the generator, whether the average has begun.
Before = tuple[list[NDArray[Any]], int, Any, bool]

GROUP_ROWS = 1 << 17  # maximum number of rows in a group of several epochs


class EpochLoop:
    """The loop of one `fit` call.

    Epochs run in groups: of one, or of several if the data are tiny and there is no validation, callback or schedule to
    update in between. If a loss or weight of a group is not finite, the group is undone and its finite epochs are run
    again, with the same bits, since a run depends on its arguments only.
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
        self._begin(trainer, epochs, evaluator, callbacks)
        self.data = data
        self.n = len(data)
        self.batch = min(batch_size or self.n, self.n)
        self.shuffle = shuffle and self.batch < self.n
        self.offsets = batches(self.n, self.batch)
        self.sizes = batch_weights(None, self.offsets)
        self.order: tuple[NDArray[np.int64] | None, NDArray[np.int64]] = (None, self.offsets)  # of the last group ...
        self.orders: NDArray[np.int64] | None = None  # ... the same memory as one row per epoch ...
        self.laid_out = 0  # ... and the number of these epochs

    def _begin(self, trainer: Trainer, epochs: int, evaluator: Evaluator | None, callbacks: Iterable[Any]) -> None:
        """Initialise what the loops in `stream` and `lbfgs` need as well."""
        self.trainer, self.epochs, self.evaluator = trainer, epochs, evaluator
        self.snapshots: list[Snapshot] = []
        self.history = History()
        self.state = TrainingState(0, epochs, trainer.net, self.history, trainer)
        self.listeners = Listeners(callbacks, self.state)
        schedule = self._plateau()
        if schedule and trainer.steps == 0:  # another trainer may have reported metrics to it
            schedule.reset()

    def take(self, data: Data) -> None:
        """Set the data, now with targets as the loss reads them; called with the network's lock held."""
        self.data = data
        self._bind()
        self.total_steps = self._planned_steps()

    def _planned_steps(self) -> int:
        trainer = self.trainer
        if trainer.total_steps is not None:
            return trainer.total_steps
        return trainer.steps + self.epochs * trainer.updates(len(self.offsets) - 1)

    def check_rates(self) -> None:
        """ValueError or TypeError if the schedule returns an invalid rate for the first epoch."""
        self.trainer.rates(1, len(self.offsets) - 1, self._planned_steps())

    def _bind(self) -> None:
        """Get the trainer's current plan of a step."""
        self.runner = self.trainer._executor(self.batch, self.data)
        self.pace = self.trainer.pace_of(self.runner.plan)

    def _plateau(self) -> ReduceOnPlateau | None:
        """The schedule to report a metric to, if any; ValueError if it monitors a metric that is not computed."""
        has_metric = bool(self.evaluator and self.evaluator.metrics)
        return plateau(
            self.trainer.optimizer.learning_rate, has_metric, "validation rows and a metric; the loss is to fall"
        )

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Release what only this training needs: left to destructors, a Ctrl-C during them would be lost."""
        while self.snapshots:
            self.snapshots.pop().close()
        if self.evaluator:
            self.evaluator.end()

    def run(self) -> History:
        with self.listeners:
            self.listeners.begin()
            self._train()
        return self.history

    def _train(self) -> None:
        stop = False
        while self.state.epoch < self.epochs and not stop:
            group = min(self._group(), self.epochs - self.state.epoch)
            with self.trainer.raw_weights():  # between epochs the network may hold averaged ones
                self._run_group(group)
            stop = self._report(group)

    def _report(self, group: int) -> bool:
        """After some epochs, evaluate and call the callbacks; return whether to stop."""
        self.state.epoch += group
        self._validate()
        if schedule := self._plateau():
            schedule.observe(self._plateau_metric(schedule))
        return self.listeners.tell("on_epoch_end")

    def _validate(self) -> None:
        """Add loss and metrics on the validation rows to the history."""
        if self.evaluator:
            self.history.add(**{f"val_{name}": value for name, value in self.evaluator().items()})

    def _plateau_metric(self, schedule: ReduceOnPlateau) -> float:
        name = "val_loss" if self.evaluator else "loss"
        if schedule.mode == "max" and self.evaluator:
            name = f"val_{self.evaluator.metrics[0].name}"
        return float(self.history[name][-1])

    def _group(self) -> int:
        """Epochs to run before the next validation or callback."""
        if self.evaluator or self.listeners.all or self._plateau():
            return 1
        return max(1, min(self.pace.steps // (len(self.offsets) - 1), GROUP_ROWS // self.n))

    # ---- a group of epochs -------------------------------------------------------------------------------------------

    def _run_group(self, epochs: int) -> None:
        if not self.trainer.keeps(self.runner):  # a callback has changed the optimizer
            self._bind()
        before = self._snapshot(epochs)
        try:
            self._run_or_undo(epochs, before)
        except BaseException:  # Ctrl-C may come between a step that diverged and its undoing
            with WholeSteps():
                if not checks.all_finite(self.trainer.net.parameters):
                    self._restore(before)
                    self.trainer.forget()
            raise

    def _run_or_undo(self, epochs: int, before: Before) -> None:
        """Run and record epochs; if one diverges, only those before it, and raise DivergenceError."""
        start = time.perf_counter()
        losses, lr = self._run_epochs(epochs)
        seconds = (time.perf_counter() - start) / epochs
        bad = self._first_bad_epoch(losses)
        while bad is not None:  # undo all, then run the finite epochs again
            with WholeSteps():
                self._restore(before)
                if not bad:
                    self.trainer.forget()
            if bad:
                again, lr = self._run_epochs(bad)
                if self._first_bad_epoch(again) is not None:  # the last one left a weight that is not finite
                    bad -= 1
                    continue
                self._record(again, lr, seconds)
                self.trainer.forget()
            self._raise_divergence(losses[bad], bad)
        self._record(losses, lr, seconds)

    def _snapshot(self, epochs: int) -> Before:
        """Save what a group will change; for a single epoch, which is never run again, not the optimizer's state."""
        trainer, net, average = self.trainer, self.trainer.net, self.trainer._average
        kept = [net.parameters, *trainer.moving][: None if epochs > 1 else 1 + bool(average)]
        if len(self.snapshots) < len(kept):
            with WholeSteps():  # else a partly created one could stay alive in a traceback
                self.snapshots += [Snapshot(array) for array in kept[len(self.snapshots) :]]
        for snapshot, array in zip(self.snapshots, kept, strict=False):
            snapshot.take(array)
        return kept, trainer.steps, net.shuffle_rng.bit_generator.state, bool(average and average.begun)

    def _restore(self, before: Before) -> None:
        trainer, net = self.trainer, self.trainer.net
        kept, trainer.steps, net.shuffle_rng.bit_generator.state, begun = before
        if trainer._average:
            trainer._average.begun = begun
        for snapshot, array in zip(self.snapshots, kept, strict=False):
            snapshot.restore(array)

    def _first_bad_epoch(self, losses: NDArray[np.float64]) -> int | None:
        finite = np.isfinite(losses)
        if not finite.all():
            return int(np.argmin(finite.all(axis=1)))
        return None if checks.all_finite(self.trainer.net.parameters) else len(losses) - 1

    def _raise_divergence(self, losses: NDArray[np.float64], bad: int) -> None:
        epoch = self.state.epoch + bad + 1
        wrong = np.flatnonzero(~np.isfinite(losses))
        step = int(wrong[0]) + 1 if wrong.size else len(losses)
        what = f"the loss became {losses[step - 1]}" if wrong.size else "a weight became infinite or NaN"
        kept = f"the parameters after epoch {epoch - 1} are kept" if epoch > 1 else "the initial parameters are kept"
        raise DivergenceError(
            f"{what} in epoch {epoch} of {self.epochs}, step {step} of {len(losses)}; {kept}. "
            f"{self._cures()} may help.",
            epoch,
            step,
            self.history,
        )

    def _cures(self) -> str:
        """Suggestions against divergence that the network does not follow yet."""
        net = self.trainer.net
        found = ["A smaller learning rate", "clipping (clip_norm)"]
        found += [] if net.standardize else ["scaled inputs (MLP(..., standardize='mean'))"]
        found += ["scaled targets (standardize_targets=True)"] if net.may_scale_targets() else []
        return f"{', '.join(found[:-1])} or {found[-1]}"

    def _record(self, losses: NDArray[np.float64], lr: NDArray[np.float64], seconds: float) -> None:
        epochs, batches = losses.shape
        loss = losses[:, 0]
        if batches > 1:  # a sum along rows has the same bits in groups of any size, unlike a matrix product
            share = self._share()
            loss = (losses * share).sum(axis=1) / share.sum(axis=-1)
        rate = float(lr[0, -1]) if epochs == 1 or (lr == lr[0, -1]).all() else lr[:, -1].copy()
        self.history.extend(epochs, loss=loss, learning_rate=rate, seconds=seconds, samples_per_second=self.n / seconds)

    def _share(self) -> NDArray[np.float64]:
        """The weight of each batch in its epoch's loss: one row for all epochs, or one per epoch."""
        weight = self.data.weight
        if weight is None:
            return self.sizes
        if self.orders is None:
            return batch_weights(weight, self.offsets)
        return np.array([batch_weights(weight[order], self.offsets) for order in self.orders])

    # ---- steps -------------------------------------------------------------------------------------------------------

    def _run_epochs(self, epochs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Run epochs; return losses and rates of their steps, each ``(epochs, steps)``."""
        steps = len(self.offsets) - 1
        lr = self.trainer.rates(epochs, steps, self.total_steps)  # first, because it may reject a schedule's rates
        order, offsets = self._order(epochs)
        parts: list[NDArray[np.float64]] = []
        for begin, end in self.pace.slices(0, epochs * steps):
            check_cancelled()
            with WholeSteps():
                part, rates = offsets[begin : end + 1], lr[begin:end]
                parts.append(self.trainer._run(self.runner, order, part, rates, self.data, epoch_rows=self.n))
        losses = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return losses.reshape(epochs, steps), lr.reshape(epochs, steps)

    def _order(self, epochs: int) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        """Row numbers of some epochs, concatenated, and the offsets of their batches."""
        if epochs != self.laid_out:
            self._lay_out(epochs)
        if self.orders is not None and self.shuffle:  # in place: the array that NumPy would allocate is in column order
            self.orders[:] = self._rows()
            self.trainer.net.shuffle_rng.permuted(self.orders, axis=1, out=self.orders)
        return self.order

    def _lay_out(self, epochs: int) -> None:
        """Allocate the orders of this many epochs; kept while the number stays the same."""
        self.orders, self.laid_out, self.order = None, epochs, (None, self.offsets)
        if epochs == 1 and not self.shuffle and self.data.chosen is None:
            return
        self.orders = np.tile(self._rows(), (epochs, 1))
        starts = self.offsets[:-1] + np.arange(epochs)[:, None] * self.n
        self.order = self.orders.reshape(-1), np.append(starts.reshape(-1), epochs * self.n)

    def _rows(self) -> NDArray[np.int64]:
        """The rows to train on."""
        return np.arange(self.n) if self.data.chosen is None else self.data.chosen
