# One training step, the shortest way. Part of _engine.pyx, for it goes through an Engine's C structs.

cdef enum:  # what came of it
    UNFIT, UNSOUND, SOUND


cdef bint are_classes(const int64_t *y, int64_t n, int64_t classes) noexcept nogil:
    cdef int64_t i
    cdef bint fine = True
    for i in range(n):
        fine &= <uint64_t>y[i] < <uint64_t>classes
    return fine


cdef bint are_within(const cython.floating *y, int64_t n, double low, double high) noexcept nogil:
    cdef int64_t i
    cdef bint fine = True
    for i in range(n):
        fine &= (low <= y[i]) & (y[i] <= high)  # the form that also refuses NaN
    return fine


def quick_step(Engine engine, x, y, double lr, int64_t number, parameters, before, double low, double high, int n_threads):
    """A step of a training plan on arrays that need no change; nothing of it is checked in Python.

    Parameters
    ----------
    engine : Engine
        Of a plan with a gather of X, one of y, and a loss.
    x : array, shape (rows, n_in)
    y : array, shape (rows,) or (rows, n_out)
    lr : float
    number : int
        Steps taken since training began.
    parameters, before : arrays of the same size, flat and C-contiguous
        What the step moves, and where they are copied to first. They are put back if the loss or one of them is not
        finite afterwards.
    low, high : float
        Targets that are no classes lie in low..high.
    n_threads : int

    Returns
    -------
    (loss, sound) : float, bool
        sound: whether the loss and all parameters are finite. None, before anything is changed, unless x is C-contiguous, of
        the plan's type, finite, and has no more rows than the plan; and y is int64 classes, or targets of the plan's type.
    """
    cdef Py_buffer X, Y, P, B
    cdef double loss = 0
    cdef int done = UNFIT
    if type(x) is not ndarray or type(y) is not ndarray:
        return None
    try:
        PyObject_GetBuffer(x, &X, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    except ValueError:  # strided, or dates, which have no format
        return None
    try:
        PyObject_GetBuffer(y, &Y, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    except ValueError:
        PyBuffer_Release(&X)
        return None
    try:
        PyObject_GetBuffer(parameters, &P, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        PyObject_GetBuffer(before, &B, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        with engine._lock:
            if engine._plan.work < HELD_WORK:  # of a full batch
                done = train(engine, &X, &Y, low, high, &P, &B, lr, number, n_threads, &loss)
            else:
                with nogil:
                    done = train(engine, &X, &Y, low, high, &P, &B, lr, number, n_threads, &loss)
        PyBuffer_Release(&B)
        PyBuffer_Release(&P)
        return None if done == UNFIT else (loss, done == SOUND)
    finally:
        PyBuffer_Release(&Y)
        PyBuffer_Release(&X)


cdef bint has_inputs(Engine engine, Py_buffer *X, int n_threads) noexcept nogil:
    """Whether these rows of X can be trained on as they are."""
    cdef int64_t n_in = engine._ops[0].n_in
    return (X.ndim == 2 and X.shape[1] == n_in and 0 < X.shape[0] <= engine._plan.capacity
            and X.itemsize == engine._plan.kernels.real_bytes and is_plain(X, b"d" if X.itemsize == sizeof(double) else b"f")
            and fm_all_finite(engine._plan.kernels, X.buf, X.shape[0] * n_in, X.itemsize, n_threads))


cdef bint has_targets(Engine engine, Py_buffer *Y, int64_t rows, double low, double high) noexcept nogil:
    """Whether these are targets of so many rows, as they are."""
    cdef int i = targets_of(engine)
    cdef int64_t columns = Y.shape[1] if Y.ndim == 2 else 1
    if not 1 <= Y.ndim <= 2 or Y.shape[0] != rows or columns != engine._ops[i].n_in:
        return False
    if engine._ops[i].labels:
        return (Y.ndim == 1 and Y.itemsize == sizeof(int64_t) and (is_plain(Y, b"l") or is_plain(Y, b"q"))
                and are_classes(<int64_t *>Y.buf, rows, engine._ops[i + 1].n_out))
    if Y.itemsize != engine._plan.kernels.real_bytes:
        return False
    if is_plain(Y, b"d"):
        return are_within(<double *>Y.buf, rows * columns, low, high)
    return is_plain(Y, b"f") and are_within(<float *>Y.buf, rows * columns, low, high)


cdef inline bint is_plain(Py_buffer *buffer, char letter) noexcept nogil:
    return buffer.format[0] == letter and buffer.format[1] == 0  # a prefix, as in "=f", where it is not aligned


cdef inline int targets_of(Engine engine) noexcept nogil:
    """The gather of the targets; the loss comes behind it."""
    cdef int i = 1
    while engine._ops[i].opcode != FM_gather:
        i += 1
    return i


cdef int train(Engine engine, Py_buffer *X, Py_buffer *Y, double low, double high, Py_buffer *P, Py_buffer *B, double lr,
               int64_t number, int n_threads, double *loss) noexcept nogil:
    """The step, if the data are fit for it; taken back where something is not finite afterwards."""
    cdef int64_t[2] offsets
    cdef fm_run_args args
    cdef int targets = targets_of(engine)
    cdef int kind = SINGLE if X.itemsize == sizeof(float) else DOUBLE
    if not (has_inputs(engine, X, n_threads) and has_targets(engine, Y, X.shape[0], low, high)):
        return UNFIT
    offsets[0], offsets[1] = 0, X.shape[0]
    args.order, args.weight, args.lr, args.losses, args.offsets = NULL, NULL, &lr, loss, offsets
    args.n_steps, args.first_number, args.first_op, args.last_op = 1, number, 0, engine._plan.n_ops
    args.n_threads, args.apart, args.balance = n_threads, FM_APART_MEASURED, &engine._balance
    args.choice = &engine._choice
    memcpy(B.buf, P.buf, P.len)
    engine._point_at(0, kind, <uintptr_t>X.buf, X.strides[0], X.itemsize)
    engine._point_at(targets, WHOLE if engine._ops[targets].labels else kind, <uintptr_t>Y.buf, Y.strides[0], Y.itemsize)
    fm_run(&engine._plan, &args)
    engine._point_at(0, kind, 0, 0, 0)
    engine._point_at(targets, kind, 0, 0, 0)
    if isfinite(loss[0]) and fm_all_finite(engine._plan.kernels, P.buf, P.len // P.itemsize, P.itemsize, n_threads):
        return SOUND
    memcpy(P.buf, B.buf, P.len)
    return UNSOUND
