"""What a training run reports: History, and the error that ends a run that has gone astray."""

from __future__ import annotations

from typing import Any


class History(dict[str, list[Any]]):
    """One list an epoch for each quantity; ``history["loss"]`` and ``history.loss`` are the same list.

    Keys: ``loss`` (training loss, mean over the epoch), ``seconds``, ``samples_per_second``, ``learning_rate`` (of the
    epoch's last step), and with validation data ``val_loss`` and ``val_`` of each metric. The seconds are those of
    training alone, without validation and callbacks; where several epochs of a tiny data set ran in one go, the mean of
    theirs.
    """

    def __getattr__(self, name: str) -> list[Any]:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"this history has {', '.join(self) or 'nothing yet'}, not {name!r}") from None

    def add(self, **values: Any) -> None:
        """Append one epoch."""
        for name, value in values.items():
            self.setdefault(name, []).append(value)

    def extend(self, **values: list[Any]) -> None:
        """Append some epochs."""
        for name, several in values.items():
            self.setdefault(name, []).extend(several)

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return len(self.get("loss", ()))


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
