/* The ARM64 NEON kernels in float64. */
#include "fastmlp.h"
#include <math.h>
#include <string.h>

#if defined(__aarch64__)
#define FM_TARGET "neon"
#define FM_KERNELS fm_kernels_neon_f64
#define FM_REAL 64
#include "simd/neon.h"
#include "kernels/all.inc.c"
#endif
