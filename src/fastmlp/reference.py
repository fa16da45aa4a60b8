"""Reference implementation of every op in NumPy, one short function per op: the definition of what each op computes.

A function is named after its opcode and implements the formula in ``csrc/fastmlp.h``; it reads and writes the buffers
of its :class:`~fastmlp.plan.Op` and nothing else. Sums are NumPy's, in the arrays' dtype: the kernels guarantee an
order of summation, this module only the value. Scalars are Python floats, which never promote float32.

``rows`` is the slice of the batch an op works on. Ops on the parameters ignore it: they always update all of them.
"""
# Which fields of an Op are set depends on its opcode, and the plan builder ensures it; in the type all are optional.
# mypy: disable-error-code="index,union-attr,operator,arg-type,no-any-return"

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .plan import Array, Op, Plan, Rule, Step

# ---- activations: y = f(z), and f' from the output where possible ----------------------------------------------------

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
FAR = 1e4  # beyond it the tails of every gate below are 0: z is clipped there, because -inf * 0 would be NaN
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def sigmoid(z: Array) -> Array:
    """1 / (1 + e^-z), in the form whose exponential cannot overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


def softplus(z: Array) -> Array:
    """log(1 + e^z)."""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def softmax(z: Array) -> Array:
    """e^z_c / sum e^z, shifted by the row's maximum so that nothing overflows."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def elu(z: Array, a: float) -> Array:
    """z where it is positive, else a (e^z - 1)."""
    return np.where(z > 0, z, a * np.expm1(np.minimum(z, 0)))


def normal_cdf(z: Array) -> Array:
    """Phi(z) = erfc(-z / sqrt 2) / 2: unlike 1 + erf, exact in the lower tail too."""
    return (_erfc(-z.astype(np.float64) / math.sqrt(2)) / 2).astype(z.dtype)


def normal_pdf(z: Array) -> Array:
    """e^(-z^2 / 2) / sqrt(2 pi)."""
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def gelu_tanh_gate(z: Array) -> tuple[Array, Array]:
    """(1 + tanh u) / 2 = sigmoid(2 u), and 2 u', for u = sqrt(2 / pi) (z + 0.044715 z^3).

    The gate is 0 or 1 to the last bit beyond +-30; the clipping keeps the cube finite.
    """
    z = np.clip(z, -30, 30)
    k = 2 * math.sqrt(2 / math.pi)
    return sigmoid(k * (z + 0.044715 * z**3)), k * (1 + 3 * 0.044715 * z * z)


def gated(z: Array, gate: Array) -> Array:
    """z * gate(z), for gates that tend to 0 as z tends to -inf."""
    return np.maximum(z, -FAR) * gate


def gelu_derivative(y: Array, z: Array, a: float) -> Array:
    """Phi(z) + z Phi'(z)."""
    return normal_cdf(z) + np.clip(z, -FAR, FAR) * normal_pdf(z)


def gelu_tanh_derivative(y: Array, z: Array, a: float) -> Array:
    """s + z 2u' s (1 - s), for y = z s(2u)."""
    s, slope = gelu_tanh_gate(z)
    return s + np.clip(z, -FAR, FAR) * s * (1 - s) * slope


def silu_derivative(y: Array, z: Array, a: float) -> Array:
    """s + z s (1 - s), for y = z s(z)."""
    s = sigmoid(z)
    return s + np.clip(z, -FAR, FAR) * s * sigmoid(-z)


def mish_derivative(y: Array, z: Array, a: float) -> Array:
    """t + z (1 - t^2) sigmoid(z), for y = z t(z) and t = tanh(softplus(z))."""
    t = np.tanh(softplus(z))
    return t + np.clip(z, -FAR, FAR) * (1 - t * t) * sigmoid(z)


def softmax_derivative(y: Array, z: Array, a: float) -> Array:
    raise TypeError("softmax has a Jacobian, not a derivative: see activate_back")


# name -> (f(z, param), f'(y, z, param)); z is None for those that need only y.
ACTIVATIONS: dict[str, tuple[Callable[[Array, float], Array], Callable[[Array, Array, float], Array]]] = {
    "identity": (lambda z, a: z, lambda y, z, a: np.ones_like(y)),
    "sigmoid": (lambda z, a: sigmoid(z), lambda y, z, a: y * (1 - y)),
    "tanh": (lambda z, a: np.tanh(z), lambda y, z, a: 1 - y * y),
    "relu": (lambda z, a: np.maximum(z, 0), lambda y, z, a: (y > 0).astype(y.dtype)),
    "leaky_relu": (lambda z, a: np.where(z > 0, z, a * z), lambda y, z, a: np.where(y > 0, 1, a).astype(y.dtype)),
    "elu": (elu, lambda y, z, a: np.where(y > 0, 1, y + a)),
    "selu": (
        lambda z, a: SELU_SCALE * elu(z, SELU_ALPHA),
        lambda y, z, a: np.where(y > 0, SELU_SCALE, y + SELU_SCALE * SELU_ALPHA).astype(y.dtype),
    ),
    "softplus": (lambda z, a: softplus(z), lambda y, z, a: -np.expm1(-y)),
    "hard_tanh": (lambda z, a: np.clip(z, -1, 1), lambda y, z, a: (np.abs(y) < 1).astype(y.dtype)),
    "softmax": (lambda z, a: softmax(z), softmax_derivative),
    "exp": (lambda z, a: np.exp(z), lambda y, z, a: y),
    "gelu": (lambda z, a: gated(z, normal_cdf(z)), gelu_derivative),
    "gelu_tanh": (lambda z, a: gated(z, gelu_tanh_gate(z)[0]), gelu_tanh_derivative),
    "silu": (lambda z, a: gated(z, sigmoid(z)), silu_derivative),
    "mish": (lambda z, a: gated(z, np.tanh(softplus(z))), mish_derivative),
}

# ---- losses of each row, and their gradients with respect to y -------------------------------------------------------
# loss(y, t, op) -> (row losses [rows], gradient [rows, n_out]); t is dense, or int32 labels [rows].

Loss = Callable[[Array, Any, Op], tuple[Array, Array]]


def dense_targets(y: Array, t: Any) -> Array:
    """Labels as one-hot rows in y's dtype; for a single output, the label itself is the target."""
    if t.ndim == 2:
        return t
    return (t[:, None] if y.shape[1] == 1 else np.arange(y.shape[1]) == t[:, None]).astype(y.dtype)


def unless_lost(x: Array, v: Array) -> Array:
    """v, which is of the order of e^x, or 0 where that is negligible: avoids subnormal numbers."""
    return np.where(x < (-55 if x.dtype == np.float32 else -650), 0, v).astype(x.dtype)


def softmax_cross_entropy(y: Array, t: Any, op: Op) -> tuple[Array, Array]:
    """sum_c t_c (log(sum e^y) - y_c), where smoothing s: t <- (1 - s) t + s / n_out."""
    t = (1 - op.param) * dense_targets(y, t) + op.param / op.n_out
    top = y.max(axis=1, keepdims=True)
    log_probability = y - top - np.log(np.exp(y - top).sum(axis=1, keepdims=True))
    row_loss = -np.where(t != 0, t * log_probability, 0).sum(axis=1)  # 0 log 0 = 0
    return row_loss, t.sum(axis=1, keepdims=True) * unless_lost(y - top, softmax(y)) - t


def mean_over_outputs(element: Callable[[Array, Array, Op], tuple[Array, Array]]) -> Loss:
    """Turn a loss of elements into the loss of a row: their mean."""

    def loss(y: Array, t: Any, op: Op) -> tuple[Array, Array]:
        loss, gradient = element(y, dense_targets(y, t), op)
        return loss.mean(axis=1), gradient / op.n_out

    loss.__name__, loss.__doc__ = element.__name__, element.__doc__
    return loss


@mean_over_outputs
def sigmoid_cross_entropy(y: Array, t: Array, op: Op) -> tuple[Array, Array]:
    """t p softplus(-y) + (1 - t) softplus(y), with p = 1 where there is no positive weight."""
    p = 1 if op.aux is None else op.aux[0]
    slope = (1 - t) * unless_lost(y, sigmoid(y)) - t * p * unless_lost(-y, sigmoid(-y))
    return t * p * softplus(-y) + (1 - t) * softplus(y), slope


@mean_over_outputs
def squared_error(y: Array, t: Array, op: Op) -> tuple[Array, Array]:
    """scale (y - t)^2."""
    return op.param * (y - t) ** 2, 2 * op.param * (y - t)


@mean_over_outputs
def absolute_error(y: Array, t: Array, op: Op) -> tuple[Array, Array]:
    """|y - t|."""
    return np.abs(y - t), np.sign(y - t)


@mean_over_outputs
def huber(y: Array, t: Array, op: Op) -> tuple[Array, Array]:
    """e^2 / 2 where |e| <= d, else d (|e| - d / 2), for e = y - t."""
    e, d = y - t, op.param
    return np.where(np.abs(e) <= d, e * e / 2, d * (np.abs(e) - d / 2)), np.clip(e, -d, d)


@mean_over_outputs
def quantile(y: Array, t: Array, op: Op) -> tuple[Array, Array]:
    """max(q e, (q - 1) e), for e = t - y; the gradient is 0 at e = 0."""
    e, q = t - y, op.aux[0]
    return np.maximum(q * e, (q - 1) * e), np.where(e > 0, -q, np.where(e < 0, 1 - q, e)).astype(y.dtype)


@mean_over_outputs
def poisson(y: Array, t: Array, op: Op) -> tuple[Array, Array]:
    """e^y - t y: y is the logarithm of the rate."""
    return np.exp(y) - t * y, np.exp(y) - t


LOSSES: dict[str, Loss] = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "sigmoid_cross_entropy": sigmoid_cross_entropy,
    "squared_error": squared_error,
    "absolute_error": absolute_error,
    "huber": huber,
    "quantile": quantile,
    "poisson": poisson,
}

# ---- optimizers: the direction of the update, given the gradient -----------------------------------------------------
# optimizer(G, s1, s2, rule, t) -> direction, for w -= lr * direction; states are changed in place; t counts from 1.


def whole_power(base: float, n: int) -> float:
    """base^n by repeated squaring: multiplications only, so the same bits everywhere."""
    power = 1.0
    while n > 0:
        if n & 1:
            power *= base
        base *= base
        n >>= 1
    return power


def sgd(G: Array, s1: Any, s2: Any, rule: Rule, t: int) -> Array:
    """s1 = momentum s1 + G; returns s1, or for Nesterov G + momentum s1."""
    if s1 is None:
        return G
    s1[:] = rule.momentum * s1 + G
    return G + rule.momentum * s1 if rule.nesterov else s1


def rmsprop(G: Array, s1: Any, s2: Any, rule: Rule, t: int) -> Array:
    """s1 = alpha s1 + (1 - alpha) G^2; d = G / (sqrt(s1) + eps); with momentum s2 = momentum s2 + d."""
    s1[:] = rule.alpha * s1 + (1 - rule.alpha) * G * G
    d = G / (np.sqrt(s1) + rule.eps)
    if s2 is None:
        return d
    s2[:] = rule.momentum * s2 + d
    return s2


def adagrad(G: Array, s1: Any, s2: Any, rule: Rule, t: int) -> Array:
    """s1 += G^2; returns G / (sqrt(s1) + eps)."""
    s1[:] = s1 + G * G
    return G / (np.sqrt(s1) + rule.eps)


def adam(G: Array, s1: Any, s2: Any, rule: Rule, t: int) -> Array:
    """s1, s2: moving means of G and G^2; returns (s1 / (1 - beta1^t)) / (sqrt(s2) / sqrt(1 - beta2^t) + eps)."""
    s1[:] = rule.beta1 * s1 + (1 - rule.beta1) * G
    s2[:] = rule.beta2 * s2 + (1 - rule.beta2) * G * G
    root = math.sqrt(1 - whole_power(rule.beta2, t))
    return 1 / (1 - whole_power(rule.beta1, t)) * s1 / (np.sqrt(s2) / root + rule.eps)


FADED_STEPS = 16  # from one clearing of subnormal states to the next: as in csrc/kernels/update.inc.c
SUMMED_ROWS = 1024  # rows of a batch in one partial sum: as in csrc/kernels/linear_grad.inc.c
OPTIMIZERS: dict[str, Callable[[Array, Any, Any, Rule, int], Array]] = {
    "sgd": sgd,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "adam": adam,
}

# ---- ops over the rows of the batch ---------------------------------------------------------------------------------


def gather(op: Op, step: Step, rows: slice) -> None:
    """x[r] = (data[index[r]] - shift) * scale, smoothly clipped to +-3 where asked; labels: t[r] = data[index[r]]."""
    if op.labels:
        op.t[rows] = op.data[step.index[rows]]
        return
    with np.errstate(over="ignore"):  # too large for the type
        x = op.data[step.index[rows]].astype(op.x.dtype)
    if op.nonfinite is not None and not np.isfinite(x).all():
        op.nonfinite[0] = 1
    if op.w is not None:
        x = (x - op.w[0]) * op.w[1]
    if op.smooth_clip:
        x = np.clip(x, -1e15, 1e15)  # whose squares are finite
        x = x / np.sqrt(1 + (x / 3) ** 2)
    op.x[rows] = x


def linear(op: Op, step: Step, rows: slice) -> None:
    """z = x w + b; y = act(z)."""
    z = op.x[rows] @ op.w[:-1] + op.w[-1]
    if op.z is not None:
        op.z[rows] = z
    op.y[rows] = ACTIVATIONS[op.kind][0](z, op.param)


def activate(op: Op, step: Step, rows: slice) -> None:
    """y = act(x)."""
    op.y[rows] = ACTIVATIONS[op.kind][0](op.x[rows], op.param)


def backward(op: Op, dy: Array, rows: slice) -> Array:
    """dy * act'(y); for softmax, where every output depends on every input, y (dy - sum(dy y)).

    An inactive unit passes nothing back, not even the infinities of a diverging training.
    """
    if op.kind == "identity":
        return dy
    y = op.y[rows]
    if op.kind == "softmax":
        return y * (dy - (dy * y).sum(axis=1, keepdims=True))
    slope = ACTIVATIONS[op.kind][1](y, None if op.z is None else op.z[rows], op.param)
    return np.where(slope == 0, 0, dy) if op.kind in ("relu", "hard_tanh") else dy * slope


def activate_back(op: Op, step: Step, rows: slice) -> None:
    """dx = dy * act'(y)."""
    op.dx[rows] = backward(op, op.dy[rows], rows)


def loss(op: Op, step: Step, rows: slice) -> None:
    """row_loss = loss(y, t); dy = weight[r] / sum(weight) * loss'. Without dy: evaluate only."""
    op.row_loss[rows], gradient = LOSSES[op.kind](op.y[rows], op.t[rows], op)
    if op.dy is not None:
        share = batch_weight(step)[rows] * step.inverse_weight
        op.dy[rows] = share.astype(op.dy.dtype)[:, None] * gradient


def linear_back(op: Op, step: Step, rows: slice) -> None:
    """dx = (dy w^T) * act'(y), with y and z of the layer below."""
    op.dx[rows] = backward(op, op.dy[rows] @ op.w[:-1].T, rows)


def philox(counter: tuple[Any, Any, Any, Any], key: int) -> tuple[Any, ...]:
    """Four random 32-bit words for each counter (of four uint64 arrays that hold 32-bit words) under a 64-bit key.

    Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    c0, c1, c2, c3 = counter
    k0, k1 = key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = p1 >> shift ^ c1 ^ np.uint64(k0), p1 & low, p0 >> shift ^ c3 ^ np.uint64(k1), p0 & low
        k0, k1 = k0 + 0x9E3779B9 & 0xFFFFFFFF, k1 + 0xBB67AE85 & 0xFFFFFFFF
    return c0, c1, c2, c3


def dropout(op: Op, step: Step, rows: slice) -> None:
    """y = x * keep / (1 - p): element (r, c) is kept if the random number of its position is at least p."""
    x = op.x[rows]
    row = np.arange(*rows.indices(step.rows), dtype=np.uint64)[:, None]
    column = np.arange((x.shape[1] + 3) // 4, dtype=np.uint64)[None, :]
    number = np.full_like(column, step.number)
    words = philox((column, row, number & np.uint64(0xFFFFFFFF), number >> np.uint64(32)), op.seed)
    upper = np.stack(words, axis=2).reshape(len(row), 4 * column.size)[:, : x.shape[1]] >> np.uint64(8)
    op.y[rows] = np.where(upper >= op.param * 2**24, x * (1 / (1 - op.param)), 0)


def scatter(op: Op, step: Step, rows: slice) -> None:
    """out[index[r]] = y[r]."""
    op.data[step.index[rows]] = op.y[rows]


# ---- ops over the parameters ----------------------------------------------------------------------------------------


def weight_gradient(x: Array, dy: Array, bias: bool) -> Array:
    """x^T dy, and as the last row the gradient of the bias: the sum of dy over the batch, or zeros without a bias.

    Partial sums of `SUMMED_ROWS` rows are added: the rounding error of a single sum would grow with the number of rows.
    """
    total = np.zeros((x.shape[1] + 1, dy.shape[1]), dy.dtype)
    for k in range(0, len(x), SUMMED_ROWS):
        part, deltas = x[k : k + SUMMED_ROWS], dy[k : k + SUMMED_ROWS]
        total += np.vstack((part.T @ deltas, deltas.sum(axis=0) * bias))
    return total


def linear_grad(op: Op, step: Step, rows: slice) -> None:
    """g = x^T dy; g_b = sum_r dy; added to g if `accumulate` is set."""
    g = weight_gradient(op.x[: step.rows], op.dy[: step.rows], op.bias)
    op.g[:] = op.g + g if op.accumulate else g


def move(op: Op, step: Step, g: Array) -> None:
    """w = rule(w, g) for the weights and the bias, if there is one. All penalties are those of w before the step."""
    rule, scale = op.rule, 1.0
    if rule.clip_norm > 0:
        norm = math.sqrt(op.part.sum())
        scale = rule.clip_norm / norm if norm > rule.clip_norm else 1.0
    blocks = [(slice(None, -1), True, rule.lr_weight), (slice(-1, None), rule.decay_bias, rule.lr_bias)]
    for block, penalised, factor in blocks[: 1 + op.bias]:
        w, lr = op.w[block], step.lr * factor
        s1, s2 = (None if s is None else s[block] for s in (op.s1, op.s2))
        G = scale * g[block]
        if rule.clip_value > 0:
            G = np.clip(G, -rule.clip_value, rule.clip_value)
        if penalised:
            G = G + rule.l2 * w + rule.l1 * np.sign(w)
            w *= 1 - lr * rule.decay
        w -= lr * OPTIMIZERS[op.kind](G, s1, s2, rule, step.number + 1)
    if (step.number + 1) % FADED_STEPS == 0:
        clear_faded(op)


def clear_faded(op: Op) -> None:
    """Set subnormal states to zero: those of a dead unit would stay subnormal, and slow down the kernels.

    Adam's mean square is cleared only where its mean is zero, because the mean is divided by its root.
    """
    for s in (op.s1, op.s2):
        if s is None:
            continue
        faded = np.abs(s) < np.finfo(s.dtype).tiny
        if s is op.s2 and op.kind == "adam":
            faded &= op.s1 == 0
        s[faded] = 0


def update(op: Op, step: Step, rows: slice) -> None:
    """w = rule(w, g)."""
    move(op, step, op.g)


def linear_update(op: Op, step: Step, rows: slice) -> None:
    """w = rule(w, x^T dy): linear_grad and update in one."""
    move(op, step, weight_gradient(op.x[: step.rows], op.dy[: step.rows], op.bias))


def square_sum(op: Op, step: Step, rows: slice) -> None:
    """part[i] = sum of g^2 over the i-th row of g, in float64."""
    op.part[0] = (op.g.astype(np.float64) ** 2).sum(axis=1)


def average(op: Op, step: Step, rows: slice) -> None:
    """a = decay a + (1 - decay) w, as a step towards w: the two rounded factors would not add up to 1."""
    op.aux += (1 - op.param) * (op.w - op.aux)


def max_norm(op: Op, step: Step, rows: slice) -> None:
    """w[:, c] *= min(1, limit / |w[:, c]|): a column is a unit; its bias is neither counted nor scaled."""
    w = op.w[:-1]
    norm = np.sqrt((w * w).sum(axis=0))
    w *= np.where(norm > op.param, op.param / norm, 1).astype(w.dtype)


KERNELS: dict[str, Callable[[Op, Step, slice], None]] = {
    kernel.__name__: kernel
    for kernel in (
        *(gather, linear, activate, activate_back, loss, linear_back, dropout, scatter),
        *(linear_grad, update, linear_update, square_sum, average, max_norm),
    )
}

# ---- the executor ---------------------------------------------------------------------------------------------------


def batch_weight(step: Step) -> NDArray[np.float64]:
    """The sample weights of the batch, all ones where there are none."""
    return np.ones(step.rows) if step.weight is None else step.weight[step.index]


def mean_loss(op: Op, step: Step) -> float:
    """sum(weight[r] row_loss[r]) / sum(weight); a row of weight 0 counts for nothing, even if its loss is infinite."""
    weight = batch_weight(step)
    return float(np.where(weight != 0, weight * op.row_loss[: step.rows], 0.0).sum() * step.inverse_weight)


class ReferenceExecutor:
    """Runs a plan with the functions above, op by op in one thread; same interface as the engine.

    Parameters
    ----------
    plan : Plan
        Its ``ops`` are run in order, on their own buffers; ``capacity`` is the largest batch that these hold.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def bind(self, i: int, data: Array) -> None:
        """Bind `data` to gather or scatter op number `i` of the plan, to be read or written."""
        self.plan.ops[i].data = data

    def release(self) -> None:
        """Release the arrays that gathers read and scatters write; others must be bound before the next run."""
        for op in self.plan.ops:
            op.data = None

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
        """Run ops ``first_op .. last_op - 1`` of every step; step s is rows ``order[offsets[s]:offsets[s + 1]]``.

        Parameters
        ----------
        order : int64 array, or None
            Row numbers of the data; None: row numbers are positions.
        offsets : int64 array of shape (n_steps + 1,)
        lr : float64 array of shape (n_steps,), or None
        weight : float64 array, or None
            Sample weights by row of the data.
        first_number : int
            Number of steps before these, since training began.
        first_op, last_op : int
            Range of ops: a single one for a check in lock step, all of them by default.
        n_threads : int, optional
            Ignored; the engine has this parameter.

        Returns
        -------
        losses : float64 array of shape (n_steps,)
            Weighted mean loss of each step; zeros where no loss op ran.
        """
        ops = self.plan.ops[first_op:last_op]
        losses = np.zeros(len(offsets) - 1)
        with np.errstate(all="ignore"):
            for s, (begin, end) in enumerate(pairwise(map(int, offsets))):
                if end - begin > self.plan.capacity:
                    raise ValueError(f"step {s} has {end - begin} rows; the plan holds {self.plan.capacity}")
                index = np.arange(begin, end) if order is None else order[begin:end]
                step = Step(end - begin, first_number + s, index, weight, 0.0, 0.0 if lr is None else float(lr[s]))
                total = float(batch_weight(step).sum())
                step.inverse_weight = 1 / total if total else 0.0
                for op in ops:
                    KERNELS[op.opcode](op, step, slice(0, step.rows))
                    if op.opcode == "loss":
                        losses[s] = mean_loss(op, step)
        return losses
