/* The generic (any CPU) kernels in float64. */
#include "fastmlp.h"
#include <math.h>
#include <string.h>

#define FM_TARGET "generic"
#define FM_KERNELS fm_kernels_generic_f64
#define FM_REAL 64
#include "simd/generic.h"
#include "kernels/all.inc.c"
