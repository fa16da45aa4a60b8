# Callers' arrays, and NumPy's memory, as C sees them. Part of _engine.pyx.

# Positions in SOURCES by dtype.str, which NumPy stores; dtype.name is built at each call.
SOURCE_CODES = {np.dtype(name).str: i for i, name in enumerate(SOURCES)}
cdef int SINGLE = SOURCES.index("float32"), DOUBLE = SOURCES.index("float64"), UNREADABLE = -1
cdef dict letters = {letter: SOURCE_CODES[np.dtype("B" if letter == "?" else letter).str] for letter in "?bBhHiIlLqQfd"}
cdef int[128] source_by_letter = [letters.get(chr(i), UNREADABLE) for i in range(128)]  # of a buffer's format


cdef inline int source_of(const Py_buffer *array) noexcept nogil:
    """Position of its type in SOURCES, or UNREADABLE: also for another byte order, and for unaligned numbers."""
    cdef unsigned char letter = array.format[0]
    return UNREADABLE if letter > 127 or array.format[1] else source_by_letter[letter]


cdef inline fm_array numbers_of(const Py_buffer *array, int kind) noexcept nogil:
    """Describe an array of one or two dimensions; a vector is a column."""
    cdef fm_array numbers
    numbers.data, numbers.kind, numbers.itemsize = <const char *>array.buf, kind, array.itemsize
    numbers.rows, numbers.row = array.shape[0], array.strides[0]
    numbers.columns = array.shape[1] if array.ndim == 2 else 1
    numbers.column = array.strides[1] if array.ndim == 2 else array.itemsize
    return numbers


cdef uintptr_t address(array) except? 0:
    cdef Py_buffer view
    if array is None:
        return 0
    PyObject_GetBuffer(array, &view, PyBUF_STRIDED_RO)  # __array_interface__ builds a dict each time
    cdef uintptr_t found = <uintptr_t>view.buf
    PyBuffer_Release(&view)
    return found


cdef fm_mat matrix(array, dtype) except *:
    cdef fm_mat m
    m.p = NULL
    m.ld = 0
    if array is None:
        return m
    m.p = <void *>address(array)
    if array.ndim == 1:
        return m
    if dtype is not None and array.dtype != dtype:
        raise TypeError(f"a plan in {dtype} holds a buffer of {array.dtype}")
    m.ld = array.strides[0] // array.itemsize
    return m


def all_finite(array, int n_threads=1, target=None):
    """Whether a C-contiguous array of float32 or float64 holds neither NaN nor infinity."""
    cdef Py_buffer view
    cdef int finite
    if array.dtype != np.float32 and array.dtype != np.float64:
        raise TypeError(f"array must be float32 or float64, got {array.dtype}")
    cdef const fm_kernels *kernels = kernels_of(target, array.itemsize == sizeof(double))
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS)
    with nogil:
        finite = fm_all_finite(kernels, view.buf, view.len // view.itemsize, view.itemsize, n_threads)
    PyBuffer_Release(&view)
    return bool(finite)


def all_within(array, double low, double high, int n_threads=1):
    """Whether all numbers of an array of one or two dimensions are finite and lie in low..high.

    False also if no gather reads its type.
    """
    cdef Py_buffer view
    cdef fm_array numbers
    cdef bint within = False
    PyObject_GetBuffer(array, &view, PyBUF_STRIDED_RO | PyBUF_FORMAT)
    cdef int kind = source_of(&view)
    if kind != UNREADABLE and 1 <= view.ndim <= 2:
        numbers = numbers_of(&view, kind)
        with nogil:
            within = fm_all_within(&numbers, low, high, n_threads)
    PyBuffer_Release(&view)
    return within
