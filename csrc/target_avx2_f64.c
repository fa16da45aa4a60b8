/* The AVX2 + FMA kernels in float64. */
#include "fastmlp.h"
#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#define FM_TARGET "avx2"
#define FM_KERNELS fm_kernels_avx2_f64
#define FM_REAL 64
#include "simd/avx2.h"
#include "kernels/all.inc.c"
#include "simd/end.h"
#endif
