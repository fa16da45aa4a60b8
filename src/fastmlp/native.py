"""The compiled engine, through which all C code is called; None if it is not built."""

from __future__ import annotations

try:
    from . import _engine
except ImportError:
    _engine = None  # type: ignore[assignment]

__all__ = ["_engine"]
