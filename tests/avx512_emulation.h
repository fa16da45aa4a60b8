/* AVX-512 for CPUs without it: the intrinsics that csrc/simd/avx512.h uses, each as two AVX2 halves.
 *
 * Included in place of the AVX-512 instruction set (see test_avx512_emulated.py), within the same target region as the
 * kernels. The rest of a kernel is vector arithmetic, which the compiler splits into halves. */
#include <immintrin.h>

#define HALVES(name, whole, half, expression)                                                                          \
    static inline whole emulated_##name(whole a, whole b, whole c)                                                     \
    {                                                                                                                  \
        union {                                                                                                        \
            whole w;                                                                                                   \
            half h[2];                                                                                                 \
        } x = {a}, y = {b}, z = {c}, result;                                                                           \
        for (int i = 0; i < 2; i++) result.h[i] = expression;                                                          \
        (void)y, (void)z;                                                                                              \
        return result.w;                                                                                               \
    }
HALVES(mul_epu32, __m512i, __m256i, _mm256_mul_epu32(x.h[i], y.h[i]))
HALVES(fmadd_ps, __m512, __m256, _mm256_fmadd_ps(x.h[i], y.h[i], z.h[i]))
HALVES(fmadd_pd, __m512d, __m256d, _mm256_fmadd_pd(x.h[i], y.h[i], z.h[i]))
HALVES(max_ps, __m512, __m256, _mm256_max_ps(x.h[i], y.h[i]))
HALVES(max_pd, __m512d, __m256d, _mm256_max_pd(x.h[i], y.h[i]))
HALVES(min_ps, __m512, __m256, _mm256_min_ps(x.h[i], y.h[i]))
HALVES(min_pd, __m512d, __m256d, _mm256_min_pd(x.h[i], y.h[i]))
HALVES(sqrt_ps, __m512, __m256, _mm256_sqrt_ps(x.h[i]))
HALVES(sqrt_pd, __m512d, __m256d, _mm256_sqrt_pd(x.h[i]))

static inline __m512 emulated_set1_ps(float s) { return (__m512){s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s}; }
static inline __m512d emulated_set1_pd(double s) { return (__m512d){s, s, s, s, s, s, s, s}; }

#define _mm512_set1_ps emulated_set1_ps
#define _mm512_set1_pd emulated_set1_pd
#define _mm512_fmadd_ps emulated_fmadd_ps
#define _mm512_fmadd_pd emulated_fmadd_pd
#define _mm512_max_ps(a, b) emulated_max_ps(a, b, a)
#define _mm512_max_pd(a, b) emulated_max_pd(a, b, a)
#define _mm512_min_ps(a, b) emulated_min_ps(a, b, a)
#define _mm512_min_pd(a, b) emulated_min_pd(a, b, a)
#define _mm512_sqrt_ps(a) emulated_sqrt_ps(a, a, a)
#define _mm512_sqrt_pd(a) emulated_sqrt_pd(a, a, a)
#define _mm512_mul_epu32(a, b) emulated_mul_epu32(a, b, a)
#define _mm512_stream_ps(p, a) (*(__m512 *)(p) = (a))
#define _mm512_stream_pd(p, a) (*(__m512d *)(p) = (a))
