"""The plans of a network: for training steps, gradients, evaluations and predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .plan import Array, Plan
from .tape import Learning, Tape

if TYPE_CHECKING:
    from .network import Network

SHARED_LAYER = 1 << 17  # bytes of weights, above which one row is faster with two workers in spite of their barriers


def gradient_plan(
    net: Network, rows: int, labels: bool, gradients: list[Array], n_threads: int = 1, *, accumulate: bool = False
) -> tuple[Plan, Tape]:
    """Loss and gradients of one batch, without an update."""
    tape = Tape(net, rows)
    tape.propagate(labels)
    tape.gradient(gradients, accumulate=accumulate)
    tape.read_in_place()
    return tape.plan(n_threads), tape


def output_gradient_plan(net: Network, rows: int, n_threads: int = 1) -> tuple[Plan, Tape, int]:
    """Gradient of any function of the outputs with respect to the inputs; also the index where its second half begins.

    The first half writes the outputs to ``tape.outputs[-1]``. The second reads the gradient with respect to the
    outputs, which the caller writes to ``tape.deltas[-1]``, and writes that with respect to the (standardised) inputs
    to ``tape.deltas[0]``.
    """
    tape = Tape(net, rows)
    tape.gather()
    tape.forward(fused_output=False, keep_pre=True)
    middle = len(tape.ops)
    tape.through_output(tape.matrix(net.sizes[-1]), fused_output=False)
    tape.backward(to_inputs=True)
    return tape.plan(n_threads), tape, middle


def forward_plan(net: Network, rows: int, n_threads: int = 1) -> tuple[Plan, Tape]:
    """Outputs of every layer, in the buffers of the tape."""
    tape = Tape(net, rows)
    tape.gather()
    tape.forward(fused_output=False, keep_pre=False)
    return tape.plan(n_threads), tape


def evaluation_plan(net: Network, rows: int, labels: bool, n_threads: int = 1) -> Plan:
    """Loss and outputs of rows, without gradients; outputs are before an activation that is part of the loss."""
    tape = Tape(net, rows)
    fused = net.fuses_output()
    tape.gather()
    tape.forward(fused_output=fused, keep_pre=False)
    tape.loss(labels, fused_output=fused, gradient=False)
    tape.scatter()
    tape.read_in_place()
    return tape.plan(n_threads)


def _prediction_tape(net: Network, rows: int) -> Tape:
    tape = Tape(net, rows)
    tape.gather()
    tape.ops[0].nonfinite = np.zeros(1, np.uint8)
    tape.forward(fused_output=False, keep_pre=False)
    tape.scatter()
    return tape


def prediction_plan(net: Network, rows: int, n_threads: int = 1) -> Plan:
    """Outputs of rows; `Plan.found_nonfinite` tells whether an input was not finite."""
    tape = _prediction_tape(net, rows)
    tape.read_in_place()
    return tape.plan(n_threads)


def shared_row_plan(net: Network) -> Plan | None:
    """Outputs of one row by two workers, which split the columns of large products; None if no product is large."""
    tape = _prediction_tape(net, 1)
    for op in tape.ops:
        if op.w is not None and op.opcode == "linear" and op.w.nbytes > SHARED_LAYER:
            op.columns = tape._has_columns_for(2, op.n_out)
    return tape.plan(2) if any(op.columns for op in tape.ops) else None


def training_plan(
    net: Network, rows: int, labels: bool, learning: Learning, *, unfused: bool = False, n_threads: int = 1
) -> Plan:
    """One training step: forward pass, loss, backward pass, and update of every weight."""
    tape = Tape(net, rows, learning.dropout, learning.key)
    tape.propagate(labels)
    tape.update(learning, unfused)
    tape.part_workers(n_threads)
    tape.read_in_place()
    return tape.plan(n_threads)
