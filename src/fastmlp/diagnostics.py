"""diagnose: the state of a network's layers on some data, as numbers per layer and as verdicts in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import optimizers
from .history import DivergenceError
from .losses import CrossEntropy
from .mlp import MLP
from .plans import gradient_plan
from .runtime import executor
from .threads import get_num_threads
from .trainer import Trainer

VANISHING = 1e-3  # signal at the first layer relative to the last: below this it is vanishing
EXPLODING = 1e3  # above this it is exploding
NEAR_LIMIT = 0.99  # of a bounded activation's range: |2 y - 1| for sigmoid, |y| for tanh
MOST_ROWS = 0.5  # a unit near its limit for more than this fraction of the rows is saturated
BAD_UNITS = 0.5  # fraction of saturated or dead units in a layer, above which there is a verdict
PLANNED = 1000  # total steps, for schedules that depend on them
OVERSHOOT = 1e-6  # relative rise of the loss by the trial step that exceeds rounding errors
OVERWRITTEN = 1.0  # norm of a step relative to a layer's weights, above which there is a verdict
LARGE_INPUTS = 3.0  # root mean square of inputs, above which the verdict mentions them; standardised ones have 1

# |y| scaled so that 1 is the limit, for activations that have limits.
LIMITED: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "sigmoid": lambda y: np.abs(2 * y - 1),
    "tanh": np.abs,
    "hard_tanh": np.abs,
}


@dataclass(frozen=True)
class LayerReport:
    """The numbers of one layer.

    Attributes
    ----------
    layer : int
        From 1, the first layer with weights.
    activation : str
    weight_norm, gradient_norm : float
        Euclidean norms of weights and biases, and of the loss's gradient with respect to them.
    update_ratio : float
        Norm of the trial step's change of the weights and biases, divided by `weight_norm`; for plain gradient descent
        |lr g| / |w|. About 1e-3 is usual.
    signal : float
        Root mean square, over rows and units, of the gradient with respect to pre-activations.
    mean, variance : float
        Of the layer's outputs, over rows and units.
    saturated, dead : float
        Fraction of units that are near the activation's limits for most rows (sigmoid, tanh, hard_tanh), or zero for
        all rows (relu). 0 for the last layer and for other activations.
    """

    layer: int
    activation: str
    weight_norm: float
    gradient_norm: float
    update_ratio: float
    signal: float
    mean: float
    variance: float
    saturated: float
    dead: float


@dataclass(frozen=True)
class Report:
    """The result of :func:`diagnose`; prints as a table followed by the verdicts.

    Attributes
    ----------
    layers : list of LayerReport
    loss : float
        On the given rows.
    loss_after : float
        After one step of the optimizer on them.
    verdicts : list of str
        Each begins with one word: vanishing, exploding, saturated, dead, overwriting, overshooting; or healthy, alone.
    """

    layers: list[LayerReport]
    loss: float
    loss_after: float
    verdicts: list[str]

    @property
    def healthy(self) -> bool:
        """Whether no problem was found."""
        return self.verdicts[0].startswith("healthy")

    def __str__(self) -> str:
        head = ("layer", "activation", "|w|", "|g|", "|step|/|w|", "signal", "mean", "variance", "saturated", "dead")
        rows = []
        for r in self.layers:
            numbers = (r.weight_norm, r.gradient_norm, r.update_ratio, r.signal, r.mean, r.variance)
            shares = (f"{r.saturated:.0%}", f"{r.dead:.0%}")
            rows.append((str(r.layer), r.activation, *(f"{v:.2e}" for v in numbers), *shares))
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = ["  ".join(text.rjust(w) for text, w in zip(row, widths, strict=True)) for row in (head, *rows)]
        lines.append(f"loss {self.loss:.6g}, after one step {self.loss_after:.6g}")
        return "\n".join(lines + self.verdicts)


def diagnose(
    net: MLP,
    X: ArrayLike,
    y: ArrayLike,
    optimizer: str | optimizers.Optimizer | None = None,
    sample_weight: ArrayLike | None = None,
) -> Report:
    """Detect problems that prevent learning: vanishing gradients, saturated or dead units, overshooting.

    Everything is computed on a copy; the network is not changed.

    Parameters
    ----------
    net : MLP
    X, y, sample_weight : array-like
        As in `MLP.fit`; a few hundred rows suffice. They form one batch.
    optimizer : str or Optimizer, optional
        The optimizer of the trial step, the first of 1000, with its state at zero; by default ``SGD()``, plain gradient
        descent with rate 0.01.

    Returns
    -------
    Report

    Notes
    -----
    *Signal* is the root mean square of the gradient with respect to a layer's pre-activations. It is *vanishing* if the
    first layer's is less than 1e-3 times the last layer's, *exploding* if it is more than 1e3 times that, or if the
    loss or a gradient is not finite. A layer is *saturated* or *dead* if more than half of its units are: within 1 % of
    the limits of sigmoid, tanh or hard_tanh for more than half of the rows, or 0 for all rows with relu. A step is
    *overwriting* a layer if its norm exceeds that of the weights, *overshooting* if it raises the loss on these rows.

    Examples
    --------
    >>> import fastmlp
    >>> X, y = fastmlp.datasets.spirals(200, seed=0)
    >>> deep = fastmlp.MLP([2] + 8 * [32] + [2], "sigmoid")
    >>> fastmlp.diagnose(deep, X, y).verdicts[0].split(":")[0]
    'vanishing'
    >>> fastmlp.diagnose(fastmlp.MLP([2] + 8 * [32] + [2], "relu"), X, y).verdicts
    ['healthy: nothing found']
    """
    if not isinstance(net, MLP):
        raise TypeError(f"net must be an MLP, got {net!r}")
    chosen = optimizers.get("sgd" if optimizer is None else optimizer)
    if isinstance(chosen, optimizers.LBFGS):
        raise TypeError("optimizer must make steps, of which the first is tried: L-BFGS takes all data at once")
    X, y = net.check_data(X, y)
    weight = net.row_weights(y, sample_weight)
    plain = {"loss": replace(net.loss, class_weight=None)} if isinstance(net.loss, CrossEntropy) else {}
    twin = net.twin(net.dtype, **plain)  # the class weights are included in `weight`
    if twin.needs_scaling():
        twin.learn_scaling(X, y)
    with np.errstate(over="ignore", invalid="ignore"):
        signals, gradients, loss = _backpropagated(twin, X, y, weight)
        inputs, *outputs = twin.activations(X)
        large = twin.standardize is None and _norm(inputs) > LARGE_INPUTS * math.sqrt(inputs.size)
        steps, loss_after = _trial_step(twin, chosen, X, y, weight)
        layers = [_layer(net, i, signals[i], gradients[i], steps[i], outputs[i]) for i in range(len(outputs))]
    verdicts = _verdicts(layers, loss, loss_after, large)
    return Report(layers, loss, loss_after, verdicts or ["healthy: nothing found"])


def _norm(array: NDArray[Any]) -> float:
    return float(np.linalg.norm(array.astype(np.float64)))


def _backpropagated(
    net: MLP, X: NDArray[Any], y: NDArray[Any], weight: NDArray[np.float64] | None
) -> tuple[list[float], list[NDArray[Any]], float]:
    """Root mean square of the gradient with respect to pre-activations and gradient, for each layer; and the loss."""
    gradients = net.layout.matrices(net.layout.zeros())
    n_threads = get_num_threads()
    plan, tape = gradient_plan(net, len(X), y.ndim == 1, gradients, n_threads)
    plan.bind(X, net.plan_targets(y))
    loss = executor(plan, net.backend).run(None, np.array([0, len(X)]), weight=weight, n_threads=n_threads)[0]
    return [_norm(delta) / math.sqrt(delta.size) for delta in tape.deltas], gradients, float(loss)


def _trial_step(
    net: MLP, optimizer: optimizers.Optimizer, X: NDArray[Any], y: NDArray[Any], weight: NDArray[np.float64] | None
) -> tuple[list[float], float]:
    """Norm of each layer's change by one step of the optimizer, and the loss after it."""
    before = [matrix.copy() for matrix in net.matrices]
    try:
        Trainer(net, optimizer, total_steps=PLANNED).step(X, y, weight)
    except DivergenceError:
        return [math.nan] * len(before), math.inf
    moved = [_norm(matrix.astype(np.float64) - old) for matrix, old in zip(net.matrices, before, strict=True)]
    if not np.isfinite(net.parameters).all():
        return moved, math.inf
    return moved, net.evaluate(X, y, weight, [])["loss"]


def _layer(net: MLP, i: int, signal: float, gradient: NDArray[Any], moved: float, y: NDArray[Any]) -> LayerReport:
    name, last = net.functions[i].name, i == len(net.sizes) - 2
    saturated = dead = 0.0
    if not last and name in LIMITED:
        saturated = float(((LIMITED[name](y) > NEAR_LIMIT).mean(axis=0) > MOST_ROWS).mean())
    if not last and name == "relu":
        dead = float((y == 0).all(axis=0).mean())
    weight_norm = _norm(net.matrices[i])
    ratio = moved / weight_norm if weight_norm else math.inf if moved else 0.0
    y = y.astype(np.float64)
    return LayerReport(
        i + 1, name, weight_norm, _norm(gradient), ratio, signal, float(y.mean()), float(y.var()), saturated, dead
    )


def _verdicts(layers: list[LayerReport], loss: float, loss_after: float, large_inputs: bool) -> list[str]:
    found = _signal_verdicts(layers, loss)
    for layer in layers:
        found += _layer_verdicts(layer)
    if math.isfinite(loss) and not loss_after - loss <= OVERSHOOT * abs(loss):  # also if it is NaN
        found.append(
            f"overshooting: one step raises the loss from {loss:.4g} to {loss_after:.4g}; use a smaller learning rate"
            + (", or standardize='mean': the inputs are large" if large_inputs else "")
        )
    return found


def _signal_verdicts(layers: list[LayerReport], loss: float) -> list[str]:
    """Verdicts on the gradient signal of the first layer relative to the last."""
    if not math.isfinite(loss) or not all(math.isfinite(layer.gradient_norm) for layer in layers):
        return ["exploding: the loss or a gradient is not a finite number; scale the inputs, or use smaller weights"]
    first, last = layers[0].signal, layers[-1].signal
    if last <= 0:
        return []
    cut_off = any(layer.dead == 1 for layer in layers)  # a dead layer blocks the signal, whatever the weights before it
    if first < VANISHING * last and not cut_off:
        return [
            f"vanishing: the first layer gets {first / last:.1e} of the last layer's gradient signal, and hardly "
            "learns; use relu with He's weights, or fewer layers"
        ]
    if first > EXPLODING * last:
        return [
            f"exploding: the first layer gets {first / last:.1e} times the last layer's gradient signal; use smaller "
            "initial weights, or clip_norm"
        ]
    return []


def _layer_verdicts(layer: LayerReport) -> list[str]:
    found = []
    if layer.saturated > BAD_UNITS:
        found.append(
            f"saturated: {layer.saturated:.0%} of the {layer.activation} units of layer {layer.layer} stay at "
            "their limits, where the derivative is nearly 0; scale the inputs, or use smaller weights"
        )
    if layer.dead > BAD_UNITS:
        found.append(
            f"dead: {layer.dead:.0%} of the relu units of layer {layer.layer} are 0 for all rows and cannot learn; "
            "use a smaller learning rate, leaky_relu, or new weights"
        )
    if OVERWRITTEN < layer.update_ratio < math.inf:  # infinite if all weights were 0, as intended by some
        found.append(
            f"overwriting: one step moves the weights of layer {layer.layer} by {layer.update_ratio:.2g} times "
            "their own size, which overwrites them; use a smaller learning rate"
        )
    return found
