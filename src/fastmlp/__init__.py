"""fastmlp trains and runs multilayer perceptrons on the CPU: C kernels, composed by Python, with the same bits every time.

The public names are here; everything else is reached through them.
"""

from . import activations, datasets, initializers, losses, optimizers, schedules
from .history import DivergenceError, History
from .lockstep import LockStepError
from .mlp import MLP
from .optimizers import SGD, AdaGrad, Adam, AdamW, RMSprop
from .runtime import get_num_threads, set_num_threads, show_config, targets
from .trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "DivergenceError",
    "History",
    "LockStepError",
    "RMSprop",
    "Trainer",
    "activations",
    "datasets",
    "get_num_threads",
    "initializers",
    "losses",
    "optimizers",
    "schedules",
    "set_num_threads",
    "show_config",
    "targets",
]
