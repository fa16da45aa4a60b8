/* The vector operations that need no intrinsics: types, loads, masks, lane order. Included by each ISA header after it has
 * defined FM_BYTES and FM_STREAMS; FM_REAL is 32 or 64.
 *
 * vf is one native vector of LANES reals, vi of integers of the same width. A block is 64 bytes on every ISA (NB vectors,
 * BLOCK reals): reductions over lanes are defined on blocks, so that they add in the same order everywhere. */
#if FM_REAL == 32
typedef float real;
typedef int32_t ireal;
#define FM_SQRT sqrtf
#define FM_MANTISSA_BITS 23
#define FM_EXPONENT_BIAS 127
#else
typedef double real;
typedef int64_t ireal;
#define FM_SQRT sqrt
#define FM_MANTISSA_BITS 52
#define FM_EXPONENT_BIAS 1023
#endif

typedef real vf __attribute__((vector_size(FM_BYTES)));
typedef ireal vi __attribute__((vector_size(FM_BYTES)));
typedef uint64_t vw __attribute__((vector_size(FM_BYTES))); /* for random numbers */
typedef real vf_unaligned __attribute__((vector_size(FM_BYTES), aligned(sizeof(real)), may_alias));

#define INLINE static inline __attribute__((always_inline)) /* for functions with constant arguments */
#define NOINLINE static __attribute__((noinline)) /* for functions that should not share their caller's frame and registers */

#define LANES ((int)(FM_BYTES / sizeof(real)))
#define BLOCK ((int)(64 / sizeof(real)))
#define NB (64 / FM_BYTES)

static inline vf vf_load(const real *p) { return *(const vf_unaligned *)p; }
static inline void vf_store(real *p, vf v) { *(vf_unaligned *)p = v; }
/* Each ISA header adds vf_stream, a non-temporal store to an aligned address (a plain one if not FM_STREAMS), and
 * vf_streamed, which makes earlier ones visible to other workers. */

/* Lane masks are all ones or all zeros, as comparisons (a > b) give them. */
static inline vf vf_select(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
static inline vf vf_keep(vi mask, vf v) { return (vf)(mask & (vi)v); }

/* a0 b0 a1 b1 ... from the lower and from the upper halves of a and b. */
#define FM_LANES (FM_BYTES * 8 / FM_REAL) /* LANES, for the preprocessor */
#if FM_LANES == 2
#define FM_LOW 0, 2
#define FM_HIGH 1, 3
#elif FM_LANES == 4
#define FM_LOW 0, 4, 1, 5
#define FM_HIGH 2, 6, 3, 7
#elif FM_LANES == 8
#define FM_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define FM_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define FM_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define FM_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#endif
#ifdef __clang__
static inline vf vf_interleave_low(vf a, vf b) { return __builtin_shufflevector(a, b, FM_LOW); }
static inline vf vf_interleave_high(vf a, vf b) { return __builtin_shufflevector(a, b, FM_HIGH); }
#else
static inline vf vf_interleave_low(vf a, vf b) { return __builtin_shuffle(a, b, (vi){FM_LOW}); }
static inline vf vf_interleave_high(vf a, vf b) { return __builtin_shuffle(a, b, (vi){FM_HIGH}); }
#endif
