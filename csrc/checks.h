/* Checks of a caller's numbers, in one pass by up to n_threads workers. */
#ifndef FASTMLP_CHECKS_H
#define FASTMLP_CHECKS_H

#include "fastmlp.h"

/* A caller's array of any type that a gather reads, with any strides and alignment. */
typedef struct fm_array {
    const char *data;
    int64_t rows, columns, row, column; /* row, column: strides in bytes, of any sign */
    int64_t itemsize;
    int32_t kind; /* enum fm_source */
} fm_array;

/* Whether n numbers of the kernels' type (of itemsize bytes), aligned or not, are all finite. */
int fm_all_finite(const fm_kernels *kernels, const void *x, int64_t n, int64_t itemsize, int n_threads);

/* Whether every number, as a double, is finite and lies in low..high; these may be infinite. */
int fm_all_within(const fm_array *array, double low, double high, int n_threads);

#endif
