"""Warnings as scikit-learn's estimators give them: the same words, in the name of the same module.

Scripts silence them by that name, as scikit-learn's own examples do:
``filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")``. And since their place is a line here, not
the caller's, they are shown as often as scikit-learn's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

from sklearn.utils.optimize import _check_optimize_result

MODULE = "sklearn.neural_network._multilayer_perceptron"
F = TypeVar("F", bound=Callable[..., Any])


def in_their_name(function: F) -> F:
    """This function with globals of its own: Python takes a warning's module from those of the frame that gives it."""
    own = cast(FunctionType, function)
    named = {**own.__globals__, "__name__": MODULE}
    return cast(F, FunctionType(own.__code__, named, own.__name__, own.__defaults__))


@in_their_name
def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn in these words."""
    warnings.warn(text, category, stacklevel=1)


@in_their_name
def iterations(found: Any, most: int) -> int:
    """How many iterations scipy's L-BFGS made; scikit-learn's function warns, as its caller, where it failed."""
    return int(_check_optimize_result("lbfgs", found, most))
