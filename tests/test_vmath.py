"""The functions of csrc/kernels/vmath.inc.c and the activations made of them, against 64-bit mantissas: bounds in ulp.

They are reached through plans of one op: most of them as an activation, exp as the loss of a poisson rate
and log as a softmax cross-entropy over a known sum. A result below the smallest normal number counts in units of the
smallest subnormal one.
"""

import math
from functools import cache

import numpy as np
import pytest
from one_op import guarded

from fastmlp.plan import Op, Plan
from fastmlp.runtime import _engine

pytestmark = [pytest.mark.usefixtures("target")]

Wide = np.longdouble
pytestmark.append(
    pytest.mark.skipif(np.finfo(Wide).nmant < 63, reason="long double is double here: nothing to measure against")
)

# The promised bounds. vmath.inc.c states those of its own functions; the activations add a rounding or two, and gelu
# is where Phi can be seen.
BOUNDS = {
    "exp": 0.91,
    "log": 0.85,
    "expm1": 1.1,
    "log1p": 1.4,
    "tanh": 2.1,
    "sigmoid": 2.5,
    "softplus": 1.7,
    "elu": 1.1,
    "selu": 2.3,
    "silu": 3.1,
    "mish": 4.0,
    "gelu": 5.8,
    "gelu_tanh": 3.0,  # times 1 + |v|, for z sigmoid(v): the rounding of v alone is worth that much in the lower tail
}
# Without a fused multiply-add the rounding of z^2 goes unseen, and the far tail of Phi loses digits.
BOUNDS_WITHOUT_FMA = {"gelu": {"float32": 71, "float64": 511}}
FAR_TAIL = 2.0


# ---- arguments -------------------------------------------------------------------------------------------------------


def bits_of(dtype, low, high, count):
    """Numbers at a fixed stride of bit patterns, from `low` to `high` (both positive), and their negatives."""
    word = np.dtype(f"u{dtype.itemsize}")
    first, last = (int(np.array(v, dtype).view(word)) for v in (low, high))
    stride = max(1, (last - first) // count) | 1  # odd: low bits of every kind
    positive = np.array([first + stride * i for i in range((last - first) // stride + 1)], dtype=word).view(dtype)
    return np.concatenate((positive, -positive))


@cache
def arguments(dtype):
    """Every kind of number there is; densely where the functions move; no infinity or NaN."""
    info = np.finfo(dtype)
    tiny, huge = info.smallest_subnormal, info.max
    edges = [0.0, tiny, 2 * tiny, info.tiny, info.tiny - tiny, huge, huge / 2, 1e4, 20, 24, 40, 104, 746, 1.0, 0.5, 2.0]
    edges += [math.log(2) / 2, math.log(2), math.log(huge), -math.log(tiny), math.log(1 + 2**0.5), 2**0.5 - 1, 2**-0.5]
    edges = np.array(edges, dtype)
    edges = np.concatenate((edges, np.nextafter(edges, dtype.type(0)), np.nextafter(edges[edges < huge], huge)))
    everything, moving = bits_of(dtype, tiny, huge, 20_000), bits_of(dtype, 2.0**-12, 2.0**10, 60_000)
    return np.concatenate((edges, -edges, everything, moving))


# ---- the engine's values ---------------------------------------------------------------------------------------------


def run(op, rows, dtype, target):
    _engine.Engine(Plan("one op", dtype, rows, [op]), target).run(None, np.array([0, rows]), np.array([0.0]))


def activated(kind, x, target):
    """act(x), element by element."""
    n = 64
    rows = -(-len(x) // n)
    flat = np.resize(x, rows * n).reshape(rows, n)
    op = Op("activate", kind, n, n, x=guarded(rows, n, x.dtype, flat), y=guarded(rows, n, x.dtype), param=1.0)
    run(op, rows, x.dtype, target)
    return op.y.reshape(-1)[: len(x)]


def exponential(x, target):
    """e^x, as the loss of a poisson rate whose target is 0."""
    rows = len(x)
    op = Op("loss", "poisson", 1, 1, y=guarded(rows, 1, x.dtype, x[:, None]), t=guarded(rows, 1, x.dtype))
    op.row_loss = np.zeros(rows)
    run(op, rows, x.dtype, target)
    return op.row_loss.astype(x.dtype)


def logarithm_of_sum(y, target):
    """log(sum of e^y) of every row whose first output is its greatest and 0, as the cross-entropy of class 0."""
    rows, n = y.shape
    op = Op("loss", "softmax_cross_entropy", n, n, labels=True, y=guarded(rows, n, y.dtype, y))
    op.t, op.row_loss = np.zeros(rows, np.int32), np.zeros(rows)
    run(op, rows, y.dtype, target)
    return op.row_loss.astype(y.dtype)


# ---- the true values -------------------------------------------------------------------------------------------------

PI = Wide(math.pi) + Wide(1.2246467991473532e-16)


def phi(z):
    """The normal distribution: a series of positive terms near 0, Laplace's continued fraction in the tails."""
    a = np.abs(z)
    lower = np.zeros_like(a)
    near, far = a < 2, (a >= 2) & (a < 100)
    x = a[near]
    term, total = x, x.copy()
    for k in range(1, 40):
        term = term * (x * x / (2 * k + 1))
        total += term
    lower[near] = 0.5 - normal_density(x) * total
    x = a[far]
    fraction = x
    for k in range(100, 0, -1):
        fraction = x + k / fraction
    lower[far] = normal_density(x) / fraction
    return np.where(z > 0, 1 - lower, lower)


def normal_density(z):
    """e^(-z^2 / 2) / sqrt(2 pi), from a square that is exact: or the tail would have no more digits than a double's."""
    high = z.astype(np.float32).astype(Wide)
    return np.exp(-high * high / 2) * np.exp(-(z - high) * (z + high) / 2) / np.sqrt(2 * PI)


def gate(z):
    return np.where(z >= 0, 1, np.exp(-np.abs(z))) / (1 + np.exp(-np.abs(z)))


def softplus(z):
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def elu(z):
    return np.where(z > 0, z, np.expm1(np.minimum(z, 0)))


def gelu_tanh_argument(z):
    return np.sqrt(8 / PI) * (z + Wide("0.044715") * z**3)


TRUE = {
    "tanh": np.tanh,
    "sigmoid": gate,
    "softplus": softplus,
    "elu": elu,
    "selu": lambda z: Wide(1.0507009873554805) * np.where(z > 0, z, Wide(1.6732632423543772) * elu(z)),
    "silu": lambda z: np.maximum(z, -20000) * gate(z),
    "mish": lambda z: np.maximum(z, -20000) * np.tanh(softplus(z)),
    "gelu": lambda z: np.maximum(z, -200) * phi(z),
    "gelu_tanh": lambda z: np.maximum(z, -50) * gate(gelu_tanh_argument(np.clip(z, -50, 50))),
}
GATED = {"silu", "mish", "gelu", "gelu_tanh"}  # z times a gate, which may be subnormal where the product is not


@cache
def true_values(kind, dtype):
    with np.errstate(all="ignore"):
        return TRUE[kind](arguments(dtype).astype(Wide))


def ulps(got, true, factor=1.0):
    """Errors in units of the last place of the true value, or of a factor of it that can be subnormal.

    Infinity stands for the power of two it begins at.
    """
    info = np.finfo(got.dtype)
    limit = np.ldexp(Wide(1), info.maxexp)
    unit = np.ldexp(Wide(1), np.maximum(np.frexp(true)[1] - info.nmant - 1, info.minexp - info.nmant))
    unit = np.maximum(unit, np.ldexp(np.abs(Wide(factor)), info.minexp - info.nmant))
    return np.abs(np.clip(got.astype(Wide), -limit, limit) - np.clip(true, -limit, limit)) / unit


def check(name, x, got, errors, bound):
    errors = np.where(np.isnan(errors), np.inf, errors)
    worst = int(np.argmax(errors - bound))
    assert (errors <= bound).all(), f"{name}({x[worst]!r}) is {got[worst]!r}, {float(errors[worst]):.2f} ulp off"
    assert errors.max() > 0.4, f"{name} is said to be more exact than its rounding: nothing was compared"


# ---- the tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TRUE)
def test_activations(dtype, target, kind):
    x = arguments(dtype)
    got = activated(kind, x, target)
    bound = np.full(len(x), BOUNDS[kind])
    if kind == "gelu_tanh":
        bound *= 1 + np.abs(gelu_tanh_argument(np.clip(x, -50, 0).astype(float)))
    if target == "generic" and kind in BOUNDS_WITHOUT_FMA:
        bound[x < -FAR_TAIL] = BOUNDS_WITHOUT_FMA[kind][dtype.name]
    check(kind, x, got, ulps(got, true_values(kind, dtype), x if kind in GATED else 1.0), bound)


def test_exp(dtype, target):
    x = arguments(dtype)
    got = exponential(x, target)
    with np.errstate(over="ignore"):
        true = np.exp(x.astype(Wide))
    check("exp", x, got, ulps(got, true), BOUNDS["exp"])


def test_expm1(dtype, target):
    x = -np.abs(arguments(dtype))
    got = activated("elu", x, target)
    check("expm1", x, got, ulps(got, np.expm1(x.astype(Wide))), BOUNDS["expm1"])


def test_log1p(dtype, target):
    # Below 0, softplus is the log1p of the exponential, whose value is known.
    x = -np.abs(arguments(dtype))
    e, got = exponential(x, target), activated("softplus", x, target)
    check("log1p", e, got, ulps(got, np.log1p(e.astype(Wide))), BOUNDS["log1p"])


def test_log(dtype, target):
    # Two outputs sum to 1 + e^x, rounded once: all of 1..2.
    x = -np.abs(arguments(dtype))
    total = 1 + exponential(x, target)
    got = logarithm_of_sum(np.stack((0 * x, x), axis=1), target)
    check("log", total, got, ulps(got, np.log(total.astype(Wide))), BOUNDS["log"])
    # Zeros sum to their number.
    total = np.arange(1, 513)
    got = logarithm_of_sum(np.where(np.arange(512) < total[:, None], 0, -1e30).astype(dtype), target)
    check("log", total, got, ulps(got, np.log(total.astype(Wide))), BOUNDS["log"])


@pytest.mark.parametrize("kind", TRUE)
def test_edges(dtype, target, kind):
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], dtype)
    at_infinity = {"tanh": 1, "sigmoid": 1}.get(kind, np.inf)
    at_minus_infinity = {"tanh": -1, "elu": -1, "selu": -1.0507009873554805 * 1.6732632423543772}.get(kind, 0)
    at_zero = {"sigmoid": 0.5, "softplus": math.log(2)}.get(kind, 0)
    expected = np.array([at_infinity, at_minus_infinity, np.nan, at_zero, at_zero])
    np.testing.assert_allclose(activated(kind, x, target), expected, rtol=4 * np.finfo(dtype).eps)
    if kind == "tanh":
        assert np.signbit(activated(kind, x, target)[3:]).tolist() == [False, True]
