"""StreamLoop: epochs over an iterable of batches."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import counted
from .data import Data
from .epochs import EpochLoop
from .evaluation import Evaluator
from .history import DivergenceError
from .interrupts import check_cancelled

if TYPE_CHECKING:
    from .trainer import Trainer


def check_batches(batches: Any, epochs: int) -> None:
    """Raise TypeError or ValueError unless `batches` can be iterated over `epochs` times."""
    if not isinstance(batches, Iterable) or isinstance(batches, (str, bytes)) or hasattr(batches, "__array__"):
        kind = type(batches).__name__
        raise TypeError(f"y must be given unless X is an iterable of (X, y) batches, got an object of type {kind}")
    if iter(batches) is batches and epochs > 1:
        raise ValueError(
            f"epochs must be 1 for a {type(batches).__name__}, which can be iterated over only once, got {epochs}: give"
            " a list, or an object whose __iter__ returns a new iterator"
        )


class StreamLoop(EpochLoop):
    """The loop of one `fit` call on batches: each is checked, used for one step, and released."""

    def __init__(
        self,
        trainer: Trainer,
        stream: Iterable[Any],
        epochs: int,
        evaluator: Evaluator | None,
        callbacks: Iterable[Any],
    ) -> None:
        self._begin(trainer, epochs, evaluator, callbacks)
        self.stream = stream

    def _train(self) -> None:
        self.first_step = self.trainer.steps
        super()._train()

    def _group(self) -> int:
        return 1

    def _batches(self) -> Iterator[tuple[ArrayLike, ArrayLike, ArrayLike | None]]:
        """Yield X, y and weights of each batch of one epoch."""
        for i, batch in enumerate(self.stream):
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                several = isinstance(batch, (tuple, list))
                got = counted(len(batch), "item") if several else f"an object of type {type(batch).__name__}"
                raise TypeError(f"batch {i} must be (X, y) or (X, y, sample_weight), got {got}")
            yield (*batch, None)[:3]

    def _checked(self, i: int, X: ArrayLike, y: ArrayLike, weight: ArrayLike | None) -> Data:
        try:
            return self.trainer.training_data(X, y, weight)
        except (TypeError, ValueError) as error:
            error.add_note(f"in batch {i} of epoch {self.state.epoch + 1}")
            raise

    def _rate(self) -> NDArray[np.float64]:
        """Learning rate of the next update."""
        total = self.trainer.total_steps
        if total is None and isinstance(self.stream, Sized):
            total = self.first_step + self.epochs * self.trainer.updates(len(self.stream))
        return self.trainer.rate_of(total)

    def _run_group(self, epochs: int) -> None:
        trainer, start, rows = self.trainer, time.perf_counter(), 0
        losses: list[float] = []
        weights: list[float] = []
        for i, (X, y, weight) in enumerate(self._batches()):
            check_cancelled()
            rate = self._rate()
            loss, importance, length = self._step(i, X, y, weight, rate)
            losses.append(loss)
            weights.append(importance)
            rows += length
        if not losses:
            raise ValueError(f"X must yield at least one batch per epoch, got none in epoch {self.state.epoch + 1}")
        trainer.flush()
        seconds = time.perf_counter() - start
        self.history.add(
            loss=float(np.average(losses, weights=weights)),
            learning_rate=float(rate[0]),
            seconds=seconds,
            samples_per_second=rows / seconds,
        )

    def _step(
        self, i: int, X: Any, y: ArrayLike, weight: ArrayLike | None, rate: NDArray[np.float64]
    ) -> tuple[float, float, int]:
        """Train on batch `i`; return its loss, the weight of that in the epoch's mean, and its number of rows."""
        try:
            loss = self.trainer.step_unchecked(X, y, weight, rate)
            if loss is not None:
                return loss, float(len(X)), len(X)
            data = self._checked(i, X, y, weight)
            loss = self.trainer.step_on(data, rate)
        except DivergenceError as error:
            epoch = self.state.epoch + 1
            message = f"{error} (epoch {epoch}, batch {i + 1}); the parameters before it are kept"
            raise DivergenceError(message, epoch, i + 1, self.history) from None
        return loss, float(len(data.X) if data.weight is None else data.weight.sum()), len(data.X)
