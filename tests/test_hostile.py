"""Every argument of the public names, given absurd values: the call works, or the error names the argument.

Users depend on the message, so an error that NumPy or Python raises from inside counts as a fault, and so does an
OverflowError. Arguments that cost time or memory (epochs, sizes) get small numbers only.
"""

import inspect
import re
import warnings
from datetime import date
from fractions import Fraction

import numpy as np
import pytest

import fastmlp
from fastmlp import MLP, EarlyStopping, Trainer, activations, datasets, initializers, losses, metrics, schedules


class Silent:
    """Has an invalid length."""

    def __len__(self):
        return -1


HUGE = [2**31, 2**63, 2**64, 10**400]
HOSTILE = [
    *(None, True, False, 0, -1, 1, 3, -(10**400), Fraction(10**400), *HUGE),
    *(0.0, -0.0, 0.5, 1.5, -0.5, 1e-320, 1e39, 1e308, np.nan, np.inf, -np.inf, 1j),
    *("", "x", "relu", "é\0", b"x", [], (), {}, set(), range(3), slice(3), ..., date(2020, 1, 1), object(), Silent()),
    *([None], ["x"], [1], [1, 2], [0.5], [np.nan], [10**400], [-1], [[1, 2], [3]], [[]], iter([])),
    *({"a": 1}, {0: 1.0}, {0: -1.0}, {0: np.nan, 1: 1, 2: 1}),
    *(np.float16(0.5), np.int8(3), np.bool_(True), np.array(3), np.array(0.5), np.array([1, 2])),
    *(np.array([[0.1, 0.2]]), np.array([]), np.zeros((0, 2)), np.zeros((3, 0)), np.zeros((2, 2, 2))),
    *(np.array(["a"]), np.array([None])),
    *(np.array([1j]), np.zeros(3, "M8[s]"), np.zeros((1, 2), "M8[s]"), np.zeros(3, [("a", "f4")])),
    *(np.full((6, 2), np.nan), np.full((6, 2), 1e300)),
    *(np.full(6, 2**63, "u8"), np.arange(6) - 3, np.zeros((6, 3)), np.full(6, 0.5), np.zeros((6, 2), ">f4")),
]
ROWS, CLASSES = 6, 3
X = np.random.default_rng(0).standard_normal((ROWS, 2))
Y = np.arange(ROWS) % CLASSES
VALUES = np.random.default_rng(1).random((ROWS, CLASSES))
TAKES_LONG = {"epochs", "restarts", "n_jobs", "batch_size", "history", "max_iter"}  # with huge numbers
ALSO_NAMED = {"early_stopping": "validation", "pairs": "weights", "batch_size": "a buffer of"}  # in messages


def net(**settings):
    return MLP([2, 4, CLASSES], **settings)


def make(function, **always):
    """A call of `function` with these arguments, and others over them."""
    return inspect.signature(function), lambda **more: function(**{**always, **more})


def trained_with(kind, use, **always):
    """A call that makes an object of this kind and trains with it."""
    return inspect.signature(kind), lambda **more: use(kind(**{**always, **more}))


def kinds(module, base):
    return [k for _, k in sorted(inspect.getmembers(module, inspect.isclass)) if issubclass(k, base) and k is not base]


def on_classes(optimizer="sgd", **settings):
    net().fit(X, Y, epochs=2, validation=(X, Y), optimizer=optimizer, **settings)


def as_loss(loss):
    MLP([2, 4, CLASSES], loss=loss).fit(X, Y if loss.name == "cross_entropy" else VALUES, epochs=2)


def fit_estimator(estimator):
    warnings.filterwarnings("ignore", "Stochastic Optimizer|lbfgs failed|overflow")  # three epochs, or too large steps
    try:
        estimator.fit(np.tile(X, (4, 1)), np.tile(Y, 4))
    except ValueError as error:
        if "Solver produced non-finite parameter weights" not in str(error):  # scikit-learn's DivergenceError
            raise


def estimators():
    """Those for scikit-learn, each solver with one of them."""
    try:
        from fastmlp import sklearn
    except ImportError:
        return {}
    settings = {"hidden_layer_sizes": (3,), "max_iter": 3, "random_state": 0}
    return {
        f"{name} {solver}": trained_with(getattr(sklearn, name), fit_estimator, solver=solver, **settings)
        for name, solver in [("MLPClassifier", "sgd"), ("MLPRegressor", "adam"), ("MLPClassifier", "lbfgs")]
    }


NEEDED = {"Step": {"step_size": 2}, "Exponential": {"gamma": 0.9}}
OPTIMIZERS = [fastmlp.SGD, fastmlp.Adam, fastmlp.AdamW, fastmlp.RMSprop, fastmlp.AdaGrad, fastmlp.LBFGS]
CALLS = {
    "MLP": make(MLP, sizes=[2, 4, CLASSES]),
    "Trainer": make(Trainer, net=net()),
    "step": make(Trainer(net()).step, X=X, y=Y),
    "fit": make(Trainer(net()).fit, X=X, y=Y, epochs=2),
    "evaluate": make(net().evaluate, X=X, y=Y),
    "predict": make(net().predict, X=X),
    "activations": make(net().activations, X=X),
    "loss_and_gradients": make(net().loss_and_gradients, X=X, y=Y),
    "input_gradients": make(net().input_gradients, X=X),
    "check_gradients": make(net().check_gradients, X=X, y=Y),
    "loss_surface": make(net().loss_surface, X=X, y=Y, steps=2),
    "set_weights": make(net().set_weights, pairs=[(np.zeros((2, 4)), None), (np.zeros((4, CLASSES)), None)]),
    "diagnose": make(fastmlp.diagnose, net=net(), X=X, y=Y),
    "fit_restarts": make(fastmlp.fit_restarts, make_net=lambda seed: net(seed=seed), X=X, y=Y, restarts=2),
    "spirals": make(datasets.spirals, n=5),
    "constant": make(initializers.constant, value=1.0),
    "metrics.get": make(metrics.get, metric="r2"),
    "EarlyStopping": trained_with(EarlyStopping, lambda stop: on_classes(early_stopping=stop)),
    **{kind.__name__: trained_with(kind, on_classes) for kind in OPTIMIZERS},
    **{
        f"schedule {kind.__name__}": trained_with(
            kind, lambda schedule: on_classes(fastmlp.SGD(schedule)), **NEEDED.get(kind.__name__, {})
        )
        for kind in kinds(schedules, schedules.Schedule)
    },
    **{f"loss {kind.__name__}": trained_with(kind, as_loss) for kind in kinds(losses, losses.Loss)},
    **{
        f"activation {kind.__name__}": trained_with(kind, lambda act: net(activation=act))
        for kind in kinds(activations, activations.Activation)
        if kind is not activations.Softmax
    },
    **{
        f"metric {name}": make(getattr(metrics, name), y=Y % 2, **{other: Y % 2})
        for name, other in [
            *((name, "prediction") for name in ("accuracy", "balanced_accuracy", "r2", "mae", "rmse")),
            ("roc_auc", "score"),
        ]
    },
    **estimators(),
}
ARGUMENTS = [
    (name, argument)
    for name, (signature, _) in CALLS.items()
    for argument, parameter in signature.parameters.items()
    if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
]


def is_huge(value):
    return isinstance(value, int) and abs(value) >= min(HUGE)


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_a_strange_argument_works_or_is_named(name, argument):
    call = CALLS[name][1]
    call()
    faults = []
    for value in HOSTILE:
        if is_huge(value) and argument in TAKES_LONG:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                call(**{argument: value})
        except fastmlp.DivergenceError:
            pass
        except (TypeError, ValueError, ImportError) as error:  # the last for an extra that is not installed
            names = argument, ALSO_NAMED.get(argument, argument)
            if not any(re.search(rf"\b{re.escape(known)}\b", str(error)) for known in names):  # "y" is in any message
                faults.append(f"{type(value).__name__}: {type(error).__name__}: {error}")
        except Exception as error:
            faults.append(f"{type(value).__name__}: {type(error).__name__}: {error}")
    assert not faults, "\n".join(fault[:300] for fault in faults)


def test_a_number_that_cannot_be_printed_is_refused_like_others():
    for call, message in [
        (lambda: fastmlp.SGD(10**5000).check(), "SGD: learning_rate must be a number in"),
        (lambda: net(seed=10**5000), "seed must be between 0 and"),
        (lambda: net().fit([[0, 0]], [0], epochs=10**400), "epochs must be at most 9223372036854775807, got 1000"),
        (lambda: fastmlp.Trainer(net(), total_steps=10**5000), "total_steps must be at most 9223372036854775807, got"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
