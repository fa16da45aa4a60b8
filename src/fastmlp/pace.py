"""How many steps one call into the engine covers: learnt from the calls before."""

from __future__ import annotations

SLICE_SECONDS = 0.05
FIRST_STEPS = 64  # before anything has been measured
SLOW = 1e9  # floating-point operations a second that any executor on any machine should reach


class Pace:
    """Learns from the steps that were run how many may be run next: at most twice as many as the last time.

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
    """

    def __init__(self, work: float) -> None:
        self.steps = max(1, min(FIRST_STEPS, int(SLICE_SECONDS * SLOW / max(work, 1.0))))

    def took(self, steps: int, seconds: float) -> None:
        """So many steps took so long."""
        fitting = int(SLICE_SECONDS * steps / max(seconds, 1e-9))
        self.steps = max(1, min(2 * self.steps, fitting))
