#ifndef FASTMLP_FINITE_H
#define FASTMLP_FINITE_H

#include "fastmlp.h"

/* Whether n numbers of the kernels' type (of itemsize bytes), aligned or not, are all finite, looked for by up to n_threads
 * workers. */
int fm_all_finite(const fm_kernels *kernels, const void *x, int64_t n, int64_t itemsize, int n_threads);

#endif
