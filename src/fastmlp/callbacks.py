"""Callbacks: functions that `fit` calls between epochs, among them loggers and a progress bar.

Early stopping is a callback, too: :class:`fastmlp.EarlyStopping`.

A callback is any object with at least one of the methods of :class:`Callback`. Callbacks are called in list order, in
the thread that called `fit`. An exception raised by one ends the training and propagates to the caller; the network is
left as after the last finished epoch. ``on_train_end`` is called exactly once in any case, also after an error or
Ctrl-C (``state.error`` then holds it), so that it can close files.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from . import checks

if TYPE_CHECKING:
    from .history import History
    from .mlp import MLP
    from .trainer import Trainer

__all__ = [
    "CSVLogger",
    "Callback",
    "JSONLinesLogger",
    "LambdaCallback",
    "LearningRateLogger",
    "ProgressBar",
    "TrainingState",
]

METHODS = ("on_train_begin", "on_epoch_end", "on_train_end")


@dataclass
class TrainingState:
    """State of the training, as passed to callbacks.

    Attributes
    ----------
    epoch : int
        Number of epochs finished in this call (0 before the first).
    epochs : int
        Number of epochs requested.
    net : MLP
    history : History
    trainer : Trainer
    error : BaseException or None
        In ``on_train_end``, the exception that ended the training early.
    """

    epoch: int
    epochs: int
    net: MLP
    history: History
    trainer: Trainer
    error: BaseException | None = None


class Callback:
    """The callback protocol; deriving from this class is optional.

    Examples
    --------
    >>> import fastmlp
    >>> class StopAtZero(fastmlp.callbacks.Callback):
    ...     def on_epoch_end(self, state):
    ...         return state.history.loss[-1] < 0.05
    >>> X, y = fastmlp.datasets.xor()
    >>> net = fastmlp.MLP([2, 4, 1], "tanh", "binary_cross_entropy")
    >>> history = net.fit(X, y, epochs=5000, batch_size=None, optimizer=fastmlp.SGD(1.0), callbacks=[StopAtZero()])
    >>> history.loss[-1] < 0.05, history.epochs < 5000
    (True, True)
    """

    def on_train_begin(self, state: TrainingState) -> None:
        """Called before the first epoch; ``state.epoch`` is 0."""

    def on_epoch_end(self, state: TrainingState) -> bool | None:
        """Called after each epoch, whose numbers are in ``state.history``; returning True ends the training."""

    def on_train_end(self, state: TrainingState) -> None:
        """Called after the last epoch, or after the error in ``state.error``."""


def check(callbacks: Iterable[Any]) -> list[Any]:
    """Return the callbacks as a list; TypeError for a class, or for an object that has none of the methods."""
    if not checks.iterable(callbacks):
        raise TypeError(f"callbacks must be a list of objects, got {callbacks!r}")
    found = list(callbacks)
    for callback in found:
        if isinstance(callback, type) or not any(callable(getattr(callback, m, None)) for m in METHODS):
            raise TypeError(f"callbacks must be objects with a method among {', '.join(METHODS)}, got {callback!r}")
    return found


class Listeners(ExitStack):
    """The callbacks of one training; on exit it calls every ``on_train_end``, even if one of them raises.

    Call `begin` first in the ``with`` block: after an error there, too, each ``on_train_end`` is called.
    """

    def __init__(self, callbacks: Iterable[Any], state: TrainingState) -> None:
        super().__init__()
        self.all, self.state = list(callbacks), state

    def begin(self) -> None:
        """Call ``on_train_begin``."""
        for callback in reversed(self.all):
            if hasattr(callback, "on_train_end"):
                self.callback(callback.on_train_end, self.state)
        self.push(self._keep_error)
        self.tell("on_train_begin")

    def _keep_error(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.state.error = error

    def tell(self, event: str) -> bool:
        """Call this method of all callbacks that have it; return whether any answers True (Python's or NumPy's)."""
        answers = [getattr(callback, event)(self.state) for callback in self.all if hasattr(callback, event)]
        return any(isinstance(answer, (bool, np.bool_)) and answer for answer in answers)


def last_of(state: TrainingState) -> dict[str, Any]:
    """The number of the last epoch, followed by its values from the history."""
    return {"epoch": state.epoch, **{name: values[-1] for name, values in state.history.items() if values}}


class LambdaCallback(Callback):
    """A callback built from functions.

    Parameters
    ----------
    on_train_begin, on_epoch_end, on_train_end : callable(state), optional

    Examples
    --------
    >>> import fastmlp
    >>> X, y = fastmlp.datasets.xor()
    >>> show = LambdaCallback(on_epoch_end=lambda state: print("epoch", state.epoch))
    >>> history = fastmlp.MLP([2, 2]).fit(X, y, epochs=2, callbacks=[show])
    epoch 1
    epoch 2
    """

    def __init__(
        self,
        on_train_begin: Callable[[TrainingState], Any] | None = None,
        on_epoch_end: Callable[[TrainingState], Any] | None = None,
        on_train_end: Callable[[TrainingState], Any] | None = None,
    ) -> None:
        for name, function in zip(METHODS, (on_train_begin, on_epoch_end, on_train_end), strict=True):
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"{name} must be a function of the state, got {function!r}")
            setattr(self, name, function)


class LearningRateLogger(Callback):
    """Writes a line when the learning rate has changed, and keeps the rate of every epoch in `rates`.

    Parameters
    ----------
    write : callable(str), default print

    Examples
    --------
    >>> import fastmlp
    >>> X, y = fastmlp.datasets.xor()
    >>> falling = fastmlp.SGD(fastmlp.schedules.Step(2, 0.5, learning_rate=0.1))
    >>> logger = LearningRateLogger()
    >>> history = fastmlp.MLP([2, 2]).fit(X, y, epochs=4, optimizer=falling, callbacks=[logger])
    epoch 1: learning rate 0.1
    epoch 3: learning rate 0.05
    """

    def __init__(self, write: Callable[[str], Any] = print) -> None:
        if not callable(write):
            raise TypeError(f"write must be a function of a line, got {write!r}")
        self.write = write
        self.rates: list[float] = []

    def on_train_begin(self, state: TrainingState) -> None:
        self.rates = []

    def on_epoch_end(self, state: TrainingState) -> None:
        rate = state.history["learning_rate"][-1]
        if not self.rates or rate != self.rates[-1]:
            self.write(f"epoch {state.epoch}: learning rate {rate:.6g}")
        self.rates.append(rate)


class ProgressBar(Callback):
    """Shows the progress over the epochs and the latest losses and metrics in a tqdm bar.

    Copies and pickles made during training have no bar.

    Parameters
    ----------
    **settings
        Passed to ``tqdm.auto.tqdm``: ``leave=False``, ``file=...``

    Raises
    ------
    ImportError
        If tqdm is not installed.

    Examples
    --------
    >>> import fastmlp
    >>> net, bar = fastmlp.MLP([64, 16, 10]), ProgressBar(leave=False)  # doctest: +SKIP
    >>> history = net.fit(*fastmlp.datasets.load_digits(), callbacks=[bar])  # doctest: +SKIP
    """

    def __init__(self, **settings: Any) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise ImportError("ProgressBar needs tqdm: pip install 'fastmlp[progress]'") from error
        self.make, self.settings, self.bar = tqdm, settings, None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "bar": None}

    def on_train_begin(self, state: TrainingState) -> None:
        self.bar = self.make(**{"total": state.epochs, "unit": "epoch", **self.settings})

    def on_epoch_end(self, state: TrainingState) -> None:
        last = last_of(state)
        shown = {name: f"{last[name]:.4g}" for name in last if name == "loss" or name.startswith("val_")}
        if self.bar is not None:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(state.epoch - self.bar.n)

    def on_train_end(self, state: TrainingState) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None


class FileLogger(Callback):
    """Base class of the file loggers: the file is open during training and written after each epoch.

    Copies and pickles made during training have no open file: only the original writes to it.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            raise TypeError(f"path must be the path of a file, got {checks.shown(path)}")
        self.path, self.append = os.fspath(path), checks.flag("append", append)
        self.file: IO[str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "file": None}

    def on_train_begin(self, state: TrainingState) -> None:
        mode = "a" if self.append else "w"
        self.file = open(self.path, mode, encoding="utf-8", newline="")  # noqa: SIM115  closed at the end of training

    def on_epoch_end(self, state: TrainingState) -> None:
        if self.file is not None:
            self.write(self.file, last_of(state))
            self.file.flush()

    def on_train_end(self, state: TrainingState) -> None:
        if self.file is not None:
            self.file.close()
        self.file = None

    def write(self, file: IO[str], numbers: dict[str, Any]) -> None:
        raise NotImplementedError


class CSVLogger(FileLogger):
    """Writes a header line with names, then a line of comma-separated numbers per epoch.

    Parameters
    ----------
    path : str or path
    append : bool, default False
        Whether to append to an existing file, without a second header.

    Examples
    --------
    >>> import fastmlp, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "log.csv")
    ...     history = fastmlp.MLP([2, 2]).fit(*fastmlp.datasets.xor(), epochs=2, callbacks=[CSVLogger(path)])
    ...     print(path.read_text().splitlines()[0])
    epoch,loss,learning_rate,seconds,samples_per_second
    """

    def write(self, file: IO[str], numbers: dict[str, Any]) -> None:
        writer = csv.writer(file, lineterminator="\n")
        if file.tell() == 0:
            writer.writerow(numbers)
        writer.writerow(numbers.values())


class JSONLinesLogger(FileLogger):
    """Writes a JSON object per epoch, each on its own line; numbers that are not finite become null.

    Parameters
    ----------
    path : str or path
    append : bool, default False
        Whether to append to an existing file.

    Examples
    --------
    >>> import fastmlp, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "log.jsonl")
    ...     history = fastmlp.MLP([2, 2]).fit(*fastmlp.datasets.xor(), epochs=2, callbacks=[JSONLinesLogger(path)])
    ...     print([json.loads(line)["epoch"] for line in path.read_text().splitlines()])
    [1, 2]
    """

    def write(self, file: IO[str], numbers: dict[str, Any]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        file.write(json.dumps(finite) + "\n")
