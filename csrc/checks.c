/* Checks of a caller's numbers, see checks.h. */
#include "checks.h"
#include "threads.h"

#include <stdlib.h>
#include <string.h>

#define PATIENCE_NS 50000 /* for the other workers to start */
#define FOR_ONE (8 << 20) /* bytes, read from memory in ~0.1 ms: below, one thread is fast enough */

/* ---- finite: by the kernels ----------------------------------------------------------------------------------- */

struct search {
    const fm_kernels *kernels;
    const char *x;
    int64_t n, itemsize;
    uint8_t nonfinite[FM_MAX_WORKERS];
};

static void look_for_odd(void *context, fm_team *team, int me, int n)
{
    struct search *search = context;
    (void)team;
    const int64_t begin = search->n * me / n, end = search->n * (me + 1) / n;
    search->nonfinite[me] = !search->kernels->all_finite(search->x + begin * search->itemsize, end - begin);
}

int fm_all_finite(const fm_kernels *kernels, const void *x, int64_t n, int64_t itemsize, int n_threads)
{
    struct search search = {.kernels = kernels, .x = x, .n = n, .itemsize = itemsize};
    fm_team_run(n * itemsize < FOR_ONE ? 1 : n_threads, PATIENCE_NS, look_for_odd, &search);
    return !memchr(search.nonfinite, 1, sizeof search.nonfinite);
}

/* ---- within limits: any type, any strides ---------------------------------------------------------------------- */

typedef int within(const char *data, int64_t n, int64_t stride, double low, double high);

static inline uint64_t bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* The sign bit is set if x < low, if x > high, or if the exponent is all ones, so that adding one to it carries: GCC vectorises
 * such loops, but not comparisons. Zeros must be positive, as x + 0.0 makes them: -0 - 0 has the sign bit set. */
static inline uint64_t out_of(double x, double low, double high)
{
    const uint64_t sign = (uint64_t)1 << 63, one = (uint64_t)1 << 52;
    x += 0.0;
    return bits_of(x - low) | bits_of(high - x) | ((bits_of(x) & ~sign) + one);
}

#define LOOK(stride)                                                                                                   \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        memcpy(&value, data + i * (stride), sizeof value);                                                             \
        out |= out_of((double)value, low, high);                                                                       \
    }
#define X(name, type)                                                                                                  \
    static int within_##name(const char *data, int64_t n, int64_t stride, double low, double high)                     \
    {                                                                                                                  \
        uint64_t out = 0;                                                                                              \
        type value;                                                                                                    \
        if (stride == (int64_t)sizeof value) LOOK((int64_t)sizeof value)                                               \
        else LOOK(stride)                                                                                              \
        return !(out >> 63);                                                                                           \
    }
FM_SOURCES(X)
#undef X
#define X(name, type) within_##name,
static within *const readers[FM_N_SOURCES] = {FM_SOURCES(X)};
#undef X

struct limits {
    fm_array array;
    double low, high;
    uint8_t out[FM_MAX_WORKERS];
};

static void look_for_out(void *context, fm_team *team, int me, int n)
{
    struct limits *limits = context;
    const fm_array *a = &limits->array;
    (void)team;
    const int64_t all = a->rows * a->columns, end = all * (me + 1) / n;
    for (int64_t at = all * me / n, some; at < end; at += some) {
        const int64_t row = at / a->columns, column = at % a->columns;
        some = a->columns - column < end - at ? a->columns - column : end - at;
        const char *from = a->data + row * a->row + column * a->column;
        limits->out[me] |= !readers[a->kind](from, some, a->column, limits->low, limits->high);
    }
}

/* The same numbers with the smaller stride along rows, and as a single row if possible. */
static fm_array in_long_rows(fm_array a)
{
    if (llabs(a.row) < llabs(a.column)) a = (fm_array){a.data, a.columns, a.rows, a.column, a.row, a.itemsize, a.kind};
    if (a.row == a.columns * a.column) a.columns *= a.rows, a.rows = 1;
    return a;
}

int fm_all_within(const fm_array *array, double low, double high, int n_threads)
{
    struct limits limits = {.array = in_long_rows(*array), .low = low + 0.0, .high = high + 0.0};
    fm_team_run(array->rows * array->columns * array->itemsize < FOR_ONE ? 1 : n_threads, PATIENCE_NS, look_for_out, &limits);
    return !memchr(limits.out, 1, sizeof limits.out);
}
