"""What `import fastmlp` offers, with scikit-learn and without it."""

import importlib.util
import inspect
import pydoc
import sys

import pytest

import fastmlp

ESTIMATORS = ("MLPClassifier", "MLPRegressor", "sklearn")


@pytest.fixture
def without_sklearn(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn" or name.startswith("fastmlp.sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ESTIMATORS:
        monkeypatch.delitem(vars(fastmlp), name, raising=False)
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not there


def test_all_public_names_can_be_had():
    assert [name for name in fastmlp.__all__ if not hasattr(fastmlp, name) or name not in dir(fastmlp)] == []


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn")
def test_the_estimators_are_listed_where_scikit_learn_is():
    assert set(ESTIMATORS) <= set(dir(fastmlp))


def test_the_estimators_are_not_listed_without_scikit_learn(without_sklearn):
    assert not set(ESTIMATORS) & set(dir(fastmlp))


def test_members_and_help_without_scikit_learn(without_sklearn):
    assert "MLP" in dict(inspect.getmembers(fastmlp))
    assert "fit_restarts" in pydoc.render_doc(fastmlp)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_asking_for_an_estimator_without_scikit_learn(without_sklearn, name):
    assert not hasattr(fastmlp, name)
    with pytest.raises(AttributeError, match=r"pip install 'fastmlp\[sklearn\]'"):
        getattr(fastmlp, name)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_importing_an_estimator_without_scikit_learn(without_sklearn, name):
    with pytest.raises(ImportError, match=r"pip install 'fastmlp\[sklearn\]'"):
        exec(f"from fastmlp import {name}", {})
