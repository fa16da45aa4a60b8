"""Keywords that nobody knows here: an error that names those there are, and says what was probably meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Names that people bring along from other libraries, and what to write here.
HABITS = {
    **dict.fromkeys(("epoch", "n_epochs", "num_epochs", "max_iter", "n_iter"), "epochs"),
    **dict.fromkeys(("lr", "learning_rate_init"), "learning_rate"),
    **dict.fromkeys(("hidden_layer_sizes", "hidden_sizes", "layers"), "sizes=[inputs, *hidden, outputs]"),
    "validation_data": "validation=(X, y)",
    "validation_split": "validation_fraction",
    "patience": "early_stopping=fastmlp.EarlyStopping(patience=...)",
    "verbose": "callbacks=[fastmlp.callbacks.ProgressBar()]",
    "random_state": "seed",
    "solver": "optimizer",
    "criterion": "loss",
    "alpha": "l2",
}


def explained(call: str, more: Iterable[str] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function explain keywords that it does not have.

    Parameters
    ----------
    call : str
        What users know the function as: ``"MLP.fit()"``.
    more : iterable of str
        What it takes as ``**settings``.

    Examples
    --------
    >>> @explained("train()")
    ... def train(epochs=10): ...
    >>> train(n_epochs=3)
    Traceback (most recent call last):
    TypeError: train() got an unexpected keyword argument 'n_epochs': write epochs; known: epochs
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        given = inspect.signature(function).parameters.values()
        known = [p.name for p in given if p.kind is not p.VAR_KEYWORD and p.name != "self"]
        known += [name for name in more if name not in known]

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in known:
                    what = f"{call} got an unexpected keyword argument {name!r}{_meant(name, known)}"
                    raise TypeError(f"{what}; known: {', '.join(known)}")
            return function(*args, **kwargs)

        return checked

    return decorate


def _meant(name: str, known: list[str]) -> str:
    """What the caller may have meant: a name from elsewhere, one that belongs elsewhere, or one that looks like it."""
    write = HABITS.get(name, name)
    wanted = write.partition("=")[0]
    if wanted in known:
        return f": write {write}"
    for owner, pattern, names in _places():
        if wanted in names:
            return f": {wanted} belongs to {owner}, as in {pattern.format(write if '=' in write else f'{write}=...')}"
    from difflib import get_close_matches  # for this alone

    close = get_close_matches(name, known, 1)
    return f": did you mean {close[0]}?" if close else ""


def _places() -> Iterable[tuple[str, str, Iterable[str]]]:
    """Where a keyword may belong: to whom, how it is written there, and the names."""
    from . import optimizers
    from .mlp import MLP
    from .options import FitSettings

    yield "fit", "net.fit(X, y, {})", {"optimizer", *FitSettings.__annotations__}
    yield "the network", "fastmlp.MLP(sizes, {})", inspect.signature(MLP).parameters
    for kind in (optimizers.SGD, optimizers.Adam, optimizers.RMSprop, optimizers.LBFGS):
        pattern = f"net.fit(X, y, optimizer=fastmlp.{kind.__name__}({{}}))"
        yield "the optimizer", pattern, [f.name for f in fields(kind) if f.init]
