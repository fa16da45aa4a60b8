"""The bundled data are the published ones; the generated data are what their docstrings say."""

import hashlib
from importlib.resources import files

import numpy as np
import pytest

from fastmlp.datasets import load_digits, spirals, xor


def test_digits_have_the_published_shape_range_and_class_counts():
    X, y = load_digits()
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((1797, 64), np.uint8, (1797,), np.int64)
    assert (X.min(), X.max()) == (0, 16)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_these_bytes():
    X, y = load_digits()
    digest = hashlib.sha256(X.tobytes() + y.astype("<i8").tobytes()).hexdigest()
    assert digest == "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"


def test_digits_are_those_of_scikit_learn():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    X, y = load_digits()
    assert np.array_equal(X, theirs.data)
    assert np.array_equal(y, theirs.target)


def test_each_call_gives_new_writable_arrays():
    X, y = load_digits()
    X[:], y[:] = 0, 0
    assert load_digits()[0].any()
    assert load_digits()[1].any()


def test_origin_and_licence_come_with_the_digits():
    text = files("fastmlp").joinpath("data/README.txt").read_text(encoding="utf-8")
    assert "CC BY 4.0" in text
    assert "10.24432/C50P49" in text


def test_xor():
    X, y = xor()
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((4, 2), np.float32, (4,), np.int64)
    assert len(np.unique(X, axis=0)) == 4
    assert np.array_equal(y, X[:, 0] != X[:, 1])


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_spirals_are_balanced_and_finite(n, classes):
    X, y = spirals(n, 3, classes=classes)
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((n, 2), np.float32, (n,), np.int64)
    assert np.isfinite(X).all()
    counts = np.bincount(y, minlength=classes)
    assert len(counts) == classes
    assert np.ptp(counts) <= 1


def test_spirals_without_noise_lie_on_the_formula():
    X, y = spirals(500, 1, classes=3, turns=2.0, noise=0)
    radius = np.hypot(*X.T.astype(float))
    assert np.all((radius > 0) & (radius <= 1 + 1e-6))
    angle = 2 * np.pi * (2.0 * radius + y / 3)
    assert np.allclose(X, radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)]), atol=1e-5)


def test_spirals_follow_the_seed():
    first, again, other = spirals(50, 1)[0], spirals(50, 1)[0], spirals(50, 2)[0]
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert spirals(50, None)[0].tobytes() != spirals(50, None)[0].tobytes()


def test_noise_moves_the_points_by_its_deviation():
    exact, noisy = spirals(4000, 1, noise=0)[0], spirals(4000, 1, noise=0.1)[0]
    assert np.std(noisy - exact) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": 0}, ValueError, r"n must be at least 1, got 0"),
        ({"n": 10.0}, TypeError, r"n must be a whole number, got 10\.0"),
        ({"n": True}, TypeError, r"n must be a whole number, got True"),
        ({"n": 10**15}, ValueError, r"n=10+ points would take"),
        ({"turns": 10**400}, ValueError, r"turns must be a number in"),
        ({"seed": -1}, ValueError, r"seed must be at least 0, got -1"),
        ({"seed": "a"}, TypeError, r"seed must be a whole number, got 'a'"),
        ({"classes": 1}, ValueError, r"classes must be between 2 and 2147483648, got 1"),
        ({"turns": float("nan")}, ValueError, r"turns must be a number in \[-1e6, 1e6\], got nan"),
        ({"turns": "2"}, TypeError, r"turns must be a number in \[-1e6, 1e6\], got '2'"),
        ({"noise": -0.1}, ValueError, r"noise must be a number in \[0, 1e6\], got -0\.1"),
        ({"noise": float("inf")}, ValueError, r"noise must be a number in \[0, 1e6\], got inf"),
    ],
)
def test_bad_arguments_are_named_with_what_is_allowed(arguments, error, message):
    with pytest.raises(error, match=message):
        spirals(**{"n": 10, **arguments})


def test_numpy_scalars_are_accepted():
    assert np.array_equal(spirals(np.int32(9), np.uint8(4), noise=np.float32(0.0))[0], spirals(9, 4, noise=0)[0])
