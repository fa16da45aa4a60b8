"""Tape: writes the ops of a network's plan, forward ops in order, backward ops in reverse, then the updates.

This is backpropagation: `Tape.forward`, `Tape.loss`, `Tape.backward`. All ``linear_back`` ops come before the first
update, so that gradients are always propagated through the old weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from . import memory
from .plan import Array, Op, Plan, Rule, column_share

if TYPE_CHECKING:
    from .network import Network

FUSED_ROWS = 1024  # maximum batch that a weight-gradient tile sums as a whole: at most reference.SUMMED_ROWS
NEAR = 1 << 19  # bytes of weights that fit a core's second-level cache together with their optimizer state
SERIAL_STEP = 4e5  # operations of a step, below which one worker runs it alone: as in csrc/run.c
DIRECT_ROWS = 1024  # the largest batch that is read in place: as in csrc/fastmlp.h
LONG_ROW = 256  # bytes of a row of inputs, from which reading in place is faster
SMALL_ROWS, SMALL_BYTES = 64, 64  # of a batch, of a layer's widths: csrc/kernels/small.inc.c reads no vectors of X
FEW = 4  # outputs, up to which the gradient may use vectors of inputs: see csrc/kernels/linear_grad.inc.c
DIRECT_COLUMNS = 64  # of a gradient, up to which reading in place pays; twice as many if workers split the inputs
PREDICTION_ROWS = 256  # rows of a batch of a prediction, for each worker
DISTANT = 8 << 20  # bytes of weights that are read from memory each time: as in csrc/kernels/nontemporal.inc.c
FEW_ROWS = 32  # of a batch for each worker, up to which reading the weights takes longer than multiplying by them
SOME_ROWS = 128  # the same for weights that are read from memory
BLOCK, DISTANT_BLOCK = 128, 256  # rows that a worker takes at once; the same if each block reads weights from memory


@dataclass
class Learning:
    """How weights are updated in a training step.

    Attributes
    ----------
    kind : str
        The optimizer.
    rules : list of Rule
        One per layer.
    states : list of list of array
        The optimizer's matrices: one list per state, one matrix per layer.
    dropout : tuple of float
        Rates for the inputs of each layer; empty if there is no dropout.
    key : int
        Key of the random numbers, 48 bits.
    max_norm : float
        Maximum norm of the weights into a unit; 0: no limit.
    averages : list of array or None
        Moving average of the parameters, with this `decay`.
    gradients : list of array or None
        Sum of the gradients of several batches, for one update.
    """

    kind: str
    rules: list[Rule]
    states: list[list[Array]]
    dropout: tuple[float, ...] = ()
    key: int = 0
    max_norm: float = 0.0
    averages: list[Array] | None = None
    decay: float = 0.0
    gradients: list[Array] | None = None


@dataclass
class Tape:
    """Writes the ops for one network, and allocates buffers as they need them.

    With `from_sums` the data are not rows of X but of the first layer's sums x w + b. The caller computes these, and
    that layer's gradient.
    """

    net: Network
    rows: int
    dropout: tuple[float, ...] = ()
    key: int = 0
    from_sums: bool = False
    ops: list[Op] = field(default_factory=list)
    inputs: list[Array] = field(default_factory=list)  # of each layer
    outputs: list[Array] = field(default_factory=list)  # of each layer, before dropout
    pre: list[Array | None] = field(default_factory=list)  # pre-activations, if the derivative needs them
    deltas: list[Array] = field(default_factory=list)  # gradient of the loss w.r.t. each layer's pre-activation
    gradients: list[Array] = field(default_factory=list)  # of each layer's weights, if they are stored
    middle: int = 0  # index of the first op after these

    def matrix(self, columns: int) -> Array:
        return memory.matrix(self.rows, columns, self.net.dtype)

    def gather(self) -> None:
        """Copy the batch's rows of X to the first buffer, standardised if the network does so."""
        if self.from_sums:
            self.inputs = [np.empty((0, 0))]  # read by no op: `forward` gathers the sums
            return
        x, scaling = self.matrix(self.net.sizes[0]), self.net.scaling
        op = Op("gather", n_in=self.net.sizes[0], x=x)
        if scaling:
            op.w, op.smooth_clip = scaling.matrix, scaling.smooth_clip
        self.ops.append(op)
        self.inputs = [x]

    def forward(self, *, fused_output: bool, keep_pre: bool) -> None:
        """Forward pass; with `fused_output` the last activation is left to the loss."""
        net = self.net
        self._drop(0)
        for i, (n_in, n_out) in enumerate(zip(net.sizes, net.sizes[1:], strict=False)):
            act, last = net.functions[i], i == len(net.sizes) - 2
            inside = not (act.for_outputs or (last and fused_output))
            y = self.matrix(n_out)
            z = self.matrix(n_out) if keep_pre and inside and act.needs_z else None
            kind, param = (act.kind, act.param) if inside else ("identity", 0.0)
            x, w = self.inputs[i], net.matrices[i]
            if i == 0 and self.from_sums:
                self._from_sums(kind, param, y, y if z is None else z)
            else:
                self.ops.append(Op("linear", kind, n_in, n_out, bias=net.bias, x=x, w=w, y=y, z=z, param=param))
            if act.for_outputs and not (last and fused_output):
                self.ops.append(Op("activate", act.kind, n_out, n_out, x=y, y=y))
            self.outputs.append(y)
            self.pre.append(z)
            if not last:
                self.inputs.append(y)
                self._drop(i + 1)

    def _from_sums(self, kind: str, param: float, y: Array, z: Array) -> None:
        """The first layer, given its sums."""
        n = self.net.sizes[1]
        self.ops.append(Op("gather", n_in=n, x=z))
        if kind != "identity":
            self.ops.append(Op("activate", kind, n, n, x=z, y=y, param=param))

    def _drop(self, i: int) -> None:
        """Dropout of the inputs of layer `i`."""
        if self.dropout and self.dropout[i]:
            y = self.matrix(self.net.sizes[i])
            self._mask(i, self.inputs[i], y)
            self.inputs[i] = y

    def _mask(self, i: int, x: Array, y: Array) -> None:
        """The mask, the same forward and backward: it depends only on key, layer, step and position."""
        n, seed = self.net.sizes[i], (self.key << 16 | i) & (2**64 - 1)
        self.ops.append(Op("dropout", n_in=n, n_out=n, x=x, y=y, param=self.dropout[i], seed=seed))

    def loss(self, labels: bool, *, fused_output: bool, gradient: bool) -> None:
        """Targets of the batch, loss of each row, and its gradient with respect to the last pre-activation."""
        net, n_out = self.net, self.net.sizes[-1]
        t = memory.aligned(self.rows, np.int32) if labels else self.matrix(n_out)
        y, dy = self.outputs[-1], self.matrix(n_out) if gradient else None
        self.ops.append(
            Op("gather", n_in=1, labels=True, t=t) if labels else Op("gather", n_in=n_out, x=t)  # t is what it gathers
        )
        row_loss, kind, param = np.zeros(self.rows), net.loss.kind, net.loss.param
        aux = net.loss_aux()
        self.ops.append(
            Op("loss", kind, n_out, n_out, labels=labels, y=y, t=t, dy=dy, row_loss=row_loss, param=param, aux=aux)
        )
        if dy is None:
            return
        self.through_output(dy, fused_output)

    def through_output(self, dy: Array, fused_output: bool) -> None:
        """Convert, in place, the gradient w.r.t. the outputs to that w.r.t. pre-activations, unless the loss did so."""
        act, n_out, y = self.net.functions[-1], self.net.sizes[-1], self.outputs[-1]
        if not fused_output and act.name != "identity":
            self.ops.append(
                Op("activate_back", act.kind, n_out, n_out, dy=dy, dx=dy, y=y, z=self.pre[-1], param=act.param)
            )
        self.deltas = [dy]

    def backward(self, *, to_inputs: bool = False) -> None:
        """Gradients with respect to pre-activations, from the last layer to the first (or to the inputs)."""
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
                self._mask(i, dx, dx)
            self.deltas.insert(0, dx)

    def propagate(self, labels: bool) -> None:
        """Forward pass, loss, and backward pass, up to the gradients with respect to all pre-activations."""
        fused = self.net.fuses_output()
        self.gather()
        self.forward(fused_output=fused, keep_pre=True)
        self.loss(labels, fused_output=fused, gradient=True)
        self.backward()

    def scatter(self) -> None:
        """Copy the outputs to the caller's array."""
        self.ops.append(Op("scatter", n_out=self.net.sizes[-1], y=self.outputs[-1]))

    def params(
        self, opcode: str, kind: str = "", rules: list[Rule] | None = None, /, **buffers: list[Array]
    ) -> list[Op]:
        """Add one op per layer, from the last to the first; `rules` and `buffers` have one item per layer."""
        net, first = self.net, len(self.ops)
        begin = 1 if self.from_sums and opcode == "linear_grad" else 0
        for i in range(len(net.sizes) - 2, begin - 1, -1):
            op = Op(opcode, kind, net.sizes[i], net.sizes[i + 1], bias=net.bias)
            for name, arrays in buffers.items():
                setattr(op, name, arrays[i])
            if rules:
                op.rule = rules[i]
            op.fetch = i == 0 and opcode in ("linear_grad", "linear_update")
            self.ops.append(op)
        return self.ops[first:]

    def update(self, learning: Learning, unfused: bool) -> None:
        """Update all weights. The gradient is not stored as a whole, only in registers and a scratch tile, except for:

        clipping by global norm, several batches per update, or a batch too long for a tile.
        """
        net, kind, rules = self.net, learning.kind, learning.rules
        moved = {"w": net.matrices, **dict(zip(("s1", "s2"), learning.states, strict=False))}
        accumulate, clip = learning.gradients is not None, rules[0].clip_norm > 0
        if not (unfused or accumulate or clip or self.rows > FUSED_ROWS):
            self.params("linear_update", kind, rules, x=self.inputs, dy=self.deltas, **moved)
        else:
            gradients = learning.gradients or net.layout.matrices(net.layout.zeros())
            self.gradient(gradients, accumulate=accumulate)
            if clip:
                starts = np.cumsum([0, *(n + 1 for n in net.sizes[:-1])])
                parts = np.zeros((1, starts[-1]))
                self.params("square_sum", g=gradients, part=[parts[:, a:b] for a, b in pairwise(starts)])
                moved["part"] = [parts] * len(gradients)
            self.params("update", kind, rules, g=gradients, **moved)
        if learning.max_norm:
            for op in self.params("max_norm", w=net.matrices):
                op.param = learning.max_norm
        if learning.averages:
            for op in self.params("average", w=net.matrices, aux=learning.averages):
                op.param = learning.decay

    def gradient(self, gradients: list[Array], *, accumulate: bool = False) -> None:
        """Gradients with respect to all parameters, written to these matrices or added to them."""
        for op in self.params("linear_grad", x=self.inputs, dy=self.deltas, g=gradients):
            op.accumulate = accumulate
        self.gradients, self.middle = gradients, len(self.ops)

    def part_workers(self, n_workers: int) -> None:
        """Reduce the communication of workers in the first layer, which reads most and passes no gradient on.

        A cache line read by one core must be invalidated there before another can write to it. So no worker reads
        weights of the first layer that another updates. Two workers take half of the inputs each if these are many: the
        second continues with the sums of the first. Otherwise each has columns, if there are enough, and a copy of the
        inputs. Neither pays off with little arithmetic, or if the weights do not stay in a core's own cache.
        """
        gather, linear, update = self.ops[0], self.ops[1], self.ops[-1]
        if n_workers < 2 or linear.opcode != "linear" or update.opcode != "linear_update":
            return
        if self.net.matrices[0].nbytes > NEAR or sum(op.flops for op in self.ops) < SERIAL_STEP:
            return
        if n_workers == 2 and linear.n_in >= 2 * linear.n_out:
            gather.parts = linear.parts = update.parts = True
        elif self._has_columns_for(n_workers, linear.n_out):
            copies = [self.inputs[0], *(self.matrix(gather.n_in) for _ in range(n_workers - 1))]
            gather.copies = linear.copies = update.copies = copies
            linear.columns = update.columns = True

    def _has_columns_for(self, n_workers: int, columns: int) -> bool:
        return all(np.diff(column_share(columns, self.net.dtype, me, n_workers)) for me in range(n_workers))

    def share_columns(self, n_workers: int) -> None:
        """Split products of few rows and many weights by columns over the workers of a team.

        Each worker then reads only its columns of the weights, for all rows. With a split by rows, every worker would
        read all weights, which takes longer than the barriers before and after each product.
        """
        for op in self.ops:
            columns = {"linear": op.n_out, "linear_back": op.n_in}.get(op.opcode, 0)
            few = self.rows <= (SOME_ROWS if _is_distant(op) else FEW_ROWS) * n_workers
            many = op.w is not None and op.w.nbytes > NEAR
            if columns and few and many and n_workers > 1 and self._has_columns_for(n_workers, columns):
                op.columns = True

    def read_in_place(self) -> None:
        """Let the first layer read the caller's rows in place, if their type is the network's.

        Only if no copy is needed for standardisation or dropout, and if it is faster: for tiny layers, and for long
        rows unless their gradient has many columns or very few.
        """
        gather, linear = self.ops[:2]
        readers = [op for op in self.ops if op.x is self.inputs[0] and op.opcode.startswith("linear")]
        if gather.w is not None or linear not in readers or self.rows > DIRECT_ROWS:
            return
        size = self.net.dtype.itemsize
        tiny = self.rows <= SMALL_ROWS and max(linear.n_in, linear.n_out) * size <= SMALL_BYTES
        long_rows = linear.n_in * size >= LONG_ROW
        if tiny or (long_rows and (len(readers) == 1 or self._gradient_reads_in_place(linear))):
            for op in (gather, *readers):
                op.direct = True

    def _gradient_reads_in_place(self, linear: Op) -> bool:
        """Whether the gradient of the first layer is as fast on the caller's rows as on a copy of them.

        Each block of columns reads all inputs again: for many columns a copy, with adjacent rows, is faster. With very
        few columns the kernel reads vectors of inputs, which requires a copy.
        """
        columns = linear.n_out // len(linear.copies) if linear.columns and linear.copies else linear.n_out
        return FEW < columns <= (2 * DIRECT_COLUMNS if linear.parts else DIRECT_COLUMNS)

    def plan(self, n_threads: int) -> Plan:
        self.share_columns(n_threads)
        block = DISTANT_BLOCK if any(_is_distant(op) for op in self.ops) else BLOCK
        return Plan(self.net.title(), self.net.dtype, self.rows, self.ops, block, n_threads, self.middle)


def _is_distant(op: Op) -> bool:
    return op.w is not None and op.w.nbytes > DISTANT
