/* Small functions and macros that all kernels use. */

#define LINE FM_LINE

static inline int64_t vectors_of(int64_t columns) { return (columns + LANES - 1) / LANES; }
static inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger_of(int64_t a, int64_t b) { return a > b ? a : b; }

/* Else GCC keeps derived values in further registers, one for every use. */
#define ONE_REGISTER(value) __asm__("" : "+r"(value));

/* Unless constant loops are unrolled explicitly, GCC keeps accumulators in memory, ten times slower. */
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
