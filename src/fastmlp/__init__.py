"""fastmlp trains and runs multilayer perceptrons on the CPU: C kernels, composed by Python, the same bits every time.

The public names are here; everything else is reached through them.
"""

from . import activations, callbacks, datasets, initializers, losses, metrics, optimizers, schedules
from .diagnostics import diagnose
from .history import DivergenceError, History
from .lockstep import LockStepError
from .mlp import MLP
from .optimizers import LBFGS, SGD, AdaGrad, Adam, AdamW, RMSprop
from .restarts import fit_restarts
from .runtime import get_num_threads, set_num_threads, show_config, targets
from .stopping import EarlyStopping
from .trainer import Trainer

__version__ = "0.1.0"

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
