/* Vector operations for ARM64 NEON: 16 bytes, four vectors a block. NEON is in ARM64's baseline: no region to open. */
#include <arm_neon.h>
#define FM_BYTES 16
#define FM_STREAMS 0
#include "words.h"

/* vmaxq and vminq differ from x86 on NaN and on signed zeros; compare and select agree everywhere. */
#if FM_REAL == 32
static inline vf vf_set1(real s) { return (vf)vdupq_n_f32(s); }
static inline vf vf_fma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
static inline vf vf_max(vf a, vf b) { return (vf)vbslq_f32(vcgtq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b); }
static inline vf vf_min(vf a, vf b) { return (vf)vbslq_f32(vcltq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b); }
static inline vf vf_sqrt(vf a) { return (vf)vsqrtq_f32((float32x4_t)a); }
#else
static inline vf vf_set1(real s) { return (vf)vdupq_n_f64(s); }
static inline vf vf_fma(vf a, vf b, vf c) { return (vf)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b); }
static inline vf vf_max(vf a, vf b) { return (vf)vbslq_f64(vcgtq_f64((float64x2_t)a, (float64x2_t)b), (float64x2_t)a, (float64x2_t)b); }
static inline vf vf_min(vf a, vf b) { return (vf)vbslq_f64(vcltq_f64((float64x2_t)a, (float64x2_t)b), (float64x2_t)a, (float64x2_t)b); }
static inline vf vf_sqrt(vf a) { return (vf)vsqrtq_f64((float64x2_t)a); }
#endif

static inline void vf_stream(real *p, vf v) { vf_store(p, v); }
static inline void vf_streamed(void) {}

/* The lower halves. */
static inline vw vw_multiply(vw a, vw b) { return (vw)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b)); }

#include "accumulate.h"
