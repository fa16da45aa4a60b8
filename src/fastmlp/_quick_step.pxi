# The fast path for one training step. Included by _engine.pyx, because it needs an Engine's C structs.

cdef enum:  # outcomes of train
    UNFIT, UNSOUND, SOUND


def quick_step(Engine engine, x, y, double lr, int64_t number, parameters, before, double low, double high, int n_threads):
    """Run a step of a training plan on arrays that its gathers can read, with all checks in C.

    Parameters
    ----------
    engine : Engine
        For a plan with a gather of X, one of y, and a loss.
    x : array, shape (rows, n_in)
    y : array, shape (rows,) or (rows, n_out)
    lr : float
    number : int
        Steps taken since training began.
    parameters, before : arrays of the same size, flat and C-contiguous
        What the step updates, and where they are copied first. They are restored if the loss or one of them is not finite
        afterwards.
    low, high : float
        Limits of targets that are not classes.
    n_threads : int

    Returns
    -------
    (loss, sound) : float, bool
        sound: whether the loss and all parameters are finite. None, before anything is changed, unless x and y are arrays of
        aligned numbers in native byte order, finite and within the range of the plan's type, of the right shapes, with no
        more rows than the plan's; and classes are integers.
    """
    cdef Py_buffer[4] views
    cdef Py_buffer *X = &views[0]
    cdef Py_buffer *Y = &views[1]
    cdef Py_buffer *P = &views[2]
    cdef Py_buffer *B = &views[3]
    cdef double loss = 0
    cdef int done = UNFIT, i
    if type(x) is not ndarray or type(y) is not ndarray:
        return None
    memset(views, 0, sizeof(views))  # releasing a zeroed view has no effect
    try:
        try:
            PyObject_GetBuffer(x, X, PyBUF_STRIDED_RO | PyBUF_FORMAT)
            PyObject_GetBuffer(y, Y, PyBUF_STRIDED_RO | PyBUF_FORMAT)
        except ValueError:  # dates export no buffer
            return None
        PyObject_GetBuffer(parameters, P, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        PyObject_GetBuffer(before, B, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        if P.len != B.len:
            raise ValueError(f"before must have as many bytes as parameters, {P.len}, got {B.len}")
        with engine._lock:
            if engine._plan.work < HELD_WORK:  # of a full batch
                done = train(engine, X, Y, low, high, P, B, lr, number, n_threads, &loss)
            else:
                with nogil:
                    done = train(engine, X, Y, low, high, P, B, lr, number, n_threads, &loss)
        return None if done == UNFIT else (loss, done == SOUND)
    finally:
        for i in range(4):
            PyBuffer_Release(&views[i])


cdef bint has_inputs(Engine engine, Py_buffer *X, int kind, int n_threads) noexcept nogil:
    """Whether the rows of X can be trained on as they are."""
    cdef int64_t n_in = engine._ops[0].n_in, size = engine._plan.kernels.real_bytes
    cdef double most = FLT_MAX if size == sizeof(float) else DBL_MAX
    cdef fm_array numbers
    if kind == UNREADABLE or X.ndim != 2 or X.shape[1] != n_in or not 0 < X.shape[0] <= engine._plan.capacity:
        return False
    if kind not in (SINGLE, DOUBLE):
        return True
    if X.itemsize == size == X.strides[1] and X.strides[0] == n_in * size:
        return fm_all_finite(engine._plan.kernels, X.buf, X.shape[0] * n_in, size, n_threads)
    numbers = numbers_of(X, kind)
    return fm_all_within(&numbers, -most, most, n_threads)


cdef bint has_targets(Engine engine, Py_buffer *Y, int kind, int64_t rows, double low, double high) noexcept nogil:
    """Whether Y holds targets of this many rows that can be trained on as they are."""
    cdef const fm_op *gather = &engine._ops[targets_of(engine)]
    cdef double most = FLT_MAX if engine._plan.kernels.real_bytes == sizeof(float) else DBL_MAX
    cdef fm_array numbers
    if kind == UNREADABLE or not 1 <= Y.ndim <= 2 or Y.shape[0] != rows:
        return False
    numbers = numbers_of(Y, kind)
    if numbers.columns != gather.n_in:
        return False
    if gather.labels:
        return Y.ndim == 1 and kind not in (SINGLE, DOUBLE) and fm_all_within(&numbers, 0, gather[1].n_out - 1, 1)
    return fm_all_within(&numbers, max(low, -most), min(high, most), 1)


cdef inline int targets_of(Engine engine) noexcept nogil:
    """Index of the gather of the targets; the loss follows it."""
    cdef int i = 1
    while engine._ops[i].opcode != FM_gather:
        i += 1
    return i


cdef int train(Engine engine, Py_buffer *X, Py_buffer *Y, double low, double high, Py_buffer *P, Py_buffer *B, double lr,
               int64_t number, int n_threads, double *loss) noexcept nogil:
    """Run the step if the data are fit for it, and undo it if a result is not finite."""
    cdef int64_t[2] offsets
    cdef fm_run_args args
    cdef int targets = targets_of(engine), inputs_kind = source_of(X), targets_kind = source_of(Y)
    if not has_inputs(engine, X, inputs_kind, n_threads):
        return UNFIT
    if not has_targets(engine, Y, targets_kind, X.shape[0], low, high):
        return UNFIT
    offsets[0], offsets[1] = 0, X.shape[0]
    args.order, args.weight, args.lr, args.losses, args.offsets = NULL, NULL, &lr, loss, offsets
    args.n_steps, args.first_number, args.first_op, args.last_op = 1, number, 0, engine._plan.n_ops
    args.n_threads, args.apart, args.balance = n_threads, FM_APART_MEASURED, &engine._balance
    args.choice = &engine._choice
    memcpy(B.buf, P.buf, P.len)
    engine._point_at(0, inputs_kind, <uintptr_t>X.buf, X.strides[0], X.strides[1])
    engine._point_at(targets, targets_kind, <uintptr_t>Y.buf, Y.strides[0], Y.strides[1] if Y.ndim == 2 else 0)
    fm_run(&engine._plan, &args)
    engine._point_at(0, inputs_kind, 0, 0, 0)
    engine._point_at(targets, targets_kind, 0, 0, 0)
    if isfinite(loss[0]) and fm_all_finite(engine._plan.kernels, P.buf, P.len // P.itemsize, P.itemsize, n_threads):
        return SOUND
    memcpy(P.buf, B.buf, P.len)
    return UNSOUND
