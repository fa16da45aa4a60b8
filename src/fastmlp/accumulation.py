"""GradientSum: the gradient of several batches as if they were one."""

from __future__ import annotations

from .layout import Layout


class GradientSum:
    """The gradient of the mean loss over all rows of several batches, added up batch by batch.

    The loss of batches b together is sum_b W_b loss_b / sum_b W_b, where W_b is the sum of the sample weights of batch
    b, or its number of rows: that of one batch of all the rows. `flat` holds sum_b W_b g_b / unit, with the weight of
    the last batch as the unit: while batches weigh the same, the kernels do nothing but add.

    Attributes
    ----------
    flat : array
        The sum, in the network's layout; `matrices` are views of it.
    count : int
        Batches since `clear`.
    """

    def __init__(self, layout: Layout) -> None:
        self.flat = layout.zeros()
        self.matrices = layout.matrices(self.flat)
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.flat[:] = 0
        self.count, self.unit, self.total = 0, 0.0, 0.0

    def expect(self, weight: float) -> None:
        """A batch of that weight will be added next: one without weight adds zeros."""
        if weight > 0:
            if self.unit not in (0.0, weight):
                self.flat *= self.unit / weight
            self.unit = weight
        self.total += weight
        self.count += 1

    def finish(self) -> None:
        """From the sum to the mean."""
        if self.unit not in (0.0, self.total):
            self.flat *= self.unit / self.total
