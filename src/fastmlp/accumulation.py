"""GradientSum: the gradient of several batches as if they were one."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from .layout import Layout, Vector

FAR = 1e15  # ratio of successive batch weights above which the sum is set aside: float32 would soon overflow


class GradientSum(Vector):
    """The gradient of the mean loss over all rows of several batches, accumulated batch by batch.

    The joint loss of batches b is sum_b W_b loss_b / sum_b W_b, where W_b is the sum of the sample weights of batch b,
    or its number of rows: the loss of a single batch of all the rows. `flat` holds sum_b W_b g_b / unit, with the
    weight of the last batch as the unit: while batch weights are equal, the kernels only add.

    Attributes
    ----------
    flat : array
        The sum, in the network's layout; `matrices` are views of it.
    count : int
        Batches since `clear`.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.clear()

    def clear(self) -> None:
        """Reset to zero."""
        self.flat[:] = 0
        self.count, self.unit, self.total = 0, 0.0, 0.0
        self.aside: tuple[NDArray[Any], float] | None = None  # a part of the sum, and its unit

    def expect(self, weight: float) -> None:
        """Prepare for adding a batch of that weight; a batch of weight 0 adds zeros."""
        if weight > 0:
            if self.unit > FAR * weight:
                self._set_aside()
            elif self.unit not in (0.0, weight):
                self.flat *= self.unit / weight
            self.unit = weight
        self.total += weight
        self.count += 1

    def finish(self) -> None:
        """Convert the sum to the mean."""
        if self.unit not in (0.0, self.total):
            self.flat *= self.unit / self.total
        if self.aside:
            flat, unit = self.aside
            self.flat += flat * (unit / self.total)

    def _set_aside(self) -> None:
        """Move the sum so far to `aside`, with its unit: in that of the next batch it could overflow."""
        kept, unit = self.flat.copy(), self.unit
        if self.aside:
            flat, unit = self.aside[0], max(self.aside[1], self.unit)
            kept = kept * (self.unit / unit) + flat * (self.aside[1] / unit)
        self.aside = kept, unit
        self.flat[:] = 0
