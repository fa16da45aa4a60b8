"""What a training run reports: History, and the error that ends a run that has gone astray."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray


class History(dict[str, list[Any]]):
    """One list an epoch for each quantity; ``history["loss"]`` and ``history.loss`` are the same list.

    Keys: ``loss`` (training loss, mean over the epoch), ``seconds``, ``samples_per_second``, ``learning_rate`` (of the
    epoch's last step), and with validation data ``val_loss`` and ``val_`` of each metric. The seconds are those of
    training alone, without validation and callbacks; where several epochs of a tiny data set ran in one go, the mean of
    theirs.

    Such an epoch takes less time than four numbers take to become Python's and join lists. So they stay what they are
    until the history is read in any way.
    """

    _unread: list[tuple[int, dict[str, NDArray[Any] | float]]]  # only while there are any
    _lock = threading.RLock()

    def __getattr__(self, name: str) -> list[Any]:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __missing__(self, name: str) -> list[Any]:
        raise KeyError(f"this history has {', '.join(self) or 'nothing yet'}, not {name!r}")

    def add(self, **values: Any) -> None:
        """Append one epoch."""
        self._read()
        for name, value in values.items():
            dict.setdefault(self, name, []).append(value)

    def extend(self, epochs: int, **values: NDArray[Any] | float) -> None:
        """Append some epochs: of each quantity one value an epoch, or one for all."""
        if epochs == 1:
            self.add(**{name: value if isinstance(value, float) else value.item() for name, value in values.items()})
            return
        with self._lock:
            self.__dict__.setdefault("_unread", []).append((epochs, values))

    def _read(self) -> None:
        """Put what was appended by `extend` into the lists."""
        if "_unread" not in self.__dict__:
            return
        with self._lock:
            for epochs, values in self.__dict__.get("_unread", ()):
                for name, value in values.items():
                    several = [value] * epochs if isinstance(value, float) else value.tolist()
                    dict.setdefault(self, name, []).extend(several)
            self.__dict__.pop("_unread", None)

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return len(self.get("loss", ()))


def _reading_first(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def reads(history: History, *args: Any, **kwargs: Any) -> Any:
        history._read()
        return method(history, *args, **kwargs)

    return reads


for _name in (
    *("__contains__", "__delitem__", "__eq__", "__getitem__", "__ior__", "__iter__", "__len__", "__ne__", "__or__"),
    *("__reduce_ex__", "__repr__", "__reversed__", "__ror__", "__setitem__", "clear", "copy", "get", "items", "keys"),
    *("pop", "popitem", "setdefault", "update", "values"),
):
    setattr(History, _name, _reading_first(getattr(dict, _name)))


def _renew_lock() -> None:
    History._lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # in a child, whoever held it is not there to let it go
    os.register_at_fork(after_in_child=_renew_lock)


class DivergenceError(ArithmeticError):
    """The loss or a weight stopped being a finite number; the parameters of the last finite epoch are kept.

    Attributes
    ----------
    epoch, step : int
        Where, both from 1; the step within its epoch.
    history : History
        The epochs before.
    """

    def __init__(self, message: str, epoch: int, step: int, history: History) -> None:
        super().__init__(message)
        self.epoch, self.step, self.history = epoch, step, history
