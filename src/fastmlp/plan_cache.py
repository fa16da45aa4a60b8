"""PlanCache: the most recently used plans, with their executors."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeVar

V = TypeVar("V")

KEPT_PLANS = 4  # for batches of different lengths


class PlanCache(dict[Hashable, V]):
    """A dict that keeps only the items that were put last.

    Examples
    --------
    >>> cache = PlanCache({"rows": 1})
    >>> for rows in (2, 3, 4, 5):
    ...     cache.put(rows, f"plan for {rows}")
    >>> list(cache)
    [2, 3, 4, 5]
    """

    def put(self, key: Any, value: V) -> None:
        """Store an item as the newest; drop the oldest if there are too many."""
        self.pop(key, None)
        self[key] = value
        for old in list(self)[:-KEPT_PLANS]:  # a list: another thread may be changing the dict
            self.pop(old, None)
