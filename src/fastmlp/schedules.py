"""Learning-rate schedules: the rate of each step, as an array.

A schedule takes the place of an optimizer's learning rate: ``Adam(Cosine(warmup=100, learning_rate=3e-4))``. Its
formula gives a factor on that rate (by default the optimizer's default) for step s = 0, 1, ... of T planned steps.
Schedules that depend on T keep their last value after it.

Formulas are evaluated by Python's ``math``, step by step: NumPy's last bits differ on CPUs with AVX-512.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from . import checks
from .hyperparameters import check_number, hyperparameters, lookup

__all__ = [
    "Constant",
    "CosLog4",
    "Cosine",
    "Exponential",
    "InverseScaling",
    "OneCycle",
    "Polynomial",
    "ReduceOnPlateau",
    "Schedule",
    "Step",
    "get",
]


@hyperparameters
class Schedule:
    """Base class of schedules.

    Parameters
    ----------
    learning_rate : float or None, default None
        In (0, inf): the rate that the factors multiply. None: the optimizer's default rate.
    """

    needs_total: ClassVar[bool] = True  # whether the factor depends on the number of planned steps

    learning_rate: float | None = field(default=None, kw_only=True)

    def rates(self, base_lr: float, first_step: int, n: int, total_steps: int) -> NDArray[np.float64]:
        """Return the rates of steps ``first_step .. first_step + n - 1`` of ``total_steps``.

        Parameters
        ----------
        base_lr : float
            Used if the schedule's ``learning_rate`` is None.
        first_step, n, total_steps : int

        Returns
        -------
        float64 array of shape (n,)
        """
        base = base_lr if self.learning_rate is None else float(self.learning_rate)
        factors = (self.factor(step, total_steps) for step in range(first_step, first_step + n))
        return base * np.fromiter(factors, np.float64, n)

    def factor(self, step: int, total: int) -> float:
        """Return the rate of a step, as a multiple of ``learning_rate``."""
        raise NotImplementedError(f"{type(self).__name__} must define factor(step, total)")

    def check(self) -> None:
        """Raise TypeError or ValueError for an invalid parameter; the message gives the allowed range."""
        if self.learning_rate is not None:
            check_number(self, "learning_rate", "(0, inf)")


@hyperparameters
class Constant(Schedule):
    """1: the same rate throughout.

    Examples
    --------
    >>> Constant().rates(0.1, 0, 3, 100)
    array([0.1, 0.1, 0.1])
    """

    needs_total = False

    def factor(self, step: int, total: int) -> float:
        return 1.0


@hyperparameters
class Step(Schedule):
    """gamma^floor(s / step_size).

    Parameters
    ----------
    step_size : int
        In [1, inf): steps (not epochs) at each rate.
    gamma : float, default 0.1
        In (0, 1].

    Examples
    --------
    >>> Step(2, 0.5).rates(1.0, 0, 5, 100)
    array([1.  , 1.  , 0.5 , 0.5 , 0.25])
    """

    needs_total = False

    step_size: int
    gamma: float = 0.1

    def factor(self, step: int, total: int) -> float:
        return math.pow(self.gamma, step // int(self.step_size))

    def check(self) -> None:
        super().check()
        check_number(self, "step_size", "[1, inf)", whole=True)
        check_number(self, "gamma", "(0, 1]")


@hyperparameters
class Exponential(Schedule):
    """gamma^s.

    Parameters
    ----------
    gamma : float
        In (0, 1]: factor per step, not per epoch, so usually close to 1.

    Examples
    --------
    >>> Exponential(0.5).rates(1.0, 1, 3, 100)
    array([0.5  , 0.25 , 0.125])
    """

    needs_total = False

    gamma: float

    def factor(self, step: int, total: int) -> float:
        return math.pow(self.gamma, step)

    def check(self) -> None:
        super().check()
        check_number(self, "gamma", "(0, 1]")


@hyperparameters
class InverseScaling(Schedule):
    """1 / (s + 1)^power.

    Parameters
    ----------
    power : float, default 0.5
        In (0, inf).

    Examples
    --------
    >>> InverseScaling(1.0).rates(1.0, 0, 4, 100)[1::2]
    array([0.5 , 0.25])
    """

    needs_total = False

    power: float = 0.5

    def factor(self, step: int, total: int) -> float:
        try:
            return 1 / math.pow(step + 1, self.power)
        except OverflowError:
            return 0.0

    def check(self) -> None:
        super().check()
        check_number(self, "power", "(0, inf)")


@hyperparameters
class Polynomial(Schedule):
    """end + (1 - end) (1 - s / T)^power; power 1 is linear decay.

    Parameters
    ----------
    power : float, default 1.0
        In (0, inf).
    end : float, default 0.0
        In [0, 1]: the rate at step T, as a fraction of the first rate.

    Examples
    --------
    >>> Polynomial().rates(1.0, 0, 3, 4)
    array([1.  , 0.75, 0.5 ])
    """

    power: float = 1.0
    end: float = 0.0

    def factor(self, step: int, total: int) -> float:
        return self.end + (1 - self.end) * math.pow(1 - fraction(step, total), self.power)

    def check(self) -> None:
        super().check()
        check_number(self, "power", "(0, inf)")
        check_number(self, "end", "[0, 1]")


@hyperparameters
class Cosine(Schedule):
    """(s + 1) / W for s < W (warm-up), then end + (1 - end) (1 + cos(pi u)) / 2 with u from 0 to 1 in each cycle.

    u = frac((restarts + 1) (s - W) / (T - W)): the cycles have equal length. Loshchilov and Hutter, ICLR 2017.

    Parameters
    ----------
    warmup : int or float, default 0
        In [0, inf): W in steps, or as a fraction of T if less than 1.
    restarts : int, default 0
        In [0, inf).
    end : float, default 0.0
        In [0, 1]: the rate at the end of each cycle, as a fraction of ``learning_rate``.

    Examples
    --------
    >>> Cosine(warmup=2).rates(1.0, 0, 5, 6)
    array([0.5       , 1.        , 1.        , 0.85355339, 0.5       ])
    """

    warmup: float = 0
    restarts: int = 0
    end: float = 0.0

    def factor(self, step: int, total: int) -> float:
        warmup = int(self.warmup * total if self.warmup < 1 else self.warmup)
        if step < warmup:
            return (step + 1) / warmup
        rounds = int(self.restarts) + 1
        cycles = rounds * fraction(step - warmup, total - warmup)
        u = cycles - math.floor(cycles) if cycles < rounds else 1.0
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * u)) / 2

    def check(self) -> None:
        super().check()
        check_number(self, "warmup", "[0, inf)")
        check_number(self, "restarts", "[0, inf)", whole=True)
        check_number(self, "end", "[0, 1]")


@hyperparameters
class OneCycle(Schedule):
    """Rise from 1 / start_divisor to 1, then fall to 1 / (start_divisor end_divisor), each along half a cosine.

    The rise takes the fraction ``warmup`` of the steps; ``learning_rate`` is the maximum. Agrees with PyTorch's
    OneCycleLR without momentum cycling if warmup times steps exceeds 1. Smith and Topin, arXiv:1708.07120.

    Parameters
    ----------
    warmup : float, default 0.3
        In (0, 1).
    start_divisor : float, default 25.0
        In [1, inf).
    end_divisor : float, default 1e4
        In [1, inf).

    Examples
    --------
    >>> OneCycle(warmup=0.4).rates(1.0, 0, 4, 10).round(3)
    array([0.04, 0.28, 0.76, 1.  ])
    """

    warmup: float = 0.3
    start_divisor: float = 25.0
    end_divisor: float = 1e4

    def factor(self, step: int, total: int) -> float:
        start = 1 / self.start_divisor
        top = max(self.warmup * total - 1, 0.0)  # the step, possibly fractional, at which the rate is largest
        if step < top:
            low, u = start, 1 - step / top
        else:
            low, u = start / self.end_divisor, fraction(step - top, total - 1 - top)
        return low + (1 - low) * (1 + math.cos(math.pi * u)) / 2

    def check(self) -> None:
        super().check()
        check_number(self, "warmup", "(0, 1)")
        check_number(self, "start_divisor", "[1, inf)")
        check_number(self, "end_divisor", "[1, inf)")


@hyperparameters
class CosLog4(Schedule):
    """(1 - cos(2 pi log2(1 + 15 t))) / 2 with t = s / T: four cycles, each twice as long as the one before.

    Starts and ends at 0. Holzmüller, Grinsztajn and Steinwart, arXiv:2407.04491 (RealMLP).

    Examples
    --------
    >>> CosLog4().rates(1.0, 0, 4, 15).round(3)
    array([0.  , 0.  , 0.93, 0.  ])
    """

    def factor(self, step: int, total: int) -> float:
        return (1 - math.cos(2 * math.pi * math.log2(1 + 15 * fraction(step, total)))) / 2


@dataclass
class Progress:
    """State of a ReduceOnPlateau."""

    factor: float = 1.0
    best: float = math.inf
    waited: int = 0


@hyperparameters
class ReduceOnPlateau(Schedule):
    """Multiply the rate by ``factor_by`` once a metric has not improved for more than ``patience`` epochs.

    `fit` calls ``observe`` after each epoch; ``rates`` returns the current rate. In a loop over `Trainer.step`, call
    ``trainer.optimizer.learning_rate.observe(loss)``: the trainer holds a copy of the schedule.

    In `fit` the metric is the validation loss, or the training loss if there are no validation rows; with mode "max",
    the first of ``metrics``. In estimators it is the training loss; with mode "max", the validation score.

    Parameters
    ----------
    factor_by : float, default 0.1
        In (0, 1).
    patience : int, default 10
        In [0, inf): number of epochs without improvement that are tolerated.
    min_delta : float, default 0.0
        In [0, inf): an improvement must exceed this to count.
    mode : {"min", "max"}, default "min"
        Whether the metric should fall (a loss) or rise (a score).
    lowest : float, default 0.0
        In [0, 1]: the factor does not fall below it.

    Examples
    --------
    >>> plateau = ReduceOnPlateau(0.5, patience=1)
    >>> [plateau.observe(loss) for loss in (3.0, 2.0, 2.0, 2.0)]
    [1.0, 1.0, 1.0, 0.5]
    >>> plateau.rates(0.1, 0, 2, 100)
    array([0.05, 0.05])
    """

    needs_total = False

    factor_by: float = 0.1
    patience: int = 10
    min_delta: float = 0.0
    mode: str = "min"
    lowest: float = 0.0
    progress: Progress = field(default_factory=Progress, init=False, repr=False, compare=False)

    def observe(self, metric: float) -> float:
        """Record the metric of an epoch and return the new factor on the rate; NaN counts as no improvement."""
        progress, value = self.progress, metric if self.mode == "min" else -metric
        if value < progress.best - self.min_delta:
            progress.best, progress.waited = value, 0
        else:
            progress.waited += 1
        if progress.waited > self.patience:
            progress.factor, progress.waited = max(progress.factor * self.factor_by, self.lowest), 0
        return progress.factor

    def reset(self) -> None:
        """Reset the state before another training run."""
        self.progress.factor, self.progress.best, self.progress.waited = 1.0, math.inf, 0

    def factor(self, step: int, total: int) -> float:
        return self.progress.factor

    def check(self) -> None:
        super().check()
        check_number(self, "factor_by", "(0, 1)")
        check_number(self, "patience", "[0, inf)", whole=True)
        check_number(self, "min_delta", "[0, inf)")
        check_number(self, "lowest", "[0, 1]")
        checks.one_of("ReduceOnPlateau: mode", self.mode, "min", "max")


def plateau(schedule: object, has_metric: bool, needs: str) -> ReduceOnPlateau | None:
    """The schedule if it is a ReduceOnPlateau, else None; ValueError, naming what it `needs`, without its metric."""
    if not isinstance(schedule, ReduceOnPlateau):
        return None
    if schedule.mode == "max" and not has_metric:
        raise ValueError(f"ReduceOnPlateau: mode 'max' needs {needs}")
    return schedule


def fraction(step: float, total: float) -> float:
    """step / total, at most 1."""
    return min(step / total, 1.0) if total > 0 else 1.0


KNOWN: dict[str, Callable[[], Schedule]] = {
    "constant": Constant,
    "inverse_scaling": InverseScaling,
    "polynomial": Polynomial,
    "linear": Polynomial,
    "cosine": Cosine,
    "one_cycle": OneCycle,
    "coslog4": CosLog4,
    "reduce_on_plateau": ReduceOnPlateau,
}


def get(schedule: str | Schedule) -> Schedule:
    """Return a new schedule with this name, or the given object, checked.

    Schedules with required parameters have no name.

    Raises
    ------
    ValueError
        For an unknown name (the message lists the known ones) or a parameter out of range.
    TypeError
        For anything else.

    Examples
    --------
    >>> get("linear")
    Polynomial(learning_rate=None, power=1.0, end=0.0)
    """
    return lookup(schedule, KNOWN, Schedule)
