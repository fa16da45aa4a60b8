# The fast path for predicting one row, or a few. Included by _engine.pyx, because it needs an Engine's C structs.

cdef long threads_changed = 0  # number of changes of the number of threads

cdef enum:
    MOST_STEPS = 64  # in one call


def reconsider_partners():
    """Have row predictors dismiss their partners and ask again how many threads may be used, after a change."""
    global threads_changed
    threads_changed += 1


cdef inline void point_rows(fm_op *op, Py_buffer *rows):
    op.data, op.data_row, op.data_column = <const char *>rows.buf, rows.strides[0], rows.strides[1]


@cython.no_gc_clear  # the partner may be using the engine until __del__
cdef class RowPredictor:
    """Predicts few rows with little overhead: no checks in Python, no lock.

    Holds the GIL during a short call, so that no other thread can use the plans' buffers, and releases it during a longer
    one: concurrent callers then get None, and use the regular path. While single rows follow one another quickly, a partner
    in another thread computes half of the large layers (csrc/partner.c).

    Parameters
    ----------
    one : Engine, optional
        For a prediction plan for one row: a gather first, a scatter last. Without it, single rows go to `few`.
    shared : Engine, optional
        For the same with two workers, each with its own columns; with buffers of its own.
    n_threads : callable, optional
        Returns the number of threads that may be used; called for several rows, and before a partner is invited. None: one
        thread, and a partner.
    few : Engine, optional
        For a prediction plan for several rows, with buffers of its own.
    most : int, optional
        Maximum number of rows in a call, which may take several steps; default: the capacity of `few`.

    Attributes
    ----------
    partner_rows : int
        Number of rows computed together with a partner.
    most : int
        Maximum number of rows in a call.
    """
    cdef Engine _one, _shared, _few
    cdef object _shape, _dtype, _n_threads
    cdef int64_t _n_in, _n_out
    cdef fm_partner *_partner
    cdef long _asked  # threads_changed when _refused was set
    cdef bint _refused, _busy
    cdef long _counted  # threads_changed when _threads was set
    cdef int _threads
    cdef readonly long partner_rows
    cdef readonly int64_t most

    def __init__(self, Engine one=None, Engine shared=None, n_threads=None, Engine few=None, most=None):
        if one is None and few is None:
            raise ValueError("one or few must be an Engine")
        for engine in (one, shared, few):
            if engine is None:
                continue
            first, last = engine.plan.ops[0], engine.plan.ops[len(engine.plan.ops) - 1]
            single = engine is few or engine.plan.capacity == 1
            if (first.opcode, last.opcode, single) != ("gather", "scatter", True) or first.nonfinite is None:
                raise ValueError("the plan must predict one row: gather with nonfinite, ..., scatter")
        if shared is not None and (shared._plan.n_workers != 2 or shared._last_direct):
            raise ValueError("the shared plan must be for two workers with ops of their own, and read no row in place")
        self._one, self._few, self._n_in, self._n_out = one, few, first.n_in, last.n_out
        self.most = 1 if few is None else few.plan.capacity if most is None else min(most, MOST_STEPS * few.plan.capacity)
        self._shape, self._dtype = (1, last.n_out), (few if one is None else one).plan.dtype
        self._shared, self._n_threads = shared, n_threads
        if shared is not None and self._partner == NULL:
            self._partner = fm_partner_new(&shared._plan)

    def __del__(self):  # before the garbage collector clears what the partner is reading
        fm_partner_free(self._partner)
        self._partner = NULL

    def insist(self):
        """Use a partner from now on wherever threads allow it, even if that is slower: for tests, on busy machines."""
        if self._partner != NULL:
            fm_partner_insist(self._partner)

    def __call__(self, x):
        """Outputs (rows, n_out) for a finite array x (rows, n_in) that a gather can read; None for anything else.

        None also for more than `most` rows, and while another thread predicts several.
        """
        cdef Py_buffer view, to
        cdef int refused, kind
        cdef int64_t rows
        if type(x) is not ndarray:
            return None
        try:
            PyObject_GetBuffer(x, &view, PyBUF_STRIDED_RO | PyBUF_FORMAT)
        except ValueError:  # dates export no buffer
            return None
        try:
            rows = view.shape[0] if view.ndim == 2 else 0
            kind = source_of(&view)
            if kind == UNREADABLE or rows < 1 or rows > self.most or view.shape[1] != self._n_in:
                return None
            out = empty(self._shape if rows == 1 else (rows, self._n_out), self._dtype)
            PyObject_GetBuffer(out, &to, PyBUF_STRIDED_RO)
            try:
                if rows > 1 or self._one is None:
                    refused = self._run(self._few, rows, kind, &view, &to)
                elif self._partner == NULL:
                    refused = self._run(self._one, 1, kind, &view, &to)
                else:
                    refused = self._row(kind, &view, &to)
            finally:
                PyBuffer_Release(&to)
        finally:
            PyBuffer_Release(&view)
        return None if refused else out

    cdef int _row(self, int kind, Py_buffer *x, Py_buffer *out) except -1:
        """Predict one row, with the partner if it is present. Returns whether a value of x is not finite."""
        cdef fm_op *ops = self._shared._plan.team.ops
        cdef int did, nonfinite
        cdef int64_t start
        if self._asked != threads_changed:
            self._asked, self._refused = threads_changed, False
            fm_partner_dismiss(self._partner)
        ops.kind = kind
        point_rows(ops, x)
        point_rows(&ops[self._shared._plan.n_ops - 1], out)
        did = fm_partner_row(self._partner)
        ops.data = ops[self._shared._plan.n_ops - 1].data = NULL
        if did == FM_PARTNER_ROW:
            nonfinite, ops.nonfinite[0] = ops.nonfinite[0], 0
            self.partner_rows += 1
            return nonfinite
        if did == FM_PARTNER_WANTED and not self._refused:
            self._refused = self._n_threads is not None and self._n_threads() < 2
            if not self._refused:
                fm_partner_invite(self._partner)
        start = fm_ticks()
        nonfinite = self._run(self._one, 1, kind, x, out)
        fm_partner_was_alone(self._partner, start)
        return nonfinite

    cdef int _run(self, Engine engine, int64_t rows, int source, Py_buffer *x, Py_buffer *out) except -1:
        """Predict without the partner. Returns whether a value of x is not finite, or the engine is in use."""
        cdef int64_t[MOST_STEPS + 1] offsets
        cdef int64_t room = engine._plan.capacity, steps = 1 if rows <= room else (rows + room - 1) // room, s
        cdef fm_run_args args
        cdef int last = engine._plan.n_ops - 1, kind = engine._ops[last].kind
        cdef bint held = engine is self._one or engine._plan.work * rows < HELD_WORK * room
        cdef int n_threads = 1 if held else self._count()  # first: it may let another thread run
        if self._busy and engine is self._few:
            return True
        offsets[0], offsets[steps] = 0, rows
        for s in range(1, steps):  # of about the same length, each shared by all workers
            offsets[s] = rows * s // steps
        args.order, args.lr, args.weight, args.losses = NULL, NULL, NULL, NULL
        args.offsets = offsets
        args.n_steps, args.first_number, args.first_op = steps, 0, 0
        args.last_op, args.n_threads, args.apart = engine._plan.n_ops, n_threads, FM_APART_MEASURED
        args.balance, args.choice = &engine._balance, &engine._choice
        engine._point_at(0, source, <uintptr_t>x.buf, x.strides[0] if rows > 1 else 0, x.strides[1])
        engine._point_at(last, kind, <uintptr_t>out.buf, out.strides[0], out.itemsize)
        if held:
            fm_run(&engine._plan, &args)
        else:
            self._busy = True
            with nogil:
                fm_run(&engine._plan, &args)
            self._busy = False
        engine._point_at(0, engine._ops[0].kind, 0, 0, 0)
        engine._point_at(last, kind, 0, 0, 0)
        cdef int nonfinite = engine._ops[0].nonfinite[0]
        engine._ops[0].nonfinite[0] = 0
        return nonfinite

    cdef int _count(self) except -1:
        """The number of threads that may be used, asked for again only after `threads_changed` has changed."""
        if self._threads == 0 or self._counted != threads_changed:
            self._counted, self._threads = threads_changed, 1 if self._n_threads is None else self._n_threads()
        return self._threads
