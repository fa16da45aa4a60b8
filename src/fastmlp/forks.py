"""Forks: functions called in a child process right after the fork."""

from __future__ import annotations

import os
from collections.abc import Callable

count = 0  # number of forks between the first process and this one


def in_child(function: Callable[[], None]) -> Callable[[], None]:
    """Register a function to be called in every child process right after the fork.

    Only the thread that forked exists in the child: a lock held by another thread would never be released.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=function)
    return function


@in_child
def _counted() -> None:
    global count
    count += 1
