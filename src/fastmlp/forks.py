"""Forks: what a child process does before anything else."""

from __future__ import annotations

import os
from collections.abc import Callable

count = 0  # forks between the first process and this one


def in_child(function: Callable[[], None]) -> Callable[[], None]:
    """Call a function in every child process right after the fork.

    Of the parent's threads only the one that forked exists there: a lock that another one held is never released.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=function)
    return function


@in_child
def _counted() -> None:
    global count
    count += 1
