/* The AVX-512 kernels in float64. */
#include "fastmlp.h"
#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#define FM_TARGET "avx512"
#define FM_KERNELS fm_kernels_avx512_f64
#define FM_REAL 64
#include "simd/avx512.h"
#include "kernels/all.inc.c"
#include "simd/end.h"
#endif
