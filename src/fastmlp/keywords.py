"""Error messages for unknown keywords and names, with suggestions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import cache, wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Keywords of other libraries, and what to write here.
HABITS = {
    **dict.fromkeys(("epoch", "n_epochs", "num_epochs", "max_iter", "n_iter"), "epochs"),
    **dict.fromkeys(("lr", "learning_rate_init", "max_lr"), "learning_rate"),
    **dict.fromkeys(("quantile", "quantiles"), "q"),
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

# The same for names of activations, losses, optimizers, initializers and metrics.
NAMES = {
    **dict.fromkeys(("mean_squared_error", "squared_error", "l2"), "mse"),
    **dict.fromkeys(("mean_absolute_error", "absolute_error", "l1"), "mae"),
    **dict.fromkeys(("bce", "bce_with_logits"), "binary_cross_entropy"),
    **dict.fromkeys(("ce", "nll", "log_loss", "sparse_categorical_crossentropy"), "cross_entropy"),
    "smooth_l1": "huber",
    "pinball": "quantile",
    **dict.fromkeys(("xavier", "xavier_uniform", "glorot"), "glorot_uniform"),
    "xavier_normal": "glorot_normal",
    **dict.fromkeys(("he", "kaiming", "kaiming_normal"), "he_normal"),
    "kaiming_uniform": "he_uniform",
    "lecun": "lecun_normal",
    "acc": "accuracy",
    "auc": "roc_auc",
}


def unknown(noun: str, name: str, known: Iterable[str]) -> str:
    """The error message for an unknown name: what was probably meant, and the known names.

    >>> unknown("metric", "acc", ["accuracy", "r2"])
    "unknown metric 'acc' (did you mean 'accuracy'?); known: accuracy, r2"
    """
    names = list(known)
    plain = name.lower()
    meant = NAMES.get(plain, plain)
    close = meant if meant in names else _close(plain, names)
    hint = f" (did you mean {close!r}?)" if close else ""
    return f"unknown {noun} {name!r}{hint}; known: {', '.join(names)}"


def _close(name: str, known: list[str]) -> str | None:
    from difflib import get_close_matches  # used only in errors

    return next(iter(get_close_matches(name, known, 1)), None)


def explained(call: str, more: Iterable[str] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function raise an error with suggestions for unknown keywords.

    Parameters
    ----------
    call : str
        Name of the function in messages: ``"MLP.fit()"``.
    more : iterable of str
        The keywords it takes as ``**settings``.

    Examples
    --------
    >>> @explained("train()")
    ... def train(epochs=10): ...
    >>> train(n_epochs=3)
    Traceback (most recent call last):
    TypeError: train() got an unexpected keyword argument 'n_epochs': write epochs; known: epochs
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @cache  # computed on first use: many functions are never called with keywords
        def known() -> list[str]:
            given = inspect.signature(function).parameters.values()
            own = [p.name for p in given if p.kind is not p.VAR_KEYWORD and p.name != "self"]
            return own + [name for name in more if name not in own]

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in known():
                    what = f"{call} got an unexpected keyword argument {name!r}{_meant(call, name, known())}"
                    raise TypeError(f"{what}; known: {', '.join(known())}")
            return function(*args, **kwargs)

        return checked

    return decorate


def _meant(call: str, name: str, known: list[str]) -> str:
    """A suggestion: the name for another library's keyword, the owner of a misplaced one, or the most similar name."""
    write = HABITS.get(name, name)
    wanted = write.partition("=")[0]
    if wanted in known:
        return f": write {write}"
    for owner, pattern, names in _places(call):
        if wanted in names:
            return f": {wanted} belongs to {owner}, as in {pattern.format(write if '=' in write else f'{write}=...')}"
    close = _close(name, known)
    return f" (did you mean {close}?)" if close else ""


def _places(call: str) -> Iterable[tuple[str, str, Iterable[str]]]:
    """Owners of keywords that `call` does not have: the name of each, how to write a keyword there, its keywords."""
    from . import activations, losses, optimizers
    from .mlp import MLP
    from .options import FitSettings

    thing = call.removesuffix("()")
    if thing in (*activations.__all__, *losses.__all__):  # their alpha, for example, is not an optimizer's
        return
    yield "fit", "net.fit(X, y, {})", {"optimizer", *FitSettings.__annotations__}
    yield "the network", "fastmlp.MLP(sizes, {})", inspect.signature(MLP).parameters
    for kind in (optimizers.SGD, optimizers.Adam, optimizers.RMSprop, optimizers.LBFGS):
        pattern = f"net.fit(X, y, optimizer=fastmlp.{kind.__name__}({{}}))"
        owner = "other optimizers" if thing in optimizers.__all__ else "the optimizer"
        yield owner, pattern, [f.name for f in fields(kind) if f.init]
