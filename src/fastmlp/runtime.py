"""Selection of the executor that runs a plan, and of its target.

Environment variables set the defaults: ``FASTMLP_BACKEND`` (``engine`` or ``reference``), ``FASTMLP_TARGET`` (a name in
`targets`), and ``FASTMLP_CHECK``, which runs both executors in lock step if it is ``1``, ``true``, ``yes`` or ``on``
(off: ``0``, ``false``, ``no``, ``off`` or empty).
"""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .native import _engine, why_not
from .plan import Plan
from .threads import get_num_threads

BACKENDS = ("engine", "reference")
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")  # allowed values of FASTMLP_CHECK; case is ignored
NO_ENGINE = (
    "fastmlp's compiled engine {what}, so everything runs on the NumPy reference, many times slower. To build it, "
    "install a C compiler (gcc or clang) and reinstall without FASTMLP_PURE_PYTHON: "
    "pip install --force-reinstall --no-cache-dir --no-binary fastmlp fastmlp"
)

_warned = False


class Executor(Protocol):
    """Runs a plan: the compiled engine, the reference, or both in lock step."""

    plan: Plan

    def bind(self, i: int, data: NDArray[Any]) -> None:
        """Set the array that op `i`, a gather or scatter, reads or writes."""

    def release(self) -> None:
        """Drop the references to all bound arrays."""

    def run(
        self,
        order: NDArray[np.int64] | None,
        offsets: NDArray[np.int64],
        lr: NDArray[np.float64] | None = None,
        *,
        weight: NDArray[np.float64] | None = None,
        first_number: int = 0,
        first_op: int = 0,
        last_op: int | None = None,
        n_threads: int = 1,
    ) -> NDArray[np.float64]:
        """Run steps; see :meth:`fastmlp.reference.ReferenceExecutor.run`."""


def executor(plan: Plan, backend: str | None = None) -> Executor:
    """The executor for a plan, by `backend`, else FASTMLP_BACKEND, else the engine if it is built."""
    from .lockstep import LockStepExecutor
    from .reference import ReferenceExecutor

    name = check_backend(backend)
    if name == "reference":
        return ReferenceExecutor(plan)
    if _in_lock_step():
        return LockStepExecutor(plan, _engine.Engine(plan, target()))
    return _engine.Engine(plan, target() if os.environ.get("FASTMLP_TARGET") else None)


def _in_lock_step() -> bool:
    """Whether FASTMLP_CHECK is set; ValueError for an unknown value."""
    text = os.environ.get("FASTMLP_CHECK", "").strip().lower()
    if text not in (*YES, *NO, ""):
        raise ValueError(f"FASTMLP_CHECK must be one of {', '.join((*YES, *NO))}, got {text[:200]!r}")
    return text in YES


def has_short_way(runner: Executor) -> bool:
    """Whether the engine runs this, and under a GIL: without one, another thread could be using the same buffers."""
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    return bool(locked and _engine and type(runner) is _engine.Engine)


def row_predictor(
    one: Executor | None, shared: Plan | None = None, few: Executor | None = None, most: int | None = None
) -> Callable[[object], NDArray[Any] | None]:
    """A fast path through the engines of prediction plans, for one row and for a few rows.

    one: None if single rows, too, go through `few`. shared: a plan for one row and two workers, or None if that is no
    faster. most: the greatest number of rows in a call.
    """
    assert one is None or isinstance(one, _engine.Engine)
    assert few is None or isinstance(few, _engine.Engine)
    by_two = _engine.Engine(shared, one.target) if one and shared else None
    return _engine.RowPredictor(one, by_two, get_num_threads, few, most)


def quick_step(
    runner: Executor | None,
    X: object,
    y: object,
    lr: float,
    number: int,
    kept: tuple[NDArray[Any], NDArray[Any]],
    target_range: tuple[float, float],
) -> tuple[float, bool] | None:
    """The loss of a training step on a fast path, and whether all is finite; None if the full path is needed.

    kept: the parameters, and memory for a copy of them during the step.
    """
    if not _engine or type(runner) is not _engine.Engine:
        return None
    return _engine.quick_step(runner, X, y, lr, number, *kept, *target_range, runner.plan.n_threads)


def check_backend(backend: str | None) -> str:
    """The backend to use; ValueError for an unknown name. Warns once, with RuntimeWarning, if the engine is missing."""
    global _warned
    name = (os.environ.get("FASTMLP_BACKEND") or "engine") if backend is None else backend
    if not isinstance(name, str) or name not in BACKENDS:
        origin = "backend" if backend is not None else "FASTMLP_BACKEND"
        raise ValueError(f"{origin} must be one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "engine" and _engine is None:
        if not _warned:
            _warned = True
            what = f"cannot be loaded ({why_not})" if why_not else "is missing"
            warnings.warn(NO_ENGINE.format(what=what), RuntimeWarning, stacklevel=level_of_caller())
        return "reference"
    return name


def level_of_caller() -> int:
    """The stacklevel, for `warnings.warn` in the calling function, of the first frame outside this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    return level


def targets() -> tuple[str, ...]:
    """Names of the compiled targets this CPU can run, best first; empty without the compiled engine.

    >>> import fastmlp
    >>> isinstance(fastmlp.targets(), tuple)
    True
    """
    return _engine.targets() if _engine else ()


def target() -> str | None:
    """FASTMLP_TARGET, else the best target here (which tiny networks need not use); ValueError if it cannot run."""
    if _engine is None:
        return None
    name = os.environ.get("FASTMLP_TARGET") or targets()[0]
    if name not in targets():
        known = _engine.targets(supported=False)
        why = "is not supported by this CPU" if name in known else "is unknown"
        raise ValueError(
            f"FASTMLP_TARGET={name!r} {why}; supported here: {', '.join(targets())}; compiled: {', '.join(known)}"
        )
    return name


def show_config() -> str:
    """Return versions, backend, targets and number of threads, as text."""
    from . import __version__

    compiled = _engine.targets(supported=False) if _engine else ()
    check = _in_lock_step()
    missing = f"cannot be loaded: {why_not}" if why_not else "is not built"
    lines = {
        "fastmlp": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "backend": ("lock step" if check else "engine") if _backend_name() == "engine" else "reference",
        "compiler": _engine.COMPILER if _engine else f"none: the engine {missing}",
        "targets compiled": ", ".join(compiled) or "none",
        "targets supported": ", ".join(targets()) or "none",
        "target in use": target() or "none",
        "threads": str(get_num_threads()),
    }
    return "\n".join(f"{name + ':':<19} {value}" for name, value in lines.items())


def _backend_name() -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return check_backend(None)


if sys.byteorder != "little":
    raise ImportError("fastmlp needs a little-endian machine")
