# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""The compiled executor: the only interface to the C code.

An :class:`Engine` copies a plan's numbers and the addresses of its buffers into C structs once; ``run`` then crosses
into C without the GIL. The buffers belong to NumPy: the engine keeps the plan alive and allocates none during a run.
"""

import os
import threading
import weakref

import numpy as np

cimport cython
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_STRIDED_RO, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
)
from libc.float cimport DBL_MAX, FLT_MAX
from libc.math cimport isfinite
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #define X(name, other) #name,
    static const char *const opcode_names[] = {FM_OPCODES(X)};
    #undef X
    #define X(name, other) #other,
    static const char *const split_names[] = {FM_OPCODES(X)};
    #undef X
    #define X(name, other) #name,
    static const char *const source_names[] = {FM_SOURCES(X)};
    #undef X
    #define X(name) #name,
    static const char *const activation_names[] = {FM_ACTIVATIONS(X)};
    static const char *const loss_names[] = {FM_LOSSES(X)};
    static const char *const optimizer_names[] = {FM_OPTIMIZERS(X)};
    #undef X
    #if defined(__clang__)
    #define FM_COMPILER "Clang " __clang_version__
    #elif defined(__GNUC__)
    #define FM_COMPILER "GCC " __VERSION__
    #else
    #define FM_COMPILER "unknown"
    #endif
    """
    const char *opcode_names[]
    const char *split_names[]
    const char *source_names[]
    const char *activation_names[]
    const char *loss_names[]
    const char *optimizer_names[]
    const char *FM_COMPILER


cdef tuple names(const char *const *table, int n):
    return tuple(table[i].decode() for i in range(n))

OPCODES = names(opcode_names, FM_N_OPCODES)
SPLITS = {name: split.lower() for name, split in zip(OPCODES, names(split_names, FM_N_OPCODES))}
SOURCES = names(source_names, FM_N_SOURCES)
ACTIVATIONS = names(activation_names, FM_N_ACTIVATIONS)
LOSSES = names(loss_names, FM_N_LOSSES)
OPTIMIZERS = names(optimizer_names, FM_N_OPTIMIZERS)
COMPILER = FM_COMPILER.decode()

# What an op's `kind` names, by opcode.
KINDS = {
    "gather": SOURCES, "linear": ACTIVATIONS, "linear_back": ACTIVATIONS, "activate": ACTIVATIONS,
    "activate_back": ACTIVATIONS, "loss": LOSSES, "update": OPTIMIZERS, "linear_update": OPTIMIZERS,
}
cdef int PAGE = 4096, LINE = 64  # bytes: addresses a page apart share a set of the L1 cache
cdef int AVX2_BYTES = 32  # size of a vector
cdef double HELD_WORK = 2 << 20  # floating-point operations of a call: beyond, other Python threads should run during it
cdef int FULL_WAYS = 6  # of a set's eight lines: with more, rows would evict one another
cdef object ndarray = np.ndarray, empty = np.empty


def insist_on_workers(bint insist):
    """Set whether all runs use the given number of threads, even if fewer are faster. For tests."""
    fm_team_insist(insist)


def targets(supported=True):
    """Names of the targets compiled in, best first; by default only those this CPU supports."""
    found = []
    cdef int i = 0
    while fm_targets[i].name != NULL:
        if not supported or fm_targets[i].supported():
            found.append(fm_targets[i].name.decode())
        i += 1
    return tuple(found)


cdef const fm_kernels *kernels_of(target, int dtype):
    """The kernels of the named target, which must exist, or else of the best supported one."""
    cdef int i = 0
    while fm_targets[i].name.decode() != target if target else not fm_targets[i].supported():
        i += 1
    return fm_targets[i].kernels[dtype]


include "_arrays.pxi"


def suited(plan, known):
    """The fastest target for a plan: AVX-512 is slower where AVX2 vectors hold all columns as well."""
    widest = max(max(op.n_in, op.n_out) for op in plan.ops) * plan.dtype.itemsize
    return "avx2" if known[0] == "avx512" and "avx2" in known and widest <= AVX2_BYTES else known[0]


cdef int64_t gcd(int64_t a, int64_t b) noexcept nogil:
    """The greatest common divisor; 0 counts as a multiple of everything."""
    while b:
        a, b = b, a % b
    return a if a >= 0 else -a


cdef class Engine:
    """Runs a :class:`fastmlp.plan.Plan` with compiled kernels.

    Parameters
    ----------
    plan : Plan
        Its buffers are bound permanently; only gather sources and scatter destinations can be replaced, by `bind`. If the
        plan allows it and X has the plan's type, whole runs read the rows of X in place, without copying them.
    target : str, optional
        One of `targets()`; default: the fastest for this plan. Results do not depend on it, except with ``"generic"``.
    """
    cdef fm_plan _plan
    cdef fm_op *_ops  # a list for any number of workers; then, if workers have ops of their own, a list for each
    cdef int _n_lists
    cdef int64_t *_span
    cdef uint8_t *_sync  # for any number of workers; then for a team, followed by its `own`
    cdef int64_t _data_rows
    cdef readonly object plan
    cdef readonly str target
    cdef object _lock, __weakref__
    cdef uint8_t *_fetch  # ops that prefetch rows of X
    cdef list _with_data
    cdef int _last_direct
    cdef fm_balance _balance
    cdef fm_choice _choice

    def __cinit__(self, plan, target=None):
        cdef int n = len(plan.ops)
        self._n_lists = 1 + plan.n_threads if any(plan.own) else 1
        self._ops = <fm_op *>calloc(n * self._n_lists, sizeof(fm_op))
        self._span = <int64_t *>calloc(n, sizeof(int64_t))
        self._sync = <uint8_t *>calloc(3 * n, sizeof(uint8_t))
        self._fetch = <uint8_t *>calloc(n, sizeof(uint8_t))
        if not (self._ops and self._span and self._sync and self._fetch):
            raise MemoryError(f"no memory for a plan of {n} ops")

    def __init__(self, plan, target=None):
        known = targets()
        self.target = suited(plan, known) if target is None else target
        if self.target not in known:
            raise ValueError(f"target must be one of {', '.join(known)} on this CPU, got {target!r}")
        self.plan = plan
        self._lock = threading.Lock()
        _engines.add(self)
        cdef int i, k, n = len(plan.ops)
        for i in range(n):
            for k in range(self._n_lists):
                self._set(&self._ops[k * n + i], plan.ops[i] if k == 0 else plan.ops[i].of_worker(k - 1, plan.n_threads))
                self._ops[k * n + i].partial = k > 0 and plan.ops[i].parts
            self._span[i], self._fetch[i] = plan.spans[i], plan.ops[i].fetch
            self._sync[i], self._sync[n + i], self._sync[2 * n + i] = plan.syncs[i], plan.team_syncs[i], plan.own[i]
        self._with_data = [i for i in range(n) if plan.ops[i].opcode in ("gather", "scatter")]
        direct = [i + 1 for i in range(n) if plan.ops[i].direct and plan.capacity <= FM_DIRECT_ROWS]
        self._last_direct = max(direct, default=0)
        self._plan.capacity = plan.capacity
        self._plan.kernels = kernels_of(self.target, plan.dtype == np.float64)
        self._plan.any.ops, self._plan.any.sync, self._plan.any.own = self._ops, self._sync, NULL
        if self._n_lists > 1:
            self._plan.n_workers = plan.n_threads
            self._plan.team.ops = self._ops + n
            self._plan.team.sync, self._plan.team.own = self._sync + n, self._sync + 2 * n
        self._plan.span = self._span
        self._plan.n_ops = n
        self._plan.row_block = plan.row_block
        self._plan.work = plan.work
        self._plan.adam = NULL
        for i in range(n):
            if plan.ops[i].split == "params" and plan.ops[i].kind == "adam":
                self._plan.adam = &self._ops[i].rule
        self._plan.row_loss = <const double *>address(plan.row_loss)
        self._plan.any.barriers = (FM_BARRIERS_BY_SYNC if any(plan.syncs) else
                                   FM_BARRIERS_FOR_LOSS if plan.row_loss is not None else FM_BARRIERS_NONE)
        self._plan.team.barriers = FM_BARRIERS_BY_SYNC
        for i in self._with_data:
            if plan.ops[i].data is not None:
                self._point(i)
        self._count_data_rows()

    def __dealloc__(self):
        free(self._ops)
        free(self._span)
        free(self._sync)
        free(self._fetch)

    cdef int _set(self, fm_op *c, op) except -1:
        c.opcode = OPCODES.index(op.opcode)
        c.kind = KINDS[op.opcode].index(op.kind) if op.kind and op.opcode in KINDS else 0
        c.labels, c.bias, c.accumulate, c.smooth_clip, c.direct = op.labels, op.bias, op.accumulate, op.smooth_clip, op.direct
        c.n_in, c.n_out, c.param, c.seed = op.n_in, op.n_out, op.param, op.seed
        c.first_in = op.first_in
        dtype = self.plan.dtype
        c.x, c.w, c.y, c.z = matrix(op.x, dtype), matrix(op.w, dtype), matrix(op.y, dtype), matrix(op.z, dtype)
        c.dy, c.dx, c.g = matrix(op.dy, dtype), matrix(op.dx, dtype), matrix(op.g, dtype)
        c.s1, c.s2, c.aux = matrix(op.s1, dtype), matrix(op.s2, dtype), matrix(op.aux, dtype)
        c.init = matrix(op.init, dtype)
        if op.init is not None and len(op.init) == 1:  # a bias, the same for all rows
            c.init.ld = 0
        c.t = matrix(op.t, None if op.labels else dtype)
        c.part = matrix(op.part, np.dtype(np.float64))
        if op.part is not None:
            c.part.ld = op.part.shape[1]
        c.row_loss = <double *>address(op.row_loss)
        c.nonfinite = <uint8_t *>address(op.nonfinite)
        rule = op.rule
        c.rule.nesterov, c.rule.decay_bias, c.rule.plain = rule.nesterov, rule.decay_bias, rule.plain
        c.rule.momentum, c.rule.alpha, c.rule.eps = rule.momentum, rule.alpha, rule.eps
        c.rule.beta1, c.rule.beta2 = rule.beta1, rule.beta2
        c.rule.l1, c.rule.l2, c.rule.decay = rule.l1, rule.l2, rule.decay
        c.rule.lr_weight, c.rule.lr_bias = rule.lr_weight, rule.lr_bias
        c.rule.clip_value, c.rule.clip_norm = rule.clip_value, rule.clip_norm
        return 0

    cdef int _point(self, int i) except -1:
        """Point op `i`, a gather or a scatter, at its data."""
        data = self.plan.ops[i].data
        cdef int64_t column = data.strides[1] if data.ndim > 1 else 0
        cdef int kind = self._ops[i].kind
        if self._ops[i].opcode == FM_gather:
            kind = SOURCE_CODES[data.dtype.str]
        self._point_at(i, kind, address(data), data.strides[0], column)
        return 0

    cdef void _point_at(self, int i, int kind, uintptr_t data, int64_t row, int64_t column) noexcept nogil:
        """Point op `i` at data, or at none (0); with the gather of the inputs, op 0, also the ops that prefetch."""
        cdef int k, j, n = self._plan.n_ops
        cdef fm_op *c
        if i == 0 and self._last_direct and data:
            self._read_in_place(kind, data, row, column)
        for k in range(self._n_lists):
            self._ops[k * n + i].kind = kind
            for j in range(i, n if i == 0 else i + 1):
                if j == i or self._fetch[j]:
                    c = &self._ops[k * n + j]
                    c.data, c.data_row, c.data_column = <const char *>data, row, column

    cdef void _read_in_place(self, int kind, uintptr_t data, int64_t row, int64_t column) noexcept nogil:
        """Have rows of X read in place if they are of the plan's type, aligned, and not all in the same cache sets."""
        cdef int64_t crowding = gcd(row, PAGE), size = self._plan.kernels.real_bytes
        self._plan.last_direct = self._last_direct if (
            kind == (SINGLE if size == sizeof(float) else DOUBLE) and column == size and row % size == 0 and data % size == 0
            and (crowding <= LINE or self._plan.capacity * crowding <= FULL_WAYS * PAGE)) else 0

    cdef int _count_data_rows(self) except -1:
        ops = self.plan.ops
        rows = [len(ops[i].data) for i in self._with_data if ops[i].data is not None]
        self._data_rows = min(rows, default=0)
        return 0

    def bind(self, int i, data):
        """Have gather or scatter number `i` of the plan read or write `data` from now on."""
        op = self.plan.ops[i]
        if op.opcode == "scatter" and data.dtype != self.plan.dtype:
            raise TypeError(f"scatter writes {self.plan.dtype}, got an array of {data.dtype}")
        if data.ndim != (1 if op.labels else 2) or (data.ndim == 2 and data.shape[1] != (op.n_in or op.n_out)):
            raise ValueError(f"op {i} ({op.opcode}) has {op.n_in or op.n_out} columns, got an array of shape {data.shape}")
        op.data = data
        self._point(i)
        self._count_data_rows()

    def release(self):
        """Drop the references to the arrays that gathers read and scatters write; bind others before the next run."""
        for i in self._with_data:
            self.plan.ops[i].data = None
            self._point_at(i, self._ops[i].kind, 0, 0, 0)
        self._data_rows = 0

    @property
    def in_place(self):
        """Whether the rows of the bound X are read in place, not gathered first."""
        return self._plan.last_direct > 0

    @property
    def measured(self):
        """Number of parts of runs that were timed with one worker, and with all; later ones use what is faster."""
        return self._choice.n[0], self._choice.n[1]

    @property
    def shares(self):
        """Each worker's share of the rows of a batch, and of an op's parameters, adjusted after each run.

        Two lists of numbers that add up to 1, or None before the first run. Results do not depend on them.
        """
        cdef int i, n = self._balance.n
        return [[self._balance.share[what][i] for i in range(n)] for what in range(2)] if n else None

    @shares.setter
    def shares(self, both):
        cdef int i, what
        fits = len(both) == 2 and 0 < len(both[0]) == len(both[1]) <= FM_MAX_WORKERS
        if not (fits and all(min(one) >= 0 < sum(one) < float("inf") for one in both)):
            raise ValueError(f"shares must be two lists of at most {FM_MAX_WORKERS} numbers from 0 on, not all 0, got {both!r}")
        for what in range(2):
            for i in range(len(both[0])):
                self._balance.share[what][i] = both[what][i] / sum(both[what])
        self._balance.n = len(both[0])

    def run(self, order, offsets, lr=None, *, weight=None, int64_t first_number=0, int first_op=0, last_op=None,
            int n_threads=1, far_apart=None):
        """Run steps: step `s` uses rows ``order[offsets[s]:offsets[s + 1]]`` at rate ``lr[s]``.

        Parameters
        ----------
        order : int64 array or None
            Row numbers of the data; None means 0, 1, 2, ...
        offsets : int64 array, shape (n_steps + 1,)
        lr : float64 array, shape (n_steps,), optional
        weight : float64 array, shape (n_data,), optional
            Sample weights; None means ones.
        first_number : int
            Steps taken since training began (Adam's bias correction and dropout depend on it).
        first_op, last_op : int
            Run only ops ``first_op .. last_op - 1``.
        n_threads : int
            Maximum number of workers; results do not depend on it.
        far_apart : bool or None
            Whether the workers' cores share no cache; None: measured where it matters. Results do not depend on it.

        Returns
        -------
        losses : float64 array, shape (n_steps,)
        """
        cdef const int64_t[::1] offsets_view = offsets, order_view
        cdef const double[::1] lr_view, weight_view
        cdef int64_t n_steps = offsets_view.shape[0] - 1, s, rows = self._data_rows
        losses = np.zeros(max(n_steps, 0))
        cdef double[::1] losses_view = losses
        cdef fm_run_args args
        if n_steps < 1:
            return losses
        args.order = NULL
        args.lr = NULL
        args.weight = NULL
        if order is not None:
            order_view = order
            args.order = &order_view[0] if order_view.shape[0] else NULL
        if lr is not None:
            lr_view = lr
            if lr_view.shape[0] < n_steps:
                raise ValueError(f"lr must have a rate for each of {n_steps} steps, got {lr_view.shape[0]}")
            args.lr = &lr_view[0]
        if weight is not None:
            weight_view = weight
            if weight_view.shape[0] < rows:
                raise ValueError(f"weight must have a value for each of {rows} rows, got {weight_view.shape[0]}")
            args.weight = &weight_view[0]
        args.offsets = &offsets_view[0]
        args.losses = &losses_view[0] if self._plan.row_loss != NULL else NULL
        args.n_steps = n_steps
        args.first_number = first_number
        args.first_op = first_op
        args.last_op = self._plan.n_ops if last_op is None else last_op
        args.n_threads = n_threads
        args.balance, args.choice = &self._balance, &self._choice
        args.apart = FM_APART_MEASURED if far_apart is None else FM_APART_FAR if far_apart else FM_APART_NEAR
        if not 0 <= args.first_op <= args.last_op <= self._plan.n_ops:
            raise ValueError(f"ops must lie in 0..{self._plan.n_ops}, got {first_op}..{last_op}")
        for s in range(args.first_op, args.last_op):
            if self._ops[s].data == NULL and self._ops[s].opcode in (FM_gather, FM_scatter):
                raise ValueError(f"op {s} ({self.plan.ops[s].opcode}) has no data: bind an array first")
        cdef int64_t ordered = rows if order is None else order_view.shape[0]
        cdef int64_t most = ordered if rows or order is not None else INT64_MAX
        for s in range(n_steps + 1):  # all first: else differences could overflow
            if not 0 <= offsets_view[s] <= most:
                raise ValueError(f"offsets must lie in 0..{most}, got {offsets_view[s]}")
        for s in range(n_steps):
            if not 0 < offsets_view[s + 1] - offsets_view[s] <= self._plan.capacity:
                raise ValueError(f"step {s} must have 1..{self._plan.capacity} rows, got {offsets_view[s + 1] - offsets_view[s]}")
        if order is not None:
            for s in range(offsets_view[0], offsets_view[n_steps]):
                if not 0 <= order_view[s] < rows:
                    raise ValueError(f"order must hold row numbers 0..{rows - 1}, got {order_view[s]}")
        with self._lock:
            with nogil:
                fm_run(&self._plan, &args)
        return losses


_engines = weakref.WeakSet()


def _renew_locks():
    """Replace the locks in a child process: a thread that held one does not exist there to release it."""
    for engine in _engines:
        (<Engine>engine)._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)

include "_row_predictor.pxi"
include "_quick_step.pxi"
