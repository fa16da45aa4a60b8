"""Objects with hyperparameters: the decorator of their classes, the look-up by name, and the checks of their fields.

Shared by activations, losses, optimizers, schedules and early stopping.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, dataclass_transform

from . import checks, keywords

T = TypeVar("T")


class Checked(Protocol):
    def check(self) -> None: ...


Named = TypeVar("Named", bound=Checked)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def hyperparameters(kind: type[T]) -> type[T]:
    """Make the class a frozen dataclass whose constructor suggests a name for an unknown keyword."""
    made = dataclass(frozen=True)(kind)
    made.__init__ = keywords.explained(f"{kind.__name__}()")(made.__init__)  # type: ignore[method-assign]
    return made


def lookup(spec: object, known: Mapping[str, Callable[[], Named]], base: type[Named]) -> Named:
    """Return a new object with this name, or the given object; its ``check`` has passed."""
    noun = base.__name__.lower()
    article = "an" if noun[0] in "aeiou" else "a"
    if isinstance(spec, str):
        if spec not in known:
            raise ValueError(keywords.unknown(noun, spec, sorted(known)))
        spec = known[spec]()
    if not isinstance(spec, base):
        raise TypeError(f"{noun} must be a name or {article} {base.__name__} object, got {checks.shown(spec)}")
    spec.check()
    return spec


def check_number(owner: object, argument: str, interval: str, value: object = ..., *, whole: bool = False) -> None:
    """Raise unless the argument (or ``value``, an element of it) is a number in the interval, as in ``"[0, 1)"``."""
    value = getattr(owner, argument) if value is ... else value
    checks.number(f"{type(owner).__name__}: {argument}", value, interval, whole=whole)


def check_bool(owner: object, argument: str) -> None:
    """Raise unless the argument is True or False."""
    checks.flag(f"{type(owner).__name__}: {argument}", getattr(owner, argument))
