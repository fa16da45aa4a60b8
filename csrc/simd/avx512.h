/* Vector operations for AVX-512: 64 bytes, one vector a block. Opens the target region, which simd/end.h closes. */
#include <immintrin.h> /* outside the region: it opens its own */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,prfchw"))), apply_to = function)
#else
#pragma GCC push_options /* tune: the generic one keeps addresses in vector registers, which delays them behind multiply-adds */
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,prfchw,tune=skylake-avx512")
#endif
#define FM_BYTES 64
#define FM_STREAMS 1
#include "words.h"

#if FM_REAL == 32
static inline vf vf_set1(real s) { return (vf)_mm512_set1_ps(s); }
static inline vf vf_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
static inline vf vf_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
static inline vf vf_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
static inline vf vf_sqrt(vf a) { return (vf)_mm512_sqrt_ps((__m512)a); }
static inline void vf_stream(real *p, vf v) { _mm512_stream_ps(p, (__m512)v); }
#else
static inline vf vf_set1(real s) { return (vf)_mm512_set1_pd(s); }
static inline vf vf_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c); }
static inline vf vf_max(vf a, vf b) { return (vf)_mm512_max_pd((__m512d)a, (__m512d)b); }
static inline vf vf_min(vf a, vf b) { return (vf)_mm512_min_pd((__m512d)a, (__m512d)b); }
static inline vf vf_sqrt(vf a) { return (vf)_mm512_sqrt_pd((__m512d)a); }
static inline void vf_stream(real *p, vf v) { _mm512_stream_pd(p, (__m512d)v); }
#endif
static inline void vf_streamed(void) { _mm_sfence(); }

static inline vw vw_multiply(vw a, vw b) { return (vw)_mm512_mul_epu32((__m512i)a, (__m512i)b); } /* the lower halves */

#include "accumulate.h"
