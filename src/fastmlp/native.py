"""The compiled engine, through which all C code is called; None if it is not built, or cannot be loaded."""

from __future__ import annotations

why_not = ""  # the engine that is installed cannot be loaded

try:
    from . import _engine
except ImportError as error:
    from importlib.util import find_spec

    _engine = None  # type: ignore[assignment]
    if find_spec(f"{__package__}._engine"):
        why_not = str(error)

__all__ = ["_engine", "why_not"]
