/* Vector operations for AVX2 + FMA: 32 bytes, two vectors a block. Opens the target region, which simd/end.h closes. */
#include <immintrin.h> /* outside the region: it opens its own */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,prfchw"))), apply_to = function)
#else
#pragma GCC push_options /* tune: the generic one keeps addresses in vector registers, which delays them behind multiply-adds */
#pragma GCC target("avx2,fma,prfchw,tune=skylake-avx512")
#endif
#define FM_BYTES 32
#define FM_STREAMS 1
#include "words.h"

#if FM_REAL == 32
static inline vf vf_set1(real s) { return (vf)_mm256_set1_ps(s); }
static inline vf vf_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
static inline vf vf_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vf vf_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
static inline vf vf_sqrt(vf a) { return (vf)_mm256_sqrt_ps((__m256)a); }
static inline void vf_stream(real *p, vf v) { _mm256_stream_ps(p, (__m256)v); }
#else
static inline vf vf_set1(real s) { return (vf)_mm256_set1_pd(s); }
static inline vf vf_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c); }
static inline vf vf_max(vf a, vf b) { return (vf)_mm256_max_pd((__m256d)a, (__m256d)b); }
static inline vf vf_min(vf a, vf b) { return (vf)_mm256_min_pd((__m256d)a, (__m256d)b); }
static inline vf vf_sqrt(vf a) { return (vf)_mm256_sqrt_pd((__m256d)a); }
static inline void vf_stream(real *p, vf v) { _mm256_stream_pd(p, (__m256d)v); }
#endif
static inline void vf_streamed(void) { _mm_sfence(); }

static inline vw vw_multiply(vw a, vw b) { return (vw)_mm256_mul_epu32((__m256i)a, (__m256i)b); } /* the lower halves */

#include "accumulate.h"
