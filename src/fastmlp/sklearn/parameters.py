"""Constraints on the estimators' parameters, and their conversion to fastmlp's objects."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, Options, StrOptions

from .. import activations, checks, losses, optimizers, schedules
from .. import options as trainer_options

OWN_SCHEDULES = ("constant", "invscaling", "adaptive")  # scikit-learn's names
LOSSES: dict[str, Callable[[], losses.Loss]] = {
    "squared_error": lambda: losses.MSE(0.5),
    "absolute_error": losses.MAE,
    "mae": losses.MAE,
    "huber": losses.Huber,
    "quantile": losses.Quantile,
    "poisson": losses.Poisson,
}

CONSTRAINTS: dict[str, list[Any]] = {
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "activation": [StrOptions({"logistic", *activations.KNOWN} - {"softmax"}), "array-like", activations.Activation],
    "solver": [StrOptions(set(optimizers.KNOWN)), optimizers.Optimizer],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "learning_rate": [StrOptions({*OWN_SCHEDULES, *schedules.KNOWN}), schedules.Schedule, callable],
    "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
    "power_t": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [Interval(Real, 0, None, closed="left")],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
    "momentum": [Interval(Real, 0, 1, closed="both")],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "beta_1": [Interval(Real, 0, 1, closed="left")],
    "beta_2": [Interval(Real, 0, 1, closed="left")],
    "epsilon": [Interval(Real, 0, None, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
    "max_fun": [Interval(Integral, 1, None, closed="left")],
    "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
    "weight_decay": [Interval(Real, 0, None, closed="left"), None],
    "clip_norm": [Interval(Real, 0, None, closed="neither"), None],
    "standardize": ["boolean", StrOptions({"mean", "robust"})],
    "scoring": [str, callable, None],
    "callbacks": [list, tuple, None],
    "progress": ["boolean"],
    "n_threads": [Interval(Integral, 1, None, closed="left"), None],
}


# Parameters that lbfgs cannot use, except scikit-learn's own, which its estimators ignore with lbfgs.
NOT_WITH_LBFGS = {"dropout": 0.0, "weight_decay": None, "clip_norm": None, "scoring": None}

# Parameters of optimizers specified by name; an optimizer object has its own.
NOT_WITH_OBJECTS: dict[str, Any] = {
    "learning_rate": "constant",
    "learning_rate_init": 0.001,
    "power_t": 0.5,
    "momentum": 0.9,
    "nesterovs_momentum": True,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-8,
    "weight_decay": None,
    "clip_norm": None,
}

# Parameters that an LBFGS object must not set in an estimator, and why.
INSTEAD = {
    "max_iter": "which has a max_iter of its own",
    "tol": "which has a tol of its own",
    "max_fun": "which has a max_fun of its own",
    "l2": "whose penalty is alpha",
    "decay_biases": "whose penalty is alpha",
}


def check_numbers(estimator: Any) -> None:
    """Raise TypeError or ValueError for numbers that scikit-learn's intervals cannot check, or that exceed floats."""
    for name, allowed in type(estimator)._parameter_constraints.items():
        value = getattr(estimator, name)
        if not isinstance(value, Real) or not any(isinstance(a, Interval) and a.type is Real for a in allowed):
            continue
        if not isinstance(value, (int, float, np.number)):
            raise TypeError(f"{name} must be a Python or NumPy number, got {checks.shown(value)}")
        try:
            float(value)
        except OverflowError:
            raise ValueError(f"{name} must be representable as a float, got {checks.shown(value)}") from None


def check_use(estimator: Any, X_val: Any, y_val: Any) -> None:
    """Raise ValueError for parameters that the solver would ignore, unless scikit-learn's estimators do, too."""
    solver = estimator.solver
    if solver == "lbfgs" or isinstance(solver, optimizers.LBFGS):
        if X_val is not None or y_val is not None:
            raise ValueError("X_val and y_val must be None with solver='lbfgs', which has no epochs to score after")
        for name, default in NOT_WITH_LBFGS.items():
            value = getattr(estimator, name)
            if not is_zero(value):
                refuse(name, value, default, "with solver='lbfgs', which makes no steps")
        rate = estimator.learning_rate
        if not (isinstance(rate, str) and rate in OWN_SCHEDULES):
            allowed = ", ".join(map(repr, OWN_SCHEDULES))
            raise ValueError(
                f"learning_rate must be among {allowed} with solver='lbfgs', which has no rate, got {rate!r}"
            )
    elif isinstance(solver, optimizers.Optimizer):
        kind = type(solver).__name__
        for name, default in NOT_WITH_OBJECTS.items():
            refuse(name, getattr(estimator, name), default, f"with a solver given as an object: set it in {kind}(...)")
    if isinstance(solver, optimizers.LBFGS):
        plain = optimizers.LBFGS()
        for name, why in INSTEAD.items():
            refuse(f"{name} of LBFGS", getattr(solver, name), getattr(plain, name), f"in an estimator, {why}")


def refuse(name: str, value: Any, default: Any, why: str) -> None:
    """Raise ValueError unless the value is the default."""
    if checks.sequence(value) or not (value is default or value == default):
        raise ValueError(f"{name} must be {default!r} {why}, got {value!r}")


def is_zero(value: Any) -> bool:
    """Whether the value is 0, or a list of zeros."""
    many = value if checks.iterable(value) else [value]
    return all(isinstance(v, Real) and v == 0 for v in many)


def hidden_sizes(estimator: Any) -> list[int]:
    """Units of the hidden layers; TypeError or ValueError unless all are whole numbers of at least 1."""
    value = estimator.hidden_layer_sizes
    given = value if checks.iterable(value) else [value]
    sizes = [checks.whole(f"hidden_layer_sizes[{i}]", n, -(1 << 63)) for i, n in enumerate(given)]
    if any(n <= 0 for n in sizes):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")  # in scikit-learn's words
    return sizes


def hidden_activations(estimator: Any, layers: int) -> list[activations.Activation]:
    """The activation of each hidden layer; ``"logistic"`` is scikit-learn's name for the sigmoid."""
    value = estimator.activation
    given = list(value) if checks.iterable(value) else [value] * layers
    if len(given) != layers:
        raise ValueError(f"activation must have {layers} items, one for each hidden layer, got {len(given)}")
    return [activations.get("sigmoid" if isinstance(a, str) and a == "logistic" else a) for a in given]


def regression_loss(value: str | losses.Loss) -> losses.Loss:
    """The loss of that name, in scikit-learn's definition where it has one."""
    return LOSSES[value]() if isinstance(value, str) else losses.get(value)


def schedule(estimator: Any) -> Any:
    """The initial learning rate of an optimizer, or its schedule.

    scikit-learn's own three names act as there: they apply to all solvers but Adam, and change the rate after epochs.
    """
    given, start = estimator.learning_rate, float(estimator.learning_rate_init)
    if isinstance(given, str) and given in OWN_SCHEDULES:
        return start
    if callable(given) and not isinstance(given, schedules.Schedule):
        return given
    found = copy.deepcopy(schedules.get(given))
    return found if found.learning_rate is not None else replace(found, learning_rate=start)


def optimizer(estimator: Any) -> optimizers.Optimizer:
    """The optimizer that `solver` specifies, with its settings from the other parameters; checked."""
    solver, momentum = estimator.solver, float(estimator.momentum)
    if isinstance(solver, optimizers.Optimizer):
        return optimizers.get(copy.deepcopy(solver))
    if solver == "lbfgs":
        return optimizers.LBFGS()
    common: dict[str, Any] = {"learning_rate": schedule(estimator), "clip_norm": estimator.clip_norm}
    if estimator.weight_decay is not None:
        common["weight_decay"] = float(estimator.weight_decay)
    if solver in ("sgd", "momentum", "nesterov"):
        nesterov = {"sgd": bool(estimator.nesterovs_momentum), "momentum": False, "nesterov": True}[solver]
        found = optimizers.SGD(momentum=min(momentum, 1 - 2**-52), nesterov=nesterov and momentum > 0, **common)
    elif solver in ("adam", "adamw"):
        betas = (float(estimator.beta_1), float(estimator.beta_2))
        kind = optimizers.Adam if solver == "adam" else optimizers.AdamW
        found = kind(betas=betas, eps=max(float(estimator.epsilon), 1e-30), **common)  # type: ignore[assignment]
    else:
        kind = optimizers.RMSprop if solver == "rmsprop" else optimizers.AdaGrad  # type: ignore[assignment]
        found = kind(eps=max(float(estimator.epsilon), 1e-30), **common)  # type: ignore[assignment]
    return optimizers.get(found)


def dropout_rates(estimator: Any, net: Any) -> tuple[float, ...]:
    """The dropout rate of the inputs of each layer; empty if all are 0."""
    return trainer_options.Options(dropout=estimator.dropout).dropout_rates(net)
