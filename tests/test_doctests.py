"""The examples in the docstrings and in the README run, and print what they say."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import fastmlp

README = Path(__file__).parents[1] / "README.md"
MODULES = ["fastmlp", *(f"fastmlp.{module.name}" for module in pkgutil.iter_modules(fastmlp.__path__))]
OPTIONAL = {"fastmlp.sklearn": "sklearn"}


@pytest.mark.parametrize("name", [name for name in MODULES if name != "fastmlp.__main__"])
def test_docstrings(name):
    if name in OPTIONAL:
        pytest.importorskip(OPTIONAL[name])
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_readme():
    result = doctest.testfile(str(README), module_relative=False, encoding="utf-8")
    assert result.attempted > 0
    assert result.failed == 0
