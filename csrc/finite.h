#ifndef FASTMLP_FINITE_H
#define FASTMLP_FINITE_H

#include <stdint.h>

/* Whether n floats (itemsize 4) or doubles (8), aligned or not, are all finite, looked for by up to n_threads workers. */
int fm_all_finite(const void *x, int64_t n, int64_t itemsize, int n_threads);

#endif
