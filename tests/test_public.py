"""The public names, with scikit-learn and without it; and fastmlp without the engine, or a compiler to build it."""

import importlib.util
import inspect
import os
import pydoc
import runpy
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import fastmlp
from fastmlp import runtime

ESTIMATORS = ("MLPClassifier", "MLPRegressor", "sklearn")


@pytest.fixture
def without_sklearn(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn" or name.startswith("fastmlp.sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ESTIMATORS:
        monkeypatch.delitem(vars(fastmlp), name, raising=False)
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not there


def test_all_public_names_exist():
    assert [name for name in fastmlp.__all__ if not hasattr(fastmlp, name) or name not in dir(fastmlp)] == []


def test_every_public_name_has_a_home():
    assert {*fastmlp._HOMES, *fastmlp._MODULES} - {*ESTIMATORS} == {*fastmlp.__all__}


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


@pytest.mark.parametrize("why, text", [("", "is missing"), ("no such symbol", r"cannot be loaded \(no such symbol\)")])
def test_the_warning_without_the_engine_says_why_and_points_to_the_caller(monkeypatch, why, text):
    monkeypatch.delenv("FASTMLP_BACKEND", raising=False)
    monkeypatch.setattr(runtime, "_engine", None)
    monkeypatch.setattr(runtime, "why_not", why)
    monkeypatch.setattr(runtime, "_warned", False)
    with pytest.warns(RuntimeWarning, match=f"engine {text}, .* pip install .* fastmlp$") as caught:
        fastmlp.MLP([2, 2]).fit(*fastmlp.datasets.xor(), epochs=1)
    assert [warning.filename for warning in caught] == [__file__]
    assert (why or "not built") in fastmlp.show_config()


@pytest.mark.parametrize("broken", [True, False])
def test_an_engine_that_cannot_be_loaded_is_not_called_missing(tmp_path, broken):
    shutil.copytree(Path(fastmlp.__file__).parent, tmp_path / "fastmlp", ignore=shutil.ignore_patterns("_engine.*"))
    if broken:
        (tmp_path / "fastmlp" / f"_engine{EXTENSION_SUFFIXES[0]}").write_bytes(b"of another machine")
    command = [sys.executable, "-c", "import fastmlp; print(fastmlp.show_config())"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    told = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True).stdout
    assert ("cannot be loaded: " in told, "is not built" in told) == (broken, not broken), told


def test_a_build_without_a_compiler_says_how_to_do_without(monkeypatch, tmp_path):
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.setattr(setuptools, "setup", lambda **settings: None)
    monkeypatch.setenv("CC", "/no/such/compiler")
    monkeypatch.setenv("FASTMLP_PURE_PYTHON", "1")
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(Path(__file__).parents[1] / "setup.py"))
    extension = setuptools.Extension("nothing", ["nothing.c"])
    build = names["ParallelBuild"](setuptools.Distribution({"ext_modules": [extension]}))
    build.ensure_finalized()
    with pytest.raises(names["CompileError"], match="FASTMLP_PURE_PYTHON=1 pip install"):
        build.run()
