/* Multiply-adds in place. By default, in loops of several terms, GCC writes half of the sums to other registers and moves them
 * back later; so on x86 the result's register is prescribed. Included at the end of each ISA header. */
#if FM_BYTES == 64 && defined(__AVX512F__)
#define FM_REGISTER "v"
#elif FM_BYTES == 32 && defined(__AVX2__)
#define FM_REGISTER "x"
#endif

/* c += a b, and c += a *b. */
#ifdef FM_REGISTER
#if FM_REAL == 32
#define FM_FMA "vfmadd231ps"
#define FM_SPREAD "vbroadcastss"
#define FM_BROADCAST "%{1to16%}"
#else
#define FM_FMA "vfmadd231pd"
#define FM_SPREAD "vbroadcastsd"
#define FM_BROADCAST "%{1to8%}"
#endif
static inline void vf_accumulate(vf *c, vf a, vf b)
{
    __asm__(FM_FMA " %2, %1, %0" : "+" FM_REGISTER(*c) : FM_REGISTER(a), FM_REGISTER(b));
}
static inline void vf_accumulate_by(vf *c, vf a, const real *b)
{
    __asm__(FM_FMA " %2, %1, %0" : "+" FM_REGISTER(*c) : FM_REGISTER(a), "m"(*(const vf_unaligned *)b));
}
#else
static inline void vf_accumulate(vf *c, vf a, vf b) { *c = vf_fma(a, b, *c); }
static inline void vf_accumulate_by(vf *c, vf a, const real *b) { vf_accumulate(c, a, vf_load(b)); }
#endif

/* c += *a b. */
#if defined(FM_REGISTER) && FM_BYTES == 64
static inline void vf_accumulate_of(vf *c, const real *a, vf b)
{
    __asm__(FM_FMA " %2" FM_BROADCAST ", %1, %0" : "+" FM_REGISTER(*c) : FM_REGISTER(b), "m"(*a));
}
#else
static inline void vf_accumulate_of(vf *c, const real *a, vf b) { vf_accumulate(c, vf_set1(*a), b); }
#endif

/* c[0] += *a b[0] and c[1] += *a b[1]. With 16 registers GCC would move a sum away to free one for *a. */
#if defined(FM_REGISTER) && FM_BYTES == 32
static inline void vf_accumulate_two(vf *c, const real *a, const vf *b)
{
    vf ar;
    __asm__(FM_SPREAD " %5, %2\n\t" FM_FMA " %3, %2, %0\n\t" FM_FMA " %4, %2, %1"
            : "+&x"(c[0]), "+x"(c[1]), "=&x"(ar) : "x"(b[0]), "x"(b[1]), "m"(*a));
}
#else
static inline void vf_accumulate_two(vf *c, const real *a, const vf *b)
{
    const vf ar = vf_set1(*a);
    vf_accumulate(&c[0], ar, b[0]), vf_accumulate(&c[1], ar, b[1]);
}
#endif
