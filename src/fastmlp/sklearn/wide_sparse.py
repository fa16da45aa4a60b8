"""Wide sparse rows: scipy multiplies them by the weights of the first layer, and plans continue from these sums.

Densifying them would take the memory and time of a dense X of that shape. The sums of a row run over its stored
elements in order, whatever the other rows and the number of threads. They equal those of dense rows up to rounding.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import bind_data
from ..evaluation import batches
from ..mlp import MLP
from ..network import Network
from ..runtime import executor
from ..tape import PREDICTION_ROWS, Learning, Tape
from ..threads import get_num_threads

WIDE = 1024  # columns, up to which rows are densified at little cost
SLICE_BYTES = 1 << 24  # of sums, or of densified rows, in memory at once


def is_wide(net: MLP, X: Any) -> bool:
    """Whether to use this module for X. Not if inputs are standardised, because zeros do not stay zero."""
    return hasattr(X, "tocsr") and net.sizes[0] > WIDE and net.scaling is None


def sums(net: Network, X: Any) -> NDArray[Any]:
    """X w + b of the first layer, where X is CSR."""
    n_in, stride = net.sizes[0], net.layout.strides[0]
    padded = net.parameters[: n_in * stride].reshape(n_in, stride)  # contiguous: scipy makes no copy
    z = (X.astype(net.dtype, copy=False) @ padded)[:, : net.sizes[1]]
    z += net.biases[0]
    return np.asarray(z)


def products(X: Any, deltas: NDArray[Any], gradient: NDArray[Any]) -> None:
    """Compute the gradient of the first layer, bias in the last row, from `deltas`, that of its sums."""
    gradient[:-1] = X.T.astype(deltas.dtype, copy=False) @ deltas
    deltas.sum(axis=0, out=gradient[-1])


def outputs(net: MLP, X: Any) -> NDArray[Any]:
    """Outputs of the last layer for CSR rows."""
    slices = batches(X.shape[0], max(1, SLICE_BYTES // (net.layout.strides[0] * net.dtype.itemsize)))
    n_threads, out = get_num_threads(), np.empty((X.shape[0], net.sizes[-1]), net.dtype)
    rows = min(int(slices[1]), PREDICTION_ROWS * n_threads)
    tape = Tape(net, rows, from_sums=True)
    tape.gather()
    tape.forward(fused_output=False, keep_pre=False)
    tape.scatter()
    runner = executor(tape.plan(n_threads), net.backend)
    for begin, end in pairwise(slices):
        runner.bind(0, sums(net, X[begin:end]))
        runner.bind(len(runner.plan.ops) - 1, out[begin:end])
        runner.run(None, batches(int(end - begin), rows), n_threads=n_threads)
    return net.restored(out)


class WideStep:
    """One training step: the counterpart of :func:`fastmlp.tape.training_plan` for wide rows.

    Its ops before `middle` compute gradients, the others update parameters. In between, the first layer's gradient is
    computed from that of its sums.
    """

    def __init__(self, net: MLP, rows: int, labels: bool, learning: Learning, n_threads: int) -> None:
        tape = Tape(net, rows, learning.dropout, learning.key, from_sums=True)
        tape.propagate(labels)
        tape.update(learning, unfused=True)
        self.net, self.deltas, self.gradient, self.middle = net, tape.deltas[0], tape.gradients[0], tape.middle
        self.runner = executor(tape.plan(n_threads), net.backend)
        self.plan, self.release = self.runner.plan, self.runner.release

    def run(self, X: Any, y: NDArray[Any], lr: Any, **settings: Any) -> NDArray[np.float64]:
        """Run the step on these rows, with X in CSR format; returns its loss, as a vector of one."""
        runner, offsets = self.runner, np.array([0, X.shape[0]])
        bind_data(runner, sums(self.net, X), y)
        loss = runner.run(None, offsets, lr, last_op=self.middle, **settings)
        products(X, self.deltas[: X.shape[0]], self.gradient)
        runner.run(None, offsets, lr, first_op=self.middle, **settings)
        return loss
