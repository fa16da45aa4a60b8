"""Plans of a single op on buffers between canaries: how kernels are tested and benchmarked through the executor."""

import numpy as np

from fastmlp import activations, memory
from fastmlp.lockstep import LockStepExecutor
from fastmlp.plan import Plan
from fastmlp.runtime import _engine

CANARY = 1234.5
MARGIN = 64  # elements before and after
NEEDS_Z = {act.kind for act in map(activations.get, activations.KNOWN) if act.needs_z}


def guarded(rows, columns, dtype, values=None):
    """A padded matrix between canaries; its padding holds zeros, as a plan's does."""
    ld = memory.padded(columns, dtype)
    flat = memory.aligned(rows * ld + 2 * MARGIN, dtype)
    flat[:] = CANARY
    body = flat[MARGIN : MARGIN + rows * ld].reshape(rows, ld)
    body[:] = 0
    matrix = body[:, :columns]
    if values is not None:
        matrix[:] = values
    return matrix


def canaries(matrix):
    """The canaries before and after a guarded matrix."""
    raw = matrix.base  # the bytes that `memory.aligned` took
    start = matrix.__array_interface__["data"][0] - raw.__array_interface__["data"][0]
    margin, size = MARGIN * matrix.itemsize, len(matrix) * matrix.strides[0]
    before, after = raw[start - margin : start], raw[start + size : start + size + margin]
    return np.concatenate((before.view(matrix.dtype), after.view(matrix.dtype)))


def run_checked(op, rows, dtype, target, *, lr=0.1, weight=None, order=None, first_number=0, n_threads=1):
    """Run the op on both executors in lock step; raises LockStepError where they differ."""
    plan = Plan("one op", np.dtype(dtype), rows, [op])
    if n_threads > 1:
        plan.work = 1e12  # or the executor would not think it worth waking a worker
    checker = LockStepExecutor(plan, _engine.Engine(plan, target))
    offsets = np.array([0, rows])
    loss = checker.run(order, offsets, np.array([lr]), weight=weight, first_number=first_number, n_threads=n_threads)
    for name in ("x", "w", "y", "z", "dy", "dx", "g", "s1", "s2"):
        matrix = getattr(op, name)
        if matrix is not None:
            assert (canaries(matrix) == CANARY).all(), f"the kernel wrote outside of {name}"
    return loss[0]
