"""Warnings with the same text and module name as those of scikit-learn's estimators.

Scripts filter them by module, as scikit-learn's own examples do:
``filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")``. Their location is a line here, not the
caller's, so that they are shown as often as scikit-learn's.
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
    """Return the function with its own globals: a warning's module is taken from the globals of the issuing frame."""
    own = cast(FunctionType, function)
    named = {**own.__globals__, "__name__": MODULE}
    return cast(F, FunctionType(own.__code__, named, own.__name__, own.__defaults__))


@in_their_name
def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning under scikit-learn's module name."""
    warnings.warn(text, category, stacklevel=1)


@in_their_name
def iterations(found: Any, most: int) -> int:
    """Number of iterations of scipy's L-BFGS; scikit-learn's function warns, in its caller's name, if it failed."""
    return int(_check_optimize_result("lbfgs", found, most))
