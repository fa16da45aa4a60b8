# One row at a time, the shortest way. Part of _engine.pyx, for it goes through an Engine's C structs.

cdef long threads_changed = 0  # how often


def reconsider_partners():
    """How many threads may be used has changed: a row predictor sends its partner away until it has asked again."""
    global threads_changed
    threads_changed += 1


cdef inline void point_row(fm_op *op, Py_buffer *row):
    op.data, op.data_row, op.data_column = <const char *>row.buf, row.strides[0], row.itemsize


@cython.no_gc_clear  # the partner may be using the engine until __dealloc__
cdef class RowPredictor:
    """Predicts one row at a time with no more overhead than its arithmetic: no checks in Python, no lock.

    Holds the GIL for the whole call, so that no other thread can be using the plan's buffers. While rows come quickly,
    one behind the other, a partner in another thread computes half of the large layers (csrc/partner.c).

    Parameters
    ----------
    engine : Engine
        Of a prediction plan for one row: a gather first, a scatter last.
    shared : Engine, optional
        Of the same for two workers with columns of their own, in buffers of its own.
    n_threads : callable, optional
        Tells how many threads may be used; asked before a partner is invited. None: any number.

    Attributes
    ----------
    partner_rows : int
        Rows that were computed by two.
    """
    cdef Engine _engine, _shared
    cdef object _shape, _dtype, _n_threads
    cdef int64_t _n_in
    cdef char _format
    cdef fm_partner *_partner
    cdef long _asked  # what threads_changed was then
    cdef bint _refused
    cdef readonly long partner_rows

    def __init__(self, Engine engine, Engine shared=None, n_threads=None):
        for one in (engine, shared) if shared is not None else (engine,):
            first, last = one.plan.ops[0], one.plan.ops[len(one.plan.ops) - 1]
            if (first.opcode, last.opcode, one.plan.capacity) != ("gather", "scatter", 1) or first.odd is None:
                raise ValueError("the plan must predict one row: gather with odd, ..., scatter")
        if shared is not None and (shared._plan.n_workers != 2 or shared._last_direct):
            raise ValueError("the shared plan must be for two workers with ops of their own, and read no row in place")
        self._engine, self._n_in = engine, first.n_in
        self._shape, self._dtype = (1, last.n_out), engine.plan.dtype
        self._format = b"f" if self._dtype == np.float32 else b"d"
        self._shared, self._n_threads = shared, n_threads
        if shared is not None and self._partner == NULL:
            self._partner = fm_partner_new(&shared._plan)

    def __dealloc__(self):
        fm_partner_free(self._partner)

    def insist(self):
        """Have a partner from now on wherever threads allow it, even where it is slower: for tests, on busy machines."""
        if self._partner != NULL:
            fm_partner_insist(self._partner)

    def __call__(self, x):
        """Outputs (1, n_out) for an array x (1, n_in) of the network's type and finite; None if x is anything else."""
        cdef Py_buffer view, to
        cdef int odd
        if type(x) is not ndarray:
            return None
        out = empty(self._shape, self._dtype)
        try:
            PyObject_GetBuffer(x, &view, PyBUF_STRIDED_RO | PyBUF_FORMAT)
        except ValueError:  # dates have no format
            return None
        try:
            if (view.ndim != 2 or view.shape[0] != 1 or view.shape[1] != self._n_in or view.format[1] != 0
                    or view.format[0] != self._format or view.strides[1] != view.itemsize):
                return None
            PyObject_GetBuffer(out, &to, PyBUF_STRIDED_RO)
            try:
                odd = self._alone(&view, &to) if self._partner == NULL else self._row(&view, &to)
            finally:
                PyBuffer_Release(&to)
        finally:
            PyBuffer_Release(&view)
        return None if odd else out

    cdef int _row(self, Py_buffer *x, Py_buffer *out) except -1:
        """Together with the partner, if it is there, else alone. Returns whether a value of x is not finite."""
        cdef fm_op *ops = self._shared._plan.team.ops
        cdef int did, odd
        cdef int64_t start
        if self._asked != threads_changed:
            self._asked, self._refused = threads_changed, False
            fm_partner_dismiss(self._partner)
        ops.kind = SINGLE if self._format == b"f" else DOUBLE
        point_row(ops, x)
        point_row(&ops[self._shared._plan.n_ops - 1], out)
        did = fm_partner_row(self._partner)
        ops.data = ops[self._shared._plan.n_ops - 1].data = NULL
        if did == FM_PARTNER_ROW:
            odd, ops.odd[0] = ops.odd[0], 0
            self.partner_rows += 1
            return odd
        if did == FM_PARTNER_WANTED and not self._refused:
            self._refused = self._n_threads is not None and self._n_threads() < 2
            if not self._refused:
                fm_partner_invite(self._partner)
        start = fm_ticks()
        odd = self._alone(x, out)
        fm_partner_was_alone(self._partner, start)
        return odd

    cdef int _alone(self, Py_buffer *x, Py_buffer *out):
        cdef int64_t[2] offsets
        cdef fm_run_args args
        cdef fm_op *gather = &self._engine._ops[0]
        cdef fm_op *scatter = &self._engine._ops[self._engine._plan.n_ops - 1]
        offsets[0], offsets[1] = 0, 1
        args.order, args.lr, args.weight, args.losses = NULL, NULL, NULL, NULL
        args.offsets = offsets
        args.n_steps, args.first_number, args.first_op = 1, 0, 0
        args.last_op, args.n_threads, args.apart = self._engine._plan.n_ops, 1, FM_APART_NEAR
        args.balance = NULL
        gather.kind = SINGLE if self._format == b"f" else DOUBLE
        point_row(gather, x)
        point_row(scatter, out)
        self._engine._plan.last_direct = self._engine._last_direct if <uintptr_t>x.buf % x.itemsize == 0 else 0
        fm_run(&self._engine._plan, &args)
        gather.data = scatter.data = NULL
        cdef int odd = gather.odd[0]
        gather.odd[0] = 0
        return odd
