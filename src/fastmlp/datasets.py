"""Small data sets to try a network on: handwritten digits, exclusive or, spirals.

Each function returns ``(X, y)``: one sample per row of ``X``, its class in ``y``. Nothing is downloaded.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from . import checks
from .memory import check_size

__all__ = ["load_digits", "spirals", "xor"]


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return 1,797 handwritten digits of 8 x 8 pixels.

    Returns
    -------
    X : uint8 array of shape (1797, 64)
        Pixels from 0 (blank) to 16, row by row.
    y : int64 array of shape (1797,)
        The digit, 0 to 9; between 174 and 183 samples of each.

    Notes
    -----
    This is the test set of *Optical Recognition of Handwritten Digits* [1]_, licensed under CC BY 4.0, in the copy that
    scikit-learn distributes; 13 people wrote the digits. The samples are not in random order: shuffle before splitting.

    References
    ----------
    .. [1] Alpaydin, E. and Kaynak, C. (1998). Optical Recognition of Handwritten Digits [Dataset]. UCI Machine
       Learning Repository. https://doi.org/10.24432/C50P49

    Examples
    --------
    >>> X, y = load_digits()
    >>> X.shape, y.shape
    ((1797, 64), (1797,))
    >>> int(y[4])
    4
    >>> for row in X[4].reshape(8, 8):
    ...     print("".join(" .:-=+*#@"[pixel // 2] for pixel in row).rstrip())
        +
       -=
       *-..
      -# ==
     :@+ @-
     :#@*@
       .#+
       .@:
    """
    with files("fastmlp").joinpath("data/digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as data:
        return data["X"], data["y"].astype(np.int64)


def xor() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the four cases of exclusive or, the smallest problem that needs a hidden layer.

    Returns
    -------
    X : float32 array of shape (4, 2)
        Every pair of 0 and 1.
    y : int64 array of shape (4,)
        1 where the two differ.

    Examples
    --------
    >>> X, y = xor()
    >>> print(np.column_stack([X, y]).astype(int))
    [[0 0 0]
     [0 1 1]
     [1 0 1]
     [1 1 0]]
    """
    X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
    return X, np.array([0, 1, 1, 0], dtype=np.int64)


def spirals(
    n: int = 1000,
    seed: int | None = 0,
    *,
    classes: int = 2,
    turns: float = 1.5,
    noise: float = 0.02,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return points on interleaved spirals, one spiral per class: the classes are not linearly separable.

    A point of class ``c`` lies at radius ``u`` and angle ``2 pi (turns u + c / classes)``, with ``u`` uniform in
    (0, 1]; normal noise is added.

    Parameters
    ----------
    n : int
        Number of points, at least 1. Row ``i`` has class ``i % classes``, so class counts differ by at most one.
    seed : int or None
        Seed of the random numbers, at least 0; None for different points on every call.
    classes : int
        Number of spirals, at least 2.
    turns : float
        Number of turns of each spiral around the origin.
    noise : float
        Standard deviation of the noise added to each coordinate, at least 0.

    Returns
    -------
    X : float32 array of shape (n, 2)
    y : int64 array of shape (n,)

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range; the message names it and what is allowed.

    Examples
    --------
    >>> X, y = spirals(6, seed=1, classes=3)
    >>> X.shape, y
    ((6, 2), array([0, 1, 2, 0, 1, 2]))
    """
    n = checks.whole("n", n)
    seed = None if seed is None else checks.whole("seed", seed, 0)
    classes = checks.whole("classes", classes, 2, 2**31)
    turns = checks.number("turns", turns, "[-1e6, 1e6]")
    noise = checks.number("noise", noise, "[0, 1e6]")
    check_size(2 * n, np.float64, f"n={n} points")
    generator = np.random.default_rng(seed)
    y = np.arange(n, dtype=np.int64) % classes
    radius = 1 - generator.random(n)
    angle = 2 * np.pi * (turns * radius + y / classes)
    X = radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)]) + noise * generator.standard_normal((n, 2))
    return X.astype(np.float32), y
