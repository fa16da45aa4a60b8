"""fastmlp trains and runs multilayer perceptrons on the CPU: C kernels composed by Python, bitwise reproducible.

The public names are here. A name's module is imported when the name is first used, so that ``import fastmlp`` takes
little longer than ``import numpy`` and never imports what a script does not use.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import activations, callbacks, datasets, initializers, losses, metrics, optimizers, schedules
    from . import sklearn as sklearn
    from .diagnostics import diagnose
    from .history import DivergenceError, History
    from .lockstep import LockStepError
    from .mlp import MLP
    from .optimizers import LBFGS, SGD, AdaGrad, Adam, AdamW, RMSprop
    from .restarts import fit_restarts
    from .runtime import show_config, targets
    from .sklearn import MLPClassifier as MLPClassifier
    from .sklearn import MLPRegressor as MLPRegressor
    from .stopping import EarlyStopping
    from .threads import get_num_threads, set_num_threads
    from .trainer import Trainer

__version__ = "0.1.0"

# Public names: those of modules, and those defined in a module.
_MODULES = {
    *("activations", "callbacks", "datasets", "initializers", "losses", "metrics", "optimizers", "schedules"),
    "sklearn",
}
_HOMES = {
    **dict.fromkeys(("LBFGS", "SGD", "AdaGrad", "Adam", "AdamW", "RMSprop"), "optimizers"),
    **dict.fromkeys(("show_config", "targets"), "runtime"),
    **dict.fromkeys(("get_num_threads", "set_num_threads"), "threads"),
    **dict.fromkeys(("DivergenceError", "History"), "history"),
    **dict.fromkeys(("MLPClassifier", "MLPRegressor"), "sklearn"),
    "EarlyStopping": "stopping",
    "LockStepError": "lockstep",
    "MLP": "mlp",
    "Trainer": "trainer",
    "diagnose": "diagnostics",
    "fit_restarts": "restarts",
}

__all__ = [
    "LBFGS",
    "MLP",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "DivergenceError",
    "EarlyStopping",
    "History",
    "LockStepError",
    "RMSprop",
    "Trainer",
    "activations",
    "callbacks",
    "datasets",
    "diagnose",
    "fit_restarts",
    "get_num_threads",
    "initializers",
    "losses",
    "metrics",
    "optimizers",
    "schedules",
    "set_num_threads",
    "show_config",
    "targets",
]


_ESTIMATORS = {"sklearn", "MLPClassifier", "MLPRegressor"}


def __getattr__(name: str) -> Any:
    if name in _ESTIMATORS and not _has_sklearn():
        raise _missing(name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_HOMES} - (set() if _has_sklearn() else _ESTIMATORS))


def _has_sklearn() -> bool:
    """Whether scikit-learn is installed; does not import it."""
    from importlib.util import find_spec

    return find_spec("sklearn") is not None


def _missing(name: str) -> AttributeError | ImportError:
    """Return the error for an estimator without scikit-learn: an AttributeError, which `hasattr` requires.

    ``from fastmlp import name`` would replace that by an ImportError without the reason, so it gets one with it.
    """
    why = "fastmlp's estimators need scikit-learn >= 1.6: pip install 'fastmlp[sklearn]'"
    importing = sys._getframe(2).f_code.co_name == "_handle_fromlist"
    return ImportError(why, name=__name__) if importing else AttributeError(why, name=name)
