"""The examples in the docstrings and in the README run, and print what they say."""

import doctest
import importlib.util
import pkgutil
import re
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
    text = README.read_text(encoding="utf-8")
    if importlib.util.find_spec("sklearn") is None:  # a section of its own, which no other one builds on
        text = re.sub(r"\n## In place of scikit-learn\n.*?(?=\n## )", "", text, flags=re.DOTALL)
    result = doctest.DocTestRunner().run(doctest.DocTestParser().get_doctest(text, {}, "README", str(README), 0))
    assert result.attempted > 0
    assert result.failed == 0
