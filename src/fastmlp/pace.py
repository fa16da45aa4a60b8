"""Pace: the number of steps per call into the engine, adapted to the duration of previous calls."""

from __future__ import annotations

import time
from collections.abc import Iterator

SLICE_SECONDS = 0.05
FIRST_STEPS = 64  # before anything has been measured
SLOW = 1e9  # floating-point operations per second; assumed before the first measurement, low for any machine


class Pace:
    """Calls of about 50 ms each, so that Python regains control often enough for Ctrl-C.

    The duration of a call sets the length of the next one, which is at most twice as long.

    Parameters
    ----------
    work : float
        Floating-point operations of a step, as the plan counts them.

    Examples
    --------
    >>> pace = Pace(work=1e9)
    >>> pace.steps
    1
    >>> pace.took(steps=1, seconds=0.001)
    >>> pace.steps
    2
    >>> [(begin, end) for begin, end in pace.slices(10, 13)][0]
    (10, 12)
    """

    def __init__(self, work: float) -> None:
        self.steps = max(1, min(FIRST_STEPS, int(SLICE_SECONDS * SLOW / max(work, 1.0))))

    def took(self, steps: int, seconds: float) -> None:
        """Adapt to a call of this many steps and this duration."""
        fitting = int(SLICE_SECONDS * steps / max(seconds, 1e-9))
        self.steps = max(1, min(2 * self.steps, fitting))

    def slices(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Begin and end of the calls that run steps ``first <= step < last``; run each before asking for the next."""
        while first < last:
            end, start = min(first + self.steps, last), time.perf_counter()
            yield first, end
            self.took(end - first, time.perf_counter() - start)
            first = end
