"""The compiled engine, the only way into C; None where it is not built."""

from __future__ import annotations

try:
    from . import _engine
except ImportError:
    _engine = None  # type: ignore[assignment]

__all__ = ["_engine"]
