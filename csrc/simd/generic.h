/* Vector operations for any CPU: 16 bytes, by the compiler's vector extension, and a multiply-add with two roundings (a fused
 * one without hardware is a library call), which is why this target's bits differ from the others'. */
#define FM_BYTES 16
#define FM_STREAMS 0
#include "words.h"

static inline vf vf_set1(real s) { return s - (vf){0}; } /* s - 0 is s, also for -0 */
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf vf_max(vf a, vf b) { return vf_select(a > b, a, b); }
static inline vf vf_min(vf a, vf b) { return vf_select(a < b, a, b); }
static inline vf vf_sqrt(vf a)
{
    for (int l = 0; l < LANES; l++) a[l] = FM_SQRT(a[l]);
    return a;
}

static inline void vf_stream(real *p, vf v) { vf_store(p, v); }
static inline void vf_streamed(void) {}

static inline vw vw_multiply(vw a, vw b) { return (a & UINT32_MAX) * (b & UINT32_MAX); } /* the lower halves */

#include "accumulate.h"
