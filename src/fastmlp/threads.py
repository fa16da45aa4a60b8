"""The number of threads the engine may use: set for the process, for a block of code, or by the environment.

The default is ``FASTMLP_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the number of CPUs this process may use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import numpy as np

from .native import _engine

MAX_WORKERS = 256  # as in csrc/threads.h; memory is allocated for this many

_num_threads: int | None = None
_limit: ContextVar[int | None] = ContextVar("_limit", default=None)  # of one thread; overrides the process's


def get_num_threads() -> int:
    """Return the number of workers for training and large predictions, at most 256. Results do not depend on it."""
    return min(_limit.get() or _num_threads or default_num_threads(), MAX_WORKERS)


@contextmanager
def limited_threads(n: int) -> Iterator[None]:
    """Use `n` workers within this block, in this thread: for training several networks in parallel."""
    before, token = get_num_threads(), _limit.set(n)
    changed = get_num_threads() != before
    try:
        if changed:
            _tell_engine()
        yield
    finally:
        _limit.reset(token)
        if changed:
            _tell_engine()


def set_num_threads(n: int | None) -> None:
    """Use at most `n` workers from now on, in this process; None returns to the default.

    The CPUs this process may use are counted once; None counts them again, for example after a change of affinity.

    Raises
    ------
    TypeError, ValueError
        If `n` is not a whole number of at least 1.

    Examples
    --------
    >>> import fastmlp
    >>> fastmlp.set_num_threads(1)
    >>> fastmlp.get_num_threads()
    1
    >>> fastmlp.set_num_threads(None)
    """
    global _num_threads
    if n is not None:
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
            raise TypeError(f"n must be a whole number of threads, got {n!r}")
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        n = int(n)
    else:
        _usable_cpus.cache_clear()
    _num_threads = n
    _tell_engine()


def _tell_engine() -> None:
    """Tell row predictors that the thread limit has changed."""
    if _engine:
        _engine.reconsider_partners()


def default_num_threads() -> int:
    """FASTMLP_NUM_THREADS, else OMP_NUM_THREADS, else the number of CPUs this process may use."""
    for name in ("FASTMLP_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").split(",")[0].strip()
        if not text:
            continue
        try:
            number = int(text) if text.isdecimal() else 0
        except ValueError:  # Python does not parse integers of more than 4300 digits
            number = 0
        if number >= 1:
            return number
        if name == "FASTMLP_NUM_THREADS":
            raise ValueError(f"FASTMLP_NUM_THREADS must be a whole number of at least 1, got {text[:200]!r}")
    return _usable_cpus()


@cache  # counting takes longer than predicting a row
def _usable_cpus() -> int:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:  # a container's share of the CPUs: "max 100000" or "150000 100000" (microseconds)
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        return cpus if quota == "max" else max(1, min(cpus, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        return cpus
