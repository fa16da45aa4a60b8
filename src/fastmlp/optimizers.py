"""Optimizers: the update rules of the parameters, defined as in PyTorch.

Below, G = g + l2 w + l1 sign(w) is the gradient g, after clipping, with its penalties; lr is the learning rate of the
step; t counts steps from 1. ``l2`` is part of the loss (l2 / 2 |w|^2), so momentum and scaling act on it;
``weight_decay`` is decoupled from the loss: w -= lr weight_decay w, whatever the gradient. For plain SGD the two are
the same. Biases are neither penalised nor decayed unless ``decay_biases`` is set; in PyTorch they are. Loshchilov and
Hutter, "Decoupled weight decay regularization", ICLR 2019.

Every 16 steps, optimizer state below the smallest normal number (1e-38, in float64 2e-308), such as that of a dead
unit, is set to zero (Adam's v only where m is zero): many processors take a hundred times as long for such numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, field
from numbers import Real
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .hyperparameters import check_bool, check_number, hyperparameters, lookup
from .plan import Rule
from .schedules import Schedule

__all__ = ["LBFGS", "SGD", "AdaGrad", "Adam", "AdamW", "Optimizer", "RMSprop", "get"]

LearningRate: TypeAlias = float | Schedule | Callable[[int], float]

# An eps that float32 rounds to zero would give 0 / 0 for parameters whose gradients are all zero.
EPS = "[1e-30, inf)"


@hyperparameters
class Optimizer:
    """Base class of optimizers.

    Parameters
    ----------
    learning_rate : float, Schedule or callable
        In (0, inf); or a schedule; or a function from the step number, starting at 0, to the rate.
    l1, l2 : float, default 0.0
        In [0, inf). Penalties l1 |w| and l2 / 2 w^2 in the loss.
    weight_decay : float, default 0.0
        In [0, inf). Decoupled decay.
    decay_biases : bool, default False
        Whether ``l1``, ``l2`` and ``weight_decay`` act on biases as well.
    weight_lr_factor, bias_lr_factor : float, default 1.0
        In [0, inf). Factors on the learning rate of weights and of biases.
    clip_norm : float or None, default None
        In (0, inf). Gradients are scaled down so that their joint norm is at most this.
    clip_value : float or None, default None
        In (0, inf). After that, each element of a gradient is clipped to +-clip_value.
    """

    kind: ClassVar[str]
    default_rate: ClassVar[float] = 0.01

    learning_rate: LearningRate = 0.01
    _: KW_ONLY
    l1: float = 0.0
    l2: float = 0.0
    weight_decay: float = 0.0
    decay_biases: bool = False
    weight_lr_factor: float = 1.0
    bias_lr_factor: float = 1.0
    clip_norm: float | None = None
    clip_value: float | None = None

    @property
    def n_states(self) -> int:
        """Number of state values per parameter: 0, 1 or 2."""
        return 1

    def rule(self, layer_factor: float = 1.0) -> Rule:
        """Return the numbers that the kernels need for a layer whose learning rate is multiplied by `layer_factor`."""
        return Rule(
            decay_bias=self.decay_biases,
            l1=float(self.l1),
            l2=float(self.l2),
            decay=float(self.weight_decay),
            lr_weight=float(self.weight_lr_factor) * layer_factor,
            lr_bias=float(self.bias_lr_factor) * layer_factor,
            clip_value=float(self.clip_value or 0.0),
            clip_norm=float(self.clip_norm or 0.0),
        )

    def rates(self, first_step: int, n_steps: int, total_steps: int) -> NDArray[np.float64]:
        """Return the learning rates of steps ``first_step .. first_step + n_steps - 1`` of ``total_steps``.

        Returns
        -------
        float64 array of shape (n_steps,)

        Raises
        ------
        ValueError
            If a schedule or callable returns a rate that is negative or not finite.
        """
        lr = self.learning_rate
        if isinstance(lr, Schedule):
            rates = lr.rates(self.default_rate, first_step, n_steps, total_steps)
        elif callable(lr):
            rates = np.array([self._called(lr, s) for s in range(first_step, first_step + n_steps)], dtype=np.float64)
        else:
            rates = np.empty(n_steps)
            rates.fill(lr)
            return rates
        wrong = np.flatnonzero(~(np.isfinite(rates) & (rates >= 0)))
        if wrong.size:
            where = f"got {rates[wrong[0]]} at step {first_step + wrong[0]}"
            raise ValueError(f"{type(self).__name__}: learning_rate must return rates in [0, inf), {where}")
        return rates

    def _called(self, lr: Callable[[int], float], step: int) -> float:
        rate = lr(step)
        try:
            return float(rate)
        except (TypeError, ValueError):
            what = f"learning_rate must return numbers, got {rate!r} at step {step}"
            raise TypeError(f"{type(self).__name__}: {what}") from None

    def check(self) -> None:
        """Raise TypeError or ValueError for an invalid parameter; the message gives the allowed range."""
        lr: object = self.learning_rate
        if isinstance(lr, Schedule):
            lr.check()
        elif isinstance(lr, Real):
            check_number(self, "learning_rate", "(0, inf)")
        elif not callable(lr):
            raise TypeError(
                f"{type(self).__name__}: learning_rate must be a number in (0, inf), a Schedule or a function of the"
                f" step, got {lr!r}"
            )
        for argument in ("l1", "l2", "weight_decay", "weight_lr_factor", "bias_lr_factor"):
            check_number(self, argument, "[0, inf)")
        check_bool(self, "decay_biases")
        for argument in ("clip_norm", "clip_value"):
            if getattr(self, argument) is not None:
                check_number(self, argument, "(0, inf)")


@hyperparameters
class SGD(Optimizer):
    """s = momentum s + G; w -= lr s. With Nesterov momentum, w -= lr (G + momentum s); without momentum, w -= lr G.

    Sutskever et al., ICML 2013.

    Parameters
    ----------
    learning_rate : float, Schedule or callable, default 0.01
        In (0, inf).
    momentum : float, default 0.0
        In [0, 1).
    nesterov : bool, default False
        Requires momentum > 0.
    **kwargs
        The keywords of :class:`Optimizer`.

    Examples
    --------
    >>> SGD(0.1, momentum=0.9).rates(0, 2, 100)
    array([0.1, 0.1])
    """

    momentum: float = 0.0
    nesterov: bool = False
    kind = "sgd"

    @property
    def n_states(self) -> int:
        return 1 if self.momentum > 0 else 0

    def rule(self, layer_factor: float = 1.0) -> Rule:
        rule = super().rule(layer_factor)
        rule.momentum, rule.nesterov = float(self.momentum), self.nesterov
        return rule

    def check(self) -> None:
        super().check()
        check_number(self, "momentum", "[0, 1)")
        check_bool(self, "nesterov")
        if self.nesterov and self.momentum == 0:
            raise ValueError(f"SGD: nesterov=True needs momentum in (0, 1), got {self.momentum!r}")


@hyperparameters
class RMSprop(Optimizer):
    """s = alpha s + (1 - alpha) G^2; d = G / (sqrt(s) + eps); w -= lr d. With momentum, m = momentum m + d; w -= lr m.

    Hinton, Neural Networks for Machine Learning, lecture 6e, 2012.

    Parameters
    ----------
    learning_rate : float, Schedule or callable, default 0.01
        In (0, inf).
    alpha : float, default 0.99
        In [0, 1).
    eps : float, default 1e-8
        In [1e-30, inf).
    momentum : float, default 0.0
        In [0, 1).
    **kwargs
        The keywords of :class:`Optimizer`.

    Examples
    --------
    >>> RMSprop(momentum=0.9).n_states
    2
    """

    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    kind = "rmsprop"

    @property
    def n_states(self) -> int:
        return 2 if self.momentum > 0 else 1

    def rule(self, layer_factor: float = 1.0) -> Rule:
        rule = super().rule(layer_factor)
        rule.alpha, rule.eps, rule.momentum = float(self.alpha), float(self.eps), float(self.momentum)
        return rule

    def check(self) -> None:
        super().check()
        check_number(self, "alpha", "[0, 1)")
        check_number(self, "eps", EPS)
        check_number(self, "momentum", "[0, 1)")


@hyperparameters
class AdaGrad(Optimizer):
    """s += G^2; w -= lr G / (sqrt(s) + eps). Duchi, Hazan and Singer, JMLR 12, 2011.

    Parameters
    ----------
    learning_rate : float, Schedule or callable, default 0.01
        In (0, inf).
    eps : float, default 1e-10
        In [1e-30, inf).
    **kwargs
        The keywords of :class:`Optimizer`.

    Examples
    --------
    >>> AdaGrad().rule().eps
    1e-10
    """

    eps: float = 1e-10
    kind = "adagrad"

    def rule(self, layer_factor: float = 1.0) -> Rule:
        rule = super().rule(layer_factor)
        rule.eps = float(self.eps)
        return rule

    def check(self) -> None:
        super().check()
        check_number(self, "eps", EPS)


@hyperparameters
class Adam(Optimizer):
    """m = b1 m + (1 - b1) G; v = b2 v + (1 - b2) G^2; w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).

    Kingma and Ba, ICLR 2015.

    Parameters
    ----------
    learning_rate : float, Schedule or callable, default 1e-3
        In (0, inf).
    betas : tuple of two floats, default (0.9, 0.999)
        b1 and b2, each in [0, 1).
    eps : float, default 1e-8
        In [1e-30, inf).
    **kwargs
        The keywords of :class:`Optimizer`.

    Examples
    --------
    >>> Adam(betas=(0.9, 0.95)).rule().beta2
    0.95
    """

    default_rate: ClassVar[float] = 1e-3

    learning_rate: LearningRate = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    kind = "adam"

    @property
    def n_states(self) -> int:
        return 2

    def rule(self, layer_factor: float = 1.0) -> Rule:
        rule = super().rule(layer_factor)
        rule.beta1, rule.beta2 = (float(beta) for beta in self.betas)
        rule.eps = float(self.eps)
        return rule

    def check(self) -> None:
        super().check()
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise TypeError(f"{type(self).__name__}: betas must be two numbers in [0, 1), got {self.betas!r}")
        for i, beta in enumerate(self.betas):
            check_number(self, f"betas[{i}]", "[0, 1)", beta)
        check_number(self, "eps", EPS)


@hyperparameters
class AdamW(Adam):
    """Adam with decoupled weight decay on by default: w -= lr weight_decay w, then Adam's step.

    Loshchilov and Hutter, ICLR 2019.

    Parameters
    ----------
    learning_rate : float, Schedule or callable, default 1e-3
        In (0, inf).
    betas : tuple of two floats, default (0.9, 0.999)
        Each in [0, 1).
    eps : float, default 1e-8
        In [1e-30, inf).
    weight_decay : float, default 1e-2
        In [0, inf).
    **kwargs
        The other keywords of :class:`Optimizer`.

    Examples
    --------
    >>> AdamW().rule().decay
    0.01
    """

    _: KW_ONLY
    weight_decay: float = 1e-2


@hyperparameters
class LBFGS(Optimizer):
    """Limited-memory BFGS on all rows at once, by ``scipy.optimize.minimize(method="L-BFGS-B")`` (scipy is optional).

    The loss, with its ``l2`` penalty, is minimised in float64 whatever the network's dtype; each iteration counts as an
    epoch. For small data sets. The arithmetic is scipy's, so the last bits may depend on the machine. Liu and Nocedal,
    Mathematical Programming 45, 1989.

    Parameters
    ----------
    max_iter : int or None, default None
        In [1, inf): maximum number of iterations; None: the ``epochs`` of `fit`.
    tol : float, default 1e-5
        In [0, inf): stop when no element of the gradient exceeds this (scipy's ``gtol``).
    history : int, default 10
        In [1, inf): number of corrections kept (scipy's ``maxcor``).
    max_fun : int, default 15000
        In [1, inf): maximum number of evaluations of loss and gradient.
    l2 : float, default 0.0
        In [0, inf). Penalty l2 / 2 w^2 in the loss, not included in the history's loss.
    decay_biases : bool, default False
        Whether ``l2`` acts on biases as well.

    Examples
    --------
    >>> LBFGS(l2=1e-4).l2
    0.0001
    """

    learning_rate: LearningRate = field(default=1.0, init=False, repr=False)
    l1: float = field(default=0.0, init=False, repr=False)
    weight_decay: float = field(default=0.0, init=False, repr=False)
    weight_lr_factor: float = field(default=1.0, init=False, repr=False)
    bias_lr_factor: float = field(default=1.0, init=False, repr=False)
    clip_norm: float | None = field(default=None, init=False, repr=False)
    clip_value: float | None = field(default=None, init=False, repr=False)
    _: KW_ONLY
    max_iter: int | None = None
    tol: float = 1e-5
    history: int = 10
    max_fun: int = 15000
    kind = "lbfgs"

    @property
    def n_states(self) -> int:
        return 0

    def check(self) -> None:
        super().check()
        if self.max_iter is not None:
            check_number(self, "max_iter", "[1, inf)", whole=True)
        check_number(self, "tol", "[0, inf)")
        check_number(self, "history", "[1, inf)", whole=True)
        check_number(self, "max_fun", "[1, inf)", whole=True)


KNOWN: dict[str, Callable[[], Optimizer]] = {
    "sgd": SGD,
    "momentum": lambda: SGD(momentum=0.9),
    "nesterov": lambda: SGD(momentum=0.9, nesterov=True),
    "rmsprop": RMSprop,
    "adagrad": AdaGrad,
    "adam": Adam,
    "adamw": AdamW,
    "lbfgs": LBFGS,
}


def get(optimizer: str | Optimizer) -> Optimizer:
    """Return the optimizer with this name, with its defaults, or the given object, checked.

    ``"momentum"`` and ``"nesterov"`` are SGD with classical and Nesterov momentum 0.9.

    Raises
    ------
    ValueError
        For an unknown name (the message lists the known ones) or a parameter out of range.
    TypeError
        For anything else.

    Examples
    --------
    >>> get("adam").n_states
    2
    """
    return lookup(optimizer, KNOWN, Optimizer)
