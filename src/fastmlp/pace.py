"""How many steps one call into the engine covers, and how many workers share them: learnt from the calls before."""

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


class Workers:
    """All workers, or one alone where that is faster.

    How fast two cores exchange their results was seen to change fivefold within minutes on a shared machine; on small
    steps it decides. So the other choice is tried now and then, on a short slice. What disturbs a call makes it longer,
    never shorter, so each choice is judged by the best of its latest calls. The results do not depend on it.

    Parameters
    ----------
    most : int
        Workers there are.
    work : float
        Floating-point operations of a step; from `LARGE` on, all workers are used without a trial.

    Examples
    --------
    >>> workers = Workers(most=2, work=1e6)
    >>> for seconds in (3.0, 3.0, 2.0, 2.0):
    ...     workers.took(1, seconds)
    >>> workers.number
    1
    """

    LARGE = 2e7
    SOON, LATE = 4, 32  # calls from one trial to the next: more and more, while they change nothing
    LATEST = 3

    def __init__(self, most: int, work: float) -> None:
        self.most = most
        self._choices = (most, 1) if most > 1 and work < self.LARGE else (most,)
        self._seconds: dict[int, list[float]] = {}  # of a step in the latest calls, by number of workers
        self._calls, self._next_trial, self._period = 0, 2, self.SOON  # the very first call also warms up

    @property
    def trial(self) -> bool:
        """Whether the next call is of a trial, to be kept short: one to warm up, one that counts."""
        return len(self._choices) > 1 and 0 <= self._calls - self._next_trial < 2

    @property
    def best(self) -> int:
        """The choice that was faster; all workers until both were tried."""
        if len(self._seconds) < len(self._choices):
            return self.most
        return min(self._choices, key=lambda n: min(self._seconds[n]))

    @property
    def number(self) -> int:
        """Workers for the next call."""
        return self.most + 1 - self.best if self.trial else self.best

    def took(self, steps: int, seconds: float) -> None:
        """So many steps, by `number` workers, took so long."""
        number, best, trial = self.number, self.best, self.trial
        self._calls += 1
        if trial and self.trial:
            return
        self._seconds[number] = [*self._seconds.get(number, [])[1 - self.LATEST :], seconds / steps]
        if self.best != best or trial:
            self._period = self.SOON if self.best != best else min(2 * self._period, self.LATE)
            self._next_trial = self._calls + self._period - 1
