"""History, the record of a training run, and DivergenceError, which ends a run that diverges."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from . import forks

Numbers = NDArray[Any] | float  # of several epochs: a value for each, or one for all


class _Unread(Sequence[Any]):
    """Placeholder in a history for a list whose last values are still in arrays; behaves like that list.

    So code that bypasses the history's methods, such as dict's own in C, finds every name, and no list that only
    appears empty.
    """

    __slots__ = ("parts", "so_far")

    def __init__(self, so_far: list[Any]) -> None:
        self.so_far = so_far
        self.parts: list[tuple[int, Numbers]] = []

    def read(self) -> list[Any]:
        """Return the complete list, the same object every time."""
        with History._lock:
            for epochs, value in self.parts:
                self.so_far.extend([value] * epochs if isinstance(value, float) else value.tolist())
            self.parts = []
        return self.so_far

    def __getattr__(self, name: str) -> Any:
        return getattr(self.read(), name)

    def __len__(self) -> int:
        return len(self.read())

    def __getitem__(self, index: Any) -> Any:
        return self.read()[index]

    def __eq__(self, other: object) -> bool:
        return self.read() == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.read())

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (self.read(),)


class History(dict[str, list[Any]]):
    """A list with one value per epoch for each quantity; ``history["loss"]`` and ``history.loss`` are the same list.

    Keys: ``loss`` (training loss, mean over the epoch), ``seconds``, ``samples_per_second``, ``learning_rate`` (of the
    epoch's last step), and with validation data ``val_loss`` and ``val_`` with the name of each metric. If L-BFGS makes
    no iteration, the losses are the initial ones, and there are 0 epochs. ``seconds`` excludes validation and
    callbacks; where several epochs of a tiny data set ran in one call of the engine, it is their mean.

    Such an epoch takes less time than converting four numbers to Python objects and appending them to lists, so they
    stay in arrays until the history is read in any way.

    Examples
    --------
    >>> import fastmlp
    >>> history = fastmlp.MLP([2, 2]).fit(*fastmlp.datasets.xor(), epochs=3)
    >>> history.epochs, len(history["loss"]), history.loss is history["loss"]
    (3, 3, True)
    """

    _unread = False  # whether lists are still to be read
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

    def extend(self, epochs: int, **values: Numbers) -> None:
        """Append several epochs: for each quantity one value per epoch, or one for all."""
        if epochs == 1:
            self.add(**{name: value if isinstance(value, float) else value.item() for name, value in values.items()})
            return
        with self._lock:
            for name, value in values.items():
                found: Any = dict.get(self, name)
                if type(found) is not _Unread:
                    found = _Unread([] if found is None else found)
                    dict.__setitem__(self, name, found)
                found.parts.append((epochs, value))
            self._unread = True

    def _read(self) -> None:
        """Move the values appended by `extend` into the lists."""
        if not self._unread:
            return
        with self._lock:
            for name, found in list(dict.items(self)):
                if isinstance(found, _Unread):
                    dict.__setitem__(self, name, found.read())
            self.__dict__.pop("_unread", None)  # so that copies do not have it

    @property
    def epochs(self) -> int:
        """Number of epochs trained."""
        return len(self.get("seconds", self.get("loss", ())))


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


@forks.in_child
def _renew_lock() -> None:
    History._lock = threading.RLock()


class DivergenceError(ArithmeticError):
    """The loss or a weight stopped being a finite number; the parameters of the last finite epoch are kept.

    Attributes
    ----------
    epoch, step : int
        Where it happened, both counted from 1; the step within its epoch.
    history : History
        The epochs before.

    Examples
    --------
    >>> import fastmlp
    >>> net = fastmlp.MLP([1, 1], loss="mse", weights=[([[1.0]], None)])
    >>> try:
    ...     history = net.fit([[1.0]], [[0.0]], epochs=100, optimizer=fastmlp.SGD(1e30))
    ... except fastmlp.DivergenceError as error:
    ...     print(error.epoch, error.history.loss)
    2 [1.0]
    """

    def __init__(self, message: str, epoch: int, step: int, history: History) -> None:
        super().__init__(message)
        self.epoch, self.step, self.history = epoch, step, history

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.epoch, self.step, self.history), vars(self)  # vars include notes
