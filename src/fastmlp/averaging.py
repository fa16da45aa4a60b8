"""Average: the moving average of a network's parameters, which can be swapped into the network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .interrupts import WholeSteps
from .layout import Vector
from .network import Network


class Average(Vector):
    """a = decay a + (1 - decay) w after every update, starting from the weights before the first one.

    Attributes
    ----------
    flat : array
        The averaged parameters, updated by the plan's last ops.
    decay : float
    begun : bool
        Whether `flat` has been initialised.
    """

    def __init__(self, net: Network, decay: float) -> None:
        super().__init__(net.layout)
        self.net, self.decay, self.begun = net, decay, False
        self.raw: NDArray[Any] | None = None  # the trained weights, while the network holds the average

    def begin(self) -> None:
        """Start from the current weights, unless there is an average already."""
        if not self.begun:
            self.flat[:] = self.net.parameters
            self.begun = True

    def show(self) -> None:
        """Copy the average into the network, until `hide`."""
        if not self.begun or self.raw is not None:
            return
        with WholeSteps():
            self.raw = self.net.parameters.copy()
            self.net.parameters[:] = self.flat

    def hide(self) -> None:
        """Restore the raw weights; if the network was given others meanwhile, restart the average from those."""
        raw = self.raw
        if raw is None:
            return
        with WholeSteps():
            if np.array_equal(self.net.parameters, self.flat):
                self.net.parameters[:] = raw
            else:
                self.flat[:] = self.net.parameters
            self.raw = None
