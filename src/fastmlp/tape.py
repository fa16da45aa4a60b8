"""From a network to its plan: forward ops in order, backward ops in reverse, then the updates.

This is backpropagation in twenty lines: `Tape.forward`, `Tape.loss`, `Tape.backward`. All ``linear_back`` ops come before
the first update, so a layer's old weights are always the ones the gradient went through.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from . import layout
from .plan import Array, Op, Plan, Rule

if TYPE_CHECKING:
    from .mlp import MLP

FUSED_ROWS = 1024  # up to this batch, a weight-gradient tile sums over the whole batch without leaving the cache
PREDICTION_ROWS = 256  # rows of a batch of a prediction, for each worker


@dataclass
class Tape:
    """Writes ops down for one network; buffers are allocated as the ops need them."""

    net: MLP
    rows: int
    dropout: tuple[float, ...] = ()
    ops: list[Op] = field(default_factory=list)
    inputs: list[Array] = field(default_factory=list)  # of each layer
    outputs: list[Array] = field(default_factory=list)  # of each layer, before dropout
    pre: list[Array | None] = field(default_factory=list)  # pre-activations, where the derivative needs them
    deltas: list[Array] = field(default_factory=list)  # gradient of the loss by each layer's pre-activation

    def matrix(self, columns: int) -> Array:
        return layout.matrix(self.rows, columns, self.net.dtype)

    def gather(self) -> None:
        """The batch's rows of X into the first buffer, standardised if the network has learned how."""
        x = self.matrix(self.net.sizes[0])
        self.ops.append(Op("gather", n_in=self.net.sizes[0], x=x, **self.net.input_scaling()))
        self.inputs = [x]

    def forward(self, *, fused_output: bool, keep_pre: bool) -> None:
        """Layer after layer; with `fused_output` the last activation is left to the loss."""
        net = self.net
        self._drop(0)
        for i, (n_in, n_out) in enumerate(zip(net.sizes, net.sizes[1:], strict=False)):
            act, last = net.functions[i], i == len(net.sizes) - 2
            inside = act.name != "softmax" and not (last and fused_output)
            y = self.matrix(n_out)
            z = self.matrix(n_out) if keep_pre and inside and act.needs_z else None
            kind, param = (act.kind, act.param) if inside else ("identity", 0.0)
            x, w = self.inputs[i], net.matrices[i]
            self.ops.append(Op("linear", kind, n_in, n_out, bias=net.bias, x=x, w=w, y=y, z=z, param=param))
            if act.name == "softmax" and not (last and fused_output):
                self.ops.append(Op("activate", "softmax", n_out, n_out, x=y, y=y))
            self.outputs.append(y)
            self.pre.append(z)
            if not last:
                self.inputs.append(y)
                self._drop(i + 1)

    def _drop(self, i: int) -> None:
        """Dropout of the inputs of layer `i`."""
        if self.dropout and self.dropout[i]:
            n, y = self.net.sizes[i], self.matrix(self.net.sizes[i])
            self.ops.append(Op("dropout", n_in=n, n_out=n, x=self.inputs[i], y=y, **self._mask(i)))
            self.inputs[i] = y

    def _mask(self, i: int) -> dict[str, float | int]:
        return {"param": self.dropout[i], "seed": (self.net.seed << 16 | i) & (2**64 - 1)}

    def loss(self, labels: bool, *, fused_output: bool, gradient: bool) -> None:
        """Targets of the batch, loss of each row, and the gradient by the last pre-activation."""
        net, n_out = self.net, self.net.sizes[-1]
        t = layout.aligned(self.rows, np.int32) if labels else self.matrix(n_out)
        y, dy = self.outputs[-1], self.matrix(n_out) if gradient else None
        self.ops.append(Op("gather", n_in=1 if labels else n_out, labels=labels, **{"t" if labels else "x": t}))
        row_loss, kind, param = np.zeros(self.rows), net.loss.kind, net.loss.param
        aux = net.loss_aux()
        self.ops.append(Op("loss", kind, n_out, n_out, labels=labels, y=y, t=t, dy=dy, row_loss=row_loss, param=param, aux=aux))
        if dy is None:
            return
        act = net.functions[-1]
        if not fused_output and act.name != "identity":
            self.ops.append(
                Op("activate_back", act.kind, n_out, n_out, dy=dy, dx=dy, y=y, z=self.pre[-1], param=act.param)
            )
        self.deltas = [dy]

    def backward(self, *, to_inputs: bool = False) -> None:
        """The gradient by every layer's pre-activation, from the last to the first (to the inputs, if asked)."""
        net = self.net
        for i in range(len(net.sizes) - 2, -1 if to_inputs else 0, -1):
            n_in, n_out = net.sizes[i], net.sizes[i + 1]
            kind, param, y, z = "identity", 0.0, self.inputs[0], None
            if i:
                below = net.functions[i - 1]
                kind, param, y, z = below.kind, below.param, self.outputs[i - 1], self.pre[i - 1]
            dx = self.matrix(n_in)
            dy, w = self.deltas[0], net.matrices[i]
            self.ops.append(Op("linear_back", kind, n_in, n_out, dy=dy, w=w, y=y, z=z, dx=dx, param=param))
            if self.dropout and self.dropout[i]:
                self.ops.append(Op("dropout", n_in=n_in, n_out=n_in, x=dx, y=dx, **self._mask(i)))
            self.deltas.insert(0, dx)

    def scatter(self) -> None:
        """The outputs into the caller's array."""
        self.ops.append(Op("scatter", n_out=self.net.sizes[-1], y=self.outputs[-1]))

    def params(self, opcode: str, kind: str = "", **buffers: list[Array] | None) -> None:
        """One op a layer, from the last to the first; `buffers` hold one matrix a layer."""
        net = self.net
        for i in range(len(net.sizes) - 2, -1, -1):
            bound = {name: arrays[i] for name, arrays in buffers.items() if arrays}
            self.ops.append(Op(opcode, kind, net.sizes[i], net.sizes[i + 1], bias=net.bias, **bound))

    def plan(self, n_threads: int) -> Plan:
        return Plan(self.net.title(), self.net.dtype, self.rows, self.ops, n_threads=n_threads)


def gradient_plan(
    net: MLP, rows: int, labels: bool, gradients: list[Array], n_threads: int = 1, *, to_inputs: bool = False
) -> tuple[Plan, Tape]:
    """Loss and gradients of one batch, without moving a weight."""
    tape = Tape(net, rows)
    fused = net.fuses_output()
    tape.gather()
    tape.forward(fused_output=fused, keep_pre=True)
    tape.loss(labels, fused_output=fused, gradient=True)
    tape.backward(to_inputs=to_inputs)
    tape.params("linear_grad", x=tape.inputs, dy=tape.deltas[-len(net.sizes) + 1 :], g=gradients)
    return tape.plan(n_threads), tape


def forward_plan(net: MLP, rows: int, n_threads: int = 1) -> tuple[Plan, Tape]:
    """The outputs of every layer, left in the tape's buffers."""
    tape = Tape(net, rows)
    tape.gather()
    tape.forward(fused_output=False, keep_pre=False)
    return tape.plan(n_threads), tape


def evaluation_plan(net: MLP, rows: int, labels: bool, n_threads: int = 1) -> Plan:
    """Loss and outputs of rows, without gradients; where the loss contains the output activation, from before it."""
    tape = Tape(net, rows)
    fused = net.fuses_output()
    tape.gather()
    tape.forward(fused_output=fused, keep_pre=False)
    tape.loss(labels, fused_output=fused, gradient=False)
    tape.scatter()
    return tape.plan(n_threads)


def prediction_plan(net: MLP, rows: int, n_threads: int = 1) -> Plan:
    """Outputs of rows."""
    tape = Tape(net, rows)
    tape.gather()
    tape.forward(fused_output=False, keep_pre=False)
    tape.scatter()
    return tape.plan(n_threads)


def training_plan(
    net: MLP,
    rows: int,
    labels: bool,
    kind: str,
    rule: Rule,
    states: list[list[Array]],
    *,
    dropout: tuple[float, ...] = (),
    unfused: bool = False,
    n_threads: int = 1,
) -> Plan:
    """One training step: forward, loss, backward, and an update of every weight.

    `states` are the optimizer's matrices, one list a state. The gradient stays in registers and a tile of scratch unless
    something needs all of it first (clipping by global norm) or the batch is too long for a tile.
    """
    tape = Tape(net, rows, dropout)
    fused = net.fuses_output()
    tape.gather()
    tape.forward(fused_output=fused, keep_pre=True)
    tape.loss(labels, fused_output=fused, gradient=True)
    tape.backward()
    s1, s2 = (states + [None, None])[:2]  # type: ignore[list-item]
    first = len(tape.ops)
    if unfused or rule.clip_norm or rows > FUSED_ROWS:
        gradients = net.layout.matrices(net.layout.zeros())
        tape.params("linear_grad", x=tape.inputs, dy=tape.deltas, g=gradients)
        if rule.clip_norm:
            parts = np.zeros((1, sum(n + 1 for n in net.sizes[:-1])))
            starts = np.cumsum([0, *(n + 1 for n in net.sizes[:-1])])
            tape.params("square_sum", g=gradients, part=[parts[:, a:b] for a, b in zip(starts, starts[1:], strict=False)])
            tape.params("update", kind, w=net.matrices, g=gradients, s1=s1, s2=s2, part=[parts] * len(gradients))
        else:
            tape.params("update", kind, w=net.matrices, g=gradients, s1=s1, s2=s2)
    else:
        tape.params("linear_update", kind, x=tape.inputs, dy=tape.deltas, w=net.matrices, s1=s1, s2=s2)
    for op in tape.ops[first:]:
        op.rule = rule
    return tape.plan(n_threads)
