"""Argument checks: every error names the argument, the value and what is allowed.

The checks do not modify their arguments. They run before training or prediction begins, except for `all_finite`, which
is also called after a step or an epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .scans import surely_finite, surely_within

NATIVE = frozenset(  # the types that a gather reads in place, by dtype.str
    np.dtype(name).str
    for name in (*("float32", "float64", "uint8", "int8", "uint16"), *("int16", "uint32", "int32", "uint64", "int64"))
)
LEAST_WEIGHT, MOST_WEIGHT = 1e-100, 1e100  # the products of a loss and a weight, and of two sums of weights, are finite
MOST_STEPS = 2**63 - 1  # epochs or steps
CHUNK = 1 << 20  # elements checked at once, so that no check doubles the memory of the data


def shown(value: Any) -> str:
    """`value` for an error message: the first 200 characters of its repr, or its type if repr fails."""
    try:
        text = repr(value)
    except Exception:  # Python does not print integers of more than 4300 digits, for example
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."


def counted(n: int, noun: str) -> str:
    """`n` and the noun, in the plural unless n is 1.

    >>> counted(1, "output"), counted(3, "output")
    ('1 output', '3 outputs')
    """
    return f"{n} {noun}{'s' * (n != 1)}"


def is_number(value: Any, kind: type = Real) -> bool:
    """Whether it is a number, or with ``Integral`` a whole number; True and False are not numbers here."""
    return isinstance(value, kind) and not isinstance(value, (bool, np.bool_))


def whole(name: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """`value` as an int from `low` to `high`; TypeError or ValueError otherwise."""
    if not is_number(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {shown(value)}")
    if value < low or (high is not None and value > high):
        allowed = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}")
    return int(value)


def count(name: str, value: Any) -> int:
    """`value` as a number of epochs or steps: a `whole` number up to `MOST_STEPS`, which schedules convert to float."""
    if (found := whole(name, value)) > MOST_STEPS:
        raise ValueError(f"{name} must be at most {MOST_STEPS}, got {shown(value)}")
    return found


def number(name: str, value: Any, interval: str, *, whole: bool = False) -> float:
    """`value` as a float in the interval, as in ``"[0, 1)"``; TypeError or ValueError otherwise.

    With ``whole=True`` it must be a whole number, as for `whole`.
    """
    rule = f"{name} must be a {'whole ' if whole else ''}number in {interval}, got "
    if not is_number(value, Integral if whole else Real):
        raise TypeError(rule + shown(value))
    low, high = (float(end) for end in interval[1:-1].split(","))
    try:
        found = float(value)
    except OverflowError:  # an integer or a fraction greater than every float
        raise ValueError(rule + shown(value)) from None
    above = low <= found if interval[0] == "[" else low < found
    below = found <= high if interval[-1] == "]" else found < high
    if not (above and below):  # written so that NaN is refused, too
        raise ValueError(rule + shown(value))
    return found


def flag(name: str, value: Any) -> bool:
    """`value` as True or False; TypeError otherwise."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def one_of(name: str, value: Any, *allowed: str | None) -> str | None:
    """`value`, one of the allowed names or None; ValueError otherwise, also for arrays, which compare by element."""
    if not (value is None or isinstance(value, str)) or value not in allowed:
        *most, last = map(repr, allowed)
        raise ValueError(f"{name} must be {', '.join(most)} or {last}, got {shown(value)}")
    return value


def iterable(value: Any) -> bool:
    """Whether it can be iterated over, and is not a string."""
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes)) and getattr(value, "ndim", 1) > 0


def sequence(value: Any) -> bool:
    """Whether it is a list, tuple, array or other sequence, and not a string."""
    return isinstance(value, (Sequence, np.ndarray)) and iterable(value)


def sizes(value: Iterable[int]) -> tuple[int, ...]:
    """Layer sizes: at least an input and an output, each at least 1."""
    if not iterable(value):
        raise TypeError(f"sizes must be a list of whole numbers such as [784, 16, 10], got {shown(value)}")
    found = tuple(whole(f"sizes[{i}]", n) for i, n in enumerate(value))
    if len(found) < 2:
        raise ValueError(f"sizes must name at least an input and an output, as in [784, 10], got {list(found)}")
    return found


def real_dtype(value: DTypeLike) -> np.dtype[Any]:
    """float32 or float64."""
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = np.dtype(object)
    if value is None or dtype.name not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', got {shown(value)}")
    return dtype.newbyteorder("=")


def as_array(name: str, value: Any, of: str = "") -> NDArray[Any]:
    """`value` as an array of any type; TypeError or ValueError if the conversion fails, whatever it raised."""
    if type(value) is np.ndarray:  # outside the try block, which would convert errors of signal handlers
        return value
    try:
        sparse = hasattr(value, "toarray") and hasattr(value, "nnz")
        array: NDArray[Any] = np.empty(0) if sparse else np.asarray(value)
    except MemoryError:
        raise
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular array{of}: {error}") from error
    except Exception as error:  # a tensor on another device or of a type unknown to NumPy; the caller's code
        raise TypeError(f"{name} must be an array{of}, got {cannot(value, error)}") from error
    if sparse:
        raise TypeError(f"{name} must be dense, got a sparse {type(value).__name__}; use {name}.toarray()")
    unmasked(name, value)
    return array


def cannot(value: Any, error: Exception) -> str:
    """For an error message: the type of `value`, and the error raised on accessing it."""
    return f"an object of type {type(value).__name__}, which raised {type(error).__name__}: {error}"


def unmasked(name: str, value: Any) -> None:
    """ValueError if values of a masked array are masked: the numbers under a mask are not data."""
    if type(value) is np.ndarray or not isinstance(value, np.ndarray) or value.dtype.names is not None:
        return  # before numpy.ma, which NumPy imports on first use
    if isinstance(value, np.ma.MaskedArray) and (n := int(np.ma.getmaskarray(value).sum())):
        raise ValueError(
            f"{name} must have no masked values, got {n} masked of {value.size}: fill them, as with {name}.filled(0),"
            " or drop their rows first"
        )


def fits(owner: Any, dtype: np.dtype[Any]) -> None:
    """ValueError if a nonzero parameter of a loss or an activation becomes infinite or 0 in the network's dtype.

    Class weights are not checked: they multiply the sample weights, which are always float64.
    """
    for name in (field.name for field in fields(owner)):
        value = getattr(owner, name)
        several = iterable(value) and not isinstance(value, Mapping)
        for i, number in enumerate(value if several else [value]):
            if isinstance(number, Real) and number and not (0 < abs(_rounded(number, dtype)) < np.inf):
                place = f"{type(owner).__name__}: {name}" + (f"[{i}]" if several else "")
                raise ValueError(f"{place} must be neither 0 nor infinite once rounded to {dtype}, got {shown(number)}")


def _rounded(number: Real, dtype: np.dtype[Any]) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float64(float(number)).astype(dtype))


def numeric(name: str, value: ArrayLike) -> NDArray[Any]:
    """`value` as an array of a type that gather can read, copied only if its type or byte order requires it."""
    array = as_array(name, value, " of numbers")
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    if array.dtype.kind not in "fiu":
        table = array.dtype == object and hasattr(value, "dtypes") and hasattr(value, "astype")
        hint = f"; if all its columns are numbers, use {name}.astype(float)" if table else ""
        raise TypeError(f"{name} must hold real numbers, got an array of {array.dtype}{hint}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.str in NATIVE:
        return array
    with np.errstate(over="ignore"):  # infinite values are refused by the checks for finite numbers
        return array.astype(np.float32 if array.itemsize < 4 and array.dtype.kind == "f" else np.float64)


def all_finite(vector: NDArray[Any]) -> bool:
    """Whether a vector holds neither NaN nor infinity; scanned by the engine's workers, or by NumPy in chunks."""
    return surely_finite(vector) or all(np.isfinite(vector[i : i + CHUNK]).all() for i in range(0, len(vector), CHUNK))


def finite(name: str, array: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """ValueError if `array` holds NaN, infinity, or a value too large for `dtype`."""
    if array.dtype.kind != "f" or not array.size:
        return
    if array.itemsize <= dtype.itemsize and surely_finite(array):  # one pass; NumPy's minimum and maximum are two
        return
    limit = min(float(np.finfo(dtype).max), float(np.finfo(array.dtype).max))
    if surely_within(array, -limit, limit):
        return
    rows = max(1, CHUNK // max(1, array[0].size))
    for start in range(0, len(array), rows):
        chunk = array[start : start + rows]
        low, high = chunk.min(), chunk.max()
        if low >= -limit and high <= limit:
            continue
        bad = ~(np.abs(chunk) <= limit)
        index = tuple(int(k) for k in np.argwhere(bad)[0])
        where = ", ".join(str(k) for k in (index[0] + start, *index[1:]))
        raise ValueError(f"{name} must be finite numbers that fit {dtype}, got {chunk[index]} at {name}[{where}]")


def inputs(value: ArrayLike, columns: int, dtype: np.dtype[Any], name: str = "X") -> NDArray[Any]:
    """X: finite numbers, at least one row, and the network's number of columns."""
    array = shaped(value, columns, name)
    finite(name, array, dtype)
    return array


def shaped(value: ArrayLike, columns: int, name: str = "X") -> NDArray[Any]:
    """X: numbers, not necessarily finite; at least one row, and the network's number of columns."""
    array = numeric(name, value)
    if array.ndim != 2:
        hint = "; for one sample use X[None, :]" if array.ndim == 1 else ""
        raise ValueError(f"{name} must have 2 dimensions (rows, {columns}), got shape {array.shape}{hint}")
    if array.shape[1] != columns:
        raise ValueError(f"{name} must have {columns} columns, the network's inputs, got shape {array.shape}")
    if not len(array):
        raise ValueError(f"{name} must have at least 1 row, got shape {array.shape}")
    return array


def labels(value: ArrayLike, rows: int, classes: int, name: str = "y") -> NDArray[Any]:
    """Class numbers 0 .. classes - 1, one per row."""
    array = numeric(name, value)
    if array.shape != (rows,):
        raise ValueError(f"{name} must hold one class number for each of the {rows} rows of X, got shape {array.shape}")
    if array.dtype.kind in "iu" and surely_within(array, 0, classes - 1):
        return array
    if array.dtype.kind == "f":
        finite(name, array, np.dtype(np.float64))
        if (array != np.floor(array)).any():
            raise ValueError(
                f"{name} must hold whole class numbers 0..{classes - 1}, got {array[array != np.floor(array)][0]}"
            )
    unsigned = array if array.dtype.kind == "f" else array.view(f"u{array.itemsize}")  # in which -1 is a large number
    if unsigned.max() >= classes or (unsigned is array and array.min() < 0):
        wrong = array.min() if array.min() < 0 else array.max()
        hint = "; for two classes use loss='binary_cross_entropy', or 2 outputs" if classes == 1 else ""
        has = f"the network has {counted(classes, 'output')}"
        raise ValueError(f"{name} must hold class numbers 0..{classes - 1} ({has}), got {wrong}{hint}")
    return array if array.dtype.kind in "iu" else array.astype(np.int64)


def dense_targets(
    value: ArrayLike, rows: int, columns: int, dtype: np.dtype[Any], name: str = "y", hint: str = ""
) -> NDArray[Any]:
    """Finite targets ``(rows, columns)``; a vector is taken as one column."""
    array = numeric(name, value)
    if array.ndim == 1 and columns == 1:
        array = array[:, None]
    if array.shape != (rows, columns):
        shape = f"({rows}, {columns})" + (f" or ({rows},)" if columns == 1 else "")
        raise ValueError(
            f"{name} must have shape {shape}, as many rows as X and a column for each output, got {array.shape}{hint}"
        )
    finite(name, array, dtype)
    return array


def within(array: NDArray[Any], low: float, high: float, why: str, name: str = "y") -> None:
    """ValueError unless every number lies in low..high."""
    if surely_within(array, low, high):
        return
    least, greatest = array.min(), array.max()
    if least < low or greatest > high:
        raise ValueError(f"{name} must lie in {low:g}..{high:g} {why}, got {least if least < low else greatest}")


def sample_weight(value: ArrayLike | None, rows: int, name: str = "sample_weight") -> NDArray[np.float64] | None:
    """One weight per row, each 0 or in [`LEAST_WEIGHT`, `MOST_WEIGHT`], not all zero."""
    if value is None:
        return None
    array = numeric(name, value)
    if array.shape != (rows,):
        raise ValueError(f"{name} must hold one weight for each of the {rows} rows of X, got shape {array.shape}")
    array = np.ascontiguousarray(array, dtype=np.float64)
    finite(name, array, np.dtype(np.float64))
    if array.min() < 0:
        raise ValueError(f"{name} must not be negative, got {array.min()}")
    if not array.max() > 0:
        raise ValueError(f"{name} must not be all zero")
    weighable(name, array)
    return array


def weighable(name: str, weight: NDArray[np.float64]) -> None:
    """ValueError unless every weight is 0 or in [`LEAST_WEIGHT`, `MOST_WEIGHT`]."""
    least, most = weight.min(initial=np.inf, where=weight > 0), weight.max()
    if least < LEAST_WEIGHT or most > MOST_WEIGHT:
        got = least if least < LEAST_WEIGHT else most
        raise ValueError(f"{name} must be 0 or in [{LEAST_WEIGHT:g}, {MOST_WEIGHT:g}], got {got:g}")


def same_length(name: str, value: Any, expected: int, what: str) -> list[Any]:
    """The items of `value`; TypeError unless it is a sequence, ValueError unless it has the expected number of them."""
    rule = f"{name} must have {counted(expected, 'item')}, {what}, got "
    several = isinstance(value, Sized) and iterable(value)
    if not several:
        raise TypeError(rule + shown(value))
    try:
        found = len(value)
        items: list[Any] = list(value) if found == expected else []
    except MemoryError:
        raise
    except Exception as error:
        raise TypeError(rule + cannot(value, error)) from error
    if len(items) != expected:
        raise ValueError(f"{rule}{found}")
    return items
