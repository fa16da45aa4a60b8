/* Sums that grow where they are. Left to itself, GCC writes half of them to another register and moves them back later, in
 * loops of several terms; so on x86 it is told which register the result is in. Included by each ISA header at its end. */
#if FM_BYTES == 64 && defined(__AVX512F__)
#define FM_REGISTER "v"
#elif FM_BYTES == 32 && defined(__AVX2__)
#define FM_REGISTER "x"
#endif

/* c += a b, and c += *a b. */
#ifdef FM_REGISTER
#if FM_REAL == 32
#define FM_FMA "vfmadd231ps"
#define FM_BROADCAST "%{1to16%}"
#else
#define FM_FMA "vfmadd231pd"
#define FM_BROADCAST "%{1to8%}"
#endif
static inline void vf_accumulate(vf *c, vf a, vf b)
{
    __asm__(FM_FMA " %2, %1, %0" : "+" FM_REGISTER(*c) : FM_REGISTER(a), FM_REGISTER(b));
}
#else
static inline void vf_accumulate(vf *c, vf a, vf b) { *c = vf_fma(a, b, *c); }
#endif
#if defined(FM_REGISTER) && FM_BYTES == 64
static inline void vf_accumulate_of(vf *c, const real *a, vf b)
{
    __asm__(FM_FMA " %2" FM_BROADCAST ", %1, %0" : "+" FM_REGISTER(*c) : FM_REGISTER(b), "m"(*a));
}
#else
static inline void vf_accumulate_of(vf *c, const real *a, vf b) { vf_accumulate(c, vf_set1(*a), b); }
#endif
