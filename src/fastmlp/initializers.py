"""Initializers: functions ``(rng, n_in, n_out) -> float64 array (n_in, n_out)`` that draw a layer's initial weights.

The scales preserve the variance of signals through a layer: in the forward pass (lecun; he, for activations that halve
it), or on average of forward and backward pass (glorot). Biases start at zero.

The scaled ones can draw into an array `out` of any float dtype, so that a network needs no second copy of its weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import checks, keywords

__all__ = [
    "constant",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "orthogonal",
    "zeros",
]

PIECE = 1 << 14  # numbers drawn at a time
Weights = NDArray[np.float64]
Out = NDArray[Any] | None
Initializer = Callable[[np.random.Generator, int, int], Weights]


def glorot_uniform(rng: np.random.Generator, n_in: int, n_out: int, out: Out = None) -> Weights:
    """Uniform in +-sqrt(6 / (n_in + n_out)). Glorot and Bengio, AISTATS 2010.

    Examples
    --------
    >>> glorot_uniform(np.random.default_rng(0), 2, 3).shape
    (2, 3)
    """
    return _uniform(rng, n_in, n_out, 2 / (n_in + n_out), out)


def glorot_normal(rng: np.random.Generator, n_in: int, n_out: int, out: Out = None) -> Weights:
    """Normal with variance 2 / (n_in + n_out). Glorot and Bengio, AISTATS 2010.

    Examples
    --------
    >>> round(float(glorot_normal(np.random.default_rng(0), 100, 100).std()), 2)
    0.1
    """
    return _normal(rng, n_in, n_out, 2 / (n_in + n_out), out)


def he_uniform(rng: np.random.Generator, n_in: int, n_out: int, out: Out = None) -> Weights:
    """Uniform in +-sqrt(6 / n_in). He et al., ICCV 2015.

    Examples
    --------
    >>> bool((np.abs(he_uniform(np.random.default_rng(0), 6, 100)) <= 1).all())
    True
    """
    return _uniform(rng, n_in, n_out, 2 / n_in, out)


def he_normal(rng: np.random.Generator, n_in: int, n_out: int, out: Out = None) -> Weights:
    """Normal with variance 2 / n_in. He et al., ICCV 2015.

    Examples
    --------
    >>> round(float(he_normal(np.random.default_rng(0), 200, 50).std()), 2)
    0.1
    """
    return _normal(rng, n_in, n_out, 2 / n_in, out)


def lecun_uniform(rng: np.random.Generator, n_in: int, n_out: int, out: Out = None) -> Weights:
    """Uniform in +-sqrt(3 / n_in). LeCun et al., Efficient BackProp, 1998.

    Examples
    --------
    >>> bool((np.abs(lecun_uniform(np.random.default_rng(0), 3, 100)) <= 1).all())
    True
    """
    return _uniform(rng, n_in, n_out, 1 / n_in, out)


def lecun_normal(rng: np.random.Generator, n_in: int, n_out: int, out: Out = None) -> Weights:
    """Normal with variance 1 / n_in. LeCun et al., Efficient BackProp, 1998.

    Examples
    --------
    >>> round(float(lecun_normal(np.random.default_rng(0), 100, 100).std()), 2)
    0.1
    """
    return _normal(rng, n_in, n_out, 1 / n_in, out)


def orthogonal(rng: np.random.Generator, n_in: int, n_out: int) -> Weights:
    """Orthonormal columns, or rows if these are fewer, drawn uniformly. Saxe et al., ICLR 2014.

    The factorisation is LAPACK's: unlike with the other initializers, the last bits depend on the machine.

    Examples
    --------
    >>> w = orthogonal(np.random.default_rng(0), 3, 2)
    >>> bool(np.allclose(w.T @ w, np.eye(2)))
    True
    """
    normal = rng.standard_normal((max(n_in, n_out), min(n_in, n_out)))
    q, r = np.linalg.qr(normal)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)  # otherwise LAPACK chooses the signs, and the draw is not uniform
    return np.ascontiguousarray(q if n_in >= n_out else q.T)


def zeros(rng: np.random.Generator, n_in: int, n_out: int) -> Weights:
    """All zeros, for output layers: hidden units with equal initial weights would stay equal.

    Examples
    --------
    >>> zeros(np.random.default_rng(0), 1, 2)
    array([[0., 0.]])
    """
    return np.zeros((n_in, n_out))


def constant(value: float) -> Initializer:
    """Return an initializer that sets every weight to ``value``.

    Examples
    --------
    >>> constant(0.5)(np.random.default_rng(), 1, 2)
    array([[0.5, 0.5]])
    """
    return partial(_constant, value=checks.number("constant: value", value, "(-inf, inf)"))


def _constant(rng: np.random.Generator, n_in: int, n_out: int, value: float) -> Weights:
    return np.full((n_in, n_out), value)


def _uniform(rng: np.random.Generator, n_in: int, n_out: int, variance: float, out: Out) -> Weights:
    limit = math.sqrt(3 * variance)
    return _in_pieces(lambda shape: rng.uniform(-limit, limit, shape), n_in, n_out, out)


def _normal(rng: np.random.Generator, n_in: int, n_out: int, variance: float, out: Out) -> Weights:
    return _in_pieces(lambda shape: rng.standard_normal(shape) * math.sqrt(variance), n_in, n_out, out)


def _in_pieces(draw: Callable[[tuple[int, int]], Weights], n_in: int, n_out: int, out: Out) -> Weights:
    """Draw all rows at once, or the same numbers into `out`, some rows at a time."""
    if out is None:
        return draw((n_in, n_out))
    rows = max(1, PIECE // n_out)
    for i in range(0, n_in, rows):
        out[i : i + rows] = draw((min(rows, n_in - i), n_out))
    return out


KNOWN: dict[str, Initializer] = {
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "he_uniform": he_uniform,
    "he_normal": he_normal,
    "lecun_uniform": lecun_uniform,
    "lecun_normal": lecun_normal,
    "orthogonal": orthogonal,
    "zeros": zeros,
}


SCALED = [draw for name, draw in KNOWN.items() if name.endswith(("uniform", "normal"))]


def fill(initializer: Initializer, rng: np.random.Generator, weights: NDArray[Any]) -> None:
    """Draw the weights of a layer into a matrix (n_in, n_out).

    >>> w = np.zeros((2, 3), "float32")
    >>> fill(he_normal, np.random.default_rng(0), w)
    >>> bool((w == he_normal(np.random.default_rng(0), 2, 3).astype("float32")).all())
    True
    """
    if initializer in SCALED:
        initializer(rng, *weights.shape, out=weights)  # type: ignore[call-arg]
        return
    drawn = checks.numeric("the array returned by initializer", initializer(rng, *weights.shape))
    if drawn.ndim and drawn.shape != weights.shape:
        raise ValueError(f"initializer must return a number or weights of shape {weights.shape}, got {drawn.shape}")
    checks.finite("the array returned by initializer", np.atleast_1d(drawn), weights.dtype)
    weights[...] = drawn


def get(initializer: str | Initializer) -> Initializer:
    """Return the initializer with this name, or the given function.

    Raises
    ------
    ValueError
        For an unknown name (the message lists the known ones).
    TypeError
        If it is neither a name nor a function.

    Examples
    --------
    >>> get("he_normal")(np.random.default_rng(0), 4, 2).shape
    (4, 2)
    """
    if isinstance(initializer, str):
        if initializer not in KNOWN:
            raise ValueError(keywords.unknown("initializer", initializer, sorted(KNOWN)))
        return KNOWN[initializer]
    if not callable(initializer):
        raise TypeError(f"initializer must be a name or a function (rng, n_in, n_out) -> weights, got {initializer!r}")
    return initializer
