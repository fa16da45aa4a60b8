"""Op, Step and Plan: a training, gradient or prediction step as a flat list of ops.

An op holds its buffers (NumPy arrays, bound when the plan is built) and its numbers. What it computes is defined by a
formula in ``csrc/fastmlp.h`` and by a NumPy function of the same name in :mod:`fastmlp.reference`. The list for a
network is written by :mod:`fastmlp.tape`, and run by the compiled engine or the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import listing
from .opcodes import SPLITS

Array = NDArray[Any]

COLUMN_BLOCK = 128  # bytes: two cache lines, which processors often fetch together


def column_share(columns: int, dtype: DTypeLike, me: int, n_workers: int) -> tuple[int, int]:
    """Begin and end of worker `me`'s columns, in whole blocks, so that no two workers write to the same cache line.

    >>> [column_share(300, "float32", me, 2) for me in range(2)]
    [(0, 160), (160, 300)]
    """
    width = COLUMN_BLOCK // np.dtype(dtype).itemsize
    blocks = -(-columns // width)
    begin, end = (min(columns, -(-blocks * w // n_workers) * width) for w in (me, me + 1))
    return begin, end


@dataclass(slots=True)
class Rule:
    """The optimizer's hyperparameters in ``update`` and ``linear_update``.

    The fields are those of ``fm_rule`` in ``csrc/fastmlp.h``, which has the formulas.
    """

    nesterov: bool = False
    decay_bias: bool = False
    momentum: float = 0.0
    alpha: float = 0.99
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    l1: float = 0.0
    l2: float = 0.0
    decay: float = 0.0
    lr_weight: float = 1.0
    lr_bias: float = 1.0
    clip_value: float = 0.0
    clip_norm: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether there is neither clipping nor a penalty."""
        return not (self.l1 or self.l2 or self.decay or self.clip_value > 0 or self.clip_norm > 0)


@dataclass(slots=True)
class Op:
    """One operation with its buffers bound; the fields are those of ``fm_op`` in ``csrc/fastmlp.h``.

    Matrices are 2-D views ``(rows, columns)`` of padded rows; ``None`` if the op does not use one.
    """

    opcode: str
    kind: str = ""
    n_in: int = 0
    n_out: int = 0
    labels: bool = False
    bias: bool = False
    accumulate: bool = False
    smooth_clip: bool = False
    direct: bool = False  # x may be read from the data itself if its type is the plan's: the gather then does nothing
    fetch: bool = False  # linear_grad, linear_update: prefetch rows of the next batch meanwhile
    columns: bool = False  # the workers of a team split the columns of the result, not rows
    parts: bool = False  # two workers split the inputs: the second continues with the sums of the first
    first_in: int = 0  # gather, linear: number of the first of these columns in X
    copies: list[Array] | None = None  # x of each worker of a team; each gathers into its own
    x: Array | None = None
    w: Array | None = None
    init: Array | None = None
    y: Array | None = None
    z: Array | None = None
    dy: Array | None = None
    dx: Array | None = None
    t: Array | None = None
    g: Array | None = None
    s1: Array | None = None
    s2: Array | None = None
    part: Array | None = None
    aux: Array | None = None
    row_loss: Array | None = None
    nonfinite: Array | None = None  # gather: one uint8, set to 1 where a value is not finite
    data: Array | None = None
    param: float = 0.0
    seed: int = 0
    rule: Rule = field(default_factory=Rule)

    @property
    def split(self) -> str:
        """What is split over the workers: ``"rows"`` or ``"params"``."""
        return SPLITS[self.opcode]

    @property
    def span(self) -> int:
        """Number of rows of parameters to split; 0 for an op that splits rows of the batch."""
        if self.split == "rows":
            return 0
        if self.opcode == "max_norm":  # whole columns, in blocks of 64 bytes
            return -(-self.n_out * np.dtype(self.w.dtype).itemsize // 64)  # type: ignore[union-attr]
        return self.n_in + 1

    @property
    def own(self) -> bool:
        """Whether each worker of a team runs its own version of this op, on all rows; see `of_worker`."""
        return self.share in ("inputs", "columns", "copies")

    @property
    def share(self) -> str:
        """How a team shares this op, as shown in the listing: `split`, or what each worker has for itself."""
        if self.parts and self.split == "rows":
            return "inputs"
        if self.columns:
            return "columns"
        return "copies" if self.opcode == "gather" and self.copies is not None else self.split

    def of_worker(self, me: int, n_workers: int) -> Op:
        """The version of this op that worker `me` of a team runs.

        By columns: the worker's columns of the result, and its copy of x, if any. By parts: its columns of x and its
        rows of the weights.
        """
        if self.share == "inputs":
            return self._part(me, n_workers)
        op = self if self.copies is None else replace(self, x=self.copies[me])
        return op._columns(me, n_workers) if self.columns else op

    def _columns(self, me: int, n_workers: int) -> Op:
        """The worker's columns of the result and of arrays shaped like it; those of dx are rows of the weights."""
        back = self.opcode == "linear_back"
        begin, end = column_share(self.n_in if back else self.n_out, self.w.dtype, me, n_workers)  # type: ignore[union-attr]
        across = ("y", "z", "dx") if back else ("w", "y", "z", "dy", "s1", "s2")
        mine = {name: array[:, begin:end] for name in across if (array := getattr(self, name)) is not None}
        if back:
            return replace(self, n_in=end - begin, w=self.w[begin:end], **mine)  # type: ignore[index]
        return replace(self, n_out=end - begin, **mine)

    def _part(self, me: int, n_workers: int) -> Op:
        """The inputs whose weights the worker updates in `linear_update`, which splits the rows of weights and bias.

        This is only the initial split: like all shares, it is adapted to the speed of each worker (plan.c).
        """
        begin, end = ((self.n_in + 1) * w // n_workers for w in (me, me + 1))
        end = min(end, self.n_in)
        part = replace(self, n_in=end - begin, first_in=begin, x=self.x[:, begin:end])  # type: ignore[index]
        if self.opcode == "gather":
            return replace(part, w=None if self.w is None else self.w[:, begin:end])
        part = replace(part, w=self.w[begin:end], init=self.w[self.n_in :] if me == 0 else self.y)  # type: ignore[index]
        return part if me == n_workers - 1 else replace(part, kind="identity", z=None)

    @property
    def flops(self) -> float:
        """Floating-point operations for a full batch: exact for matrix products, elsewhere one per element."""
        rows = next((len(a) for a in (self.dy, self.x, self.y) if a is not None), 0)
        if self.opcode in ("linear", "linear_back", "linear_grad", "linear_update"):
            return 2.0 * rows * self.n_in * self.n_out
        return float(rows * max(self.n_in, self.n_out)) if self.split == "rows" else float(self.n_in * self.n_out)


@dataclass(slots=True)
class Step:
    """One batch as passed to the kernels: row ``r`` of the batch is row ``index[r]`` of the data."""

    rows: int
    number: int
    index: NDArray[np.int64]
    weight: NDArray[np.float64] | None
    inverse_weight: float
    lr: float


@dataclass
class Plan:
    """A list of ops over bound buffers; prints as a table.

    Attributes
    ----------
    title : str
        What the plan computes, for the first line of the listing.
    dtype : numpy.dtype
        Type of every matrix in it.
    capacity : int
        Maximum number of rows of a batch.
    ops : list of Op
    row_block : int
        Rows that a worker takes at once through consecutive ops that split rows.
    n_threads : int
        Number of workers it is written for, the maximum; the listing shows how they share it.
    first_update : int
        Index of the first op after the gradients, in a plan that stores gradients.
    """

    title: str
    dtype: np.dtype[Any]
    capacity: int
    ops: list[Op]
    row_block: int = 128
    n_threads: int = 1
    first_update: int = 0

    def __post_init__(self) -> None:
        losses = [op.row_loss for op in self.ops if op.opcode == "loss"]
        self.row_loss = losses[0] if losses else None
        self.gathers = [i for i, op in enumerate(self.ops) if op.opcode == "gather"]
        self.spans = [op.span for op in self.ops]
        self.syncs = [self._needs_sync(i) for i in range(len(self.ops))]
        self.own = [op.own for op in self.ops]
        self.team_syncs = [self._team_needs_sync(i) for i in range(len(self.ops))]
        self.work = sum(op.flops for op in self.ops)

    def _needs_sync(self, i: int) -> bool:
        """Whether op `i` reads what other workers wrote: it splits something else than the op before, or differently.

        The op before the first is the last one, of the previous step.
        """
        before, op = self.ops[i - 1], self.ops[i]
        crosses = {"update": "square_sum", "average": "max_norm"}
        if op.opcode == "max_norm":
            return before.opcode != "max_norm"
        return before.split != op.split or crosses.get(op.opcode) == before.opcode

    def _team_needs_sync(self, i: int) -> bool:
        """The same if workers have their own ops, which need no barrier for what only one worker reads and writes."""
        before, op = self.ops[i - 1], self.ops[i]
        if not (before.own or op.own):
            return self._needs_sync(i)
        return not ((op.own and op.opcode == "gather") or op.split == before.split == "params")

    def buffers(self, i: int, fields: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, Array]]:
        """The bound buffers of op `i` among the given fields (`opcodes.READS` or `opcodes.WRITES`)."""
        for name in fields[self.ops[i].opcode]:
            array = getattr(self.ops[i], name)
            if array is not None:
                yield name, array

    def found_nonfinite(self) -> bool:
        """Whether a gather that checks this has read a value that is not finite, since the last call."""
        found = False
        for i in self.gathers:
            flag = self.ops[i].nonfinite
            if flag is not None and flag[0]:
                found, flag[0] = True, 0
        return found

    def bind(self, X: Array, y: Array) -> None:
        """Bind data to the gathers; to be called before an executor is created for the plan."""
        for i, data in zip(self.gathers, (X, y), strict=True):
            self.ops[i].data = data

    def __str__(self) -> str:
        return listing.of(self)
