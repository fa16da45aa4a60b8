"""Predictions of a few rows without scikit-learn's checks: the same results, errors and warnings."""

import numpy as np
import pytest
from conftest import needs_engine
from numpy.testing import assert_array_equal

pytest.importorskip("sklearn")
from sklearn.exceptions import NotFittedError

import fastmlp.sklearn as ours
import fastmlp.sklearn.base

pytestmark = needs_engine

TARGETS = {
    "two classes": ("MLPClassifier", lambda rng: rng.integers(0, 2, 60)),
    "three classes": ("MLPClassifier", lambda rng: np.array(["a", "b", "c"])[rng.integers(0, 3, 60)]),
    "labels": ("MLPClassifier", lambda rng: rng.integers(0, 2, (60, 3))),
    "numbers": ("MLPRegressor", lambda rng: rng.standard_normal(60)),
    "pairs": ("MLPRegressor", lambda rng: rng.standard_normal((60, 2))),
    "counts": ("MLPRegressor", lambda rng: rng.poisson(3.0, 60)),
}


def fitted(name, dtype=np.float64, **settings):
    """An estimator that has predicted often enough to have a short way, and the X it was fitted on."""
    rng = np.random.default_rng(5)
    kind, targets = TARGETS[name]
    X, y = rng.standard_normal((60, 4)).astype(dtype), targets(rng)
    settings |= {"loss": "poisson"} if name == "counts" else {}
    estimator = getattr(ours, kind)(hidden_layer_sizes=(7,), max_iter=3, random_state=0, **settings).fit(X, y)
    for _ in range(2):
        estimator.predict(X.tolist())
    return estimator, X


@pytest.fixture
def validated(monkeypatch):
    """A list with one item for each call of scikit-learn's checks."""
    calls = []
    theirs = fastmlp.sklearn.base.validate_data
    monkeypatch.setattr(
        fastmlp.sklearn.base, "validate_data", lambda *given, **named: calls.append(1) or theirs(*given, **named)
    )
    return calls


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("n_threads", [None, 1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TARGETS)
def test_answers_are_those_of_the_long_way(name, dtype, n_threads, validated):
    estimator, X = fitted(name, dtype, n_threads=n_threads, standardize="mean")
    methods = ["predict"] + ["predict_proba", "predict_log_proba"] * hasattr(estimator, "predict_proba")
    asked = len(validated)
    for method in methods:
        answer = getattr(estimator, method)
        expected = answer(X.tolist())  # a list is checked
        assert len(validated) == (asked := asked + 1)
        for rows in (1, 2, 9, 60):
            found = answer(X[:rows])
            assert_array_equal(found, expected[:rows])
            assert found.dtype == expected.dtype
            assert_array_equal(answer(np.asfortranarray(X[:rows])), expected[:rows])
        assert len(validated) == asked


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X: X[:, :3], "X has 3 features, but MLPClassifier is expecting 4 features as input"),
        (lambda X: X[:0], "Found array with 0 sample"),
        (lambda X: X[0], "Expected 2D array, got 1D array instead"),
        (lambda X: X[None], "Found array with dim 3"),
        (lambda X: np.where(X.max() == X, np.nan, X), "Input X contains NaN"),
        (lambda X: np.where(X.max() == X, np.inf, X), "Input X contains infinity"),
        (lambda X: X + 1j, "Complex data not supported"),
        (lambda X: np.full(X.shape, "word"), "numeric|could not convert"),
    ],
    ids=["columns", "no rows", "1-D", "3-D", "nan", "infinity", "complex", "words"],
)
def test_bad_rows_get_the_messages_of_scikit_learn(spoil, message, validated):
    estimator, X = fitted("three classes")
    asked = len(validated)
    with pytest.raises(ValueError, match=message):
        estimator.predict(spoil(X))
    assert len(validated) == asked + 1


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_object_arrays_of_numbers_are_converted(validated):
    estimator, X = fitted("three classes")
    asked = len(validated)
    assert_array_equal(estimator.predict_proba(X.astype(object)), estimator.predict_proba(X))
    assert len(validated) == asked + 1


def test_an_unfitted_estimator_raises_not_fitted():
    with pytest.raises(NotFittedError, match="This MLPClassifier instance is not fitted yet"):
        ours.MLPClassifier().predict(np.ones((1, 4)))


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_rows_without_feature_names_get_a_warning():
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame(np.random.default_rng(0).standard_normal((60, 4)), columns=list("abcd"))
    estimator = ours.MLPClassifier((7,), max_iter=3, random_state=0).fit(X, np.arange(60) % 3)
    for _ in range(3):
        with pytest.warns(UserWarning, match="X does not have valid feature names"):
            estimator.predict(X.to_numpy())


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_predictions_use_weights_assigned_or_trained_since():
    estimator, X = fitted("numbers")
    before = estimator.predict(X[:2])
    estimator.intercepts_[-1] = estimator.intercepts_[-1] + 1.0
    assert_array_equal(estimator.predict(X[:2]), estimator.predict(X.tolist())[:2])
    assert (estimator.predict(X[:2]) > before).all()
    estimator.partial_fit(X, np.zeros(60))
    assert_array_equal(estimator.predict(X[:2]), estimator.predict(X.tolist())[:2])
    estimator.fit(X[:, :3], np.zeros(60))
    with pytest.raises(ValueError, match="X has 4 features, but MLPRegressor is expecting 3 features"):
        estimator.predict(X[:2])
