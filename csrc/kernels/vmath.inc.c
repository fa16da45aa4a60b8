/* exp, log and related functions of a vector, and sums and maxima across a block.
 *
 * No branches, tables or hardware estimates: the same operations in the same order everywhere, so that targets with a fused
 * vf_fma agree to the bit (except for the sign and payload of NaN). NaN gives NaN. The bounds in ulp were measured against
 * libm in the next wider type: float32 (every argument where the function is not constant) / float64 (6 10^7 random ones).
 * The generic target meets them on samples, except vf_normal's. For a subnormal result, 1 ulp is the smallest number. */

typedef
#if FM_REAL == 32
    uint32_t
#else
    uint64_t
#endif
    vu __attribute__((vector_size(FM_BYTES)));

#if FM_REAL == 32
#define INTEGER 0x1.8p23f /* adding it rounds to an integer, found in the low bits */
#define LN2_HI 0x1.62e4p-1f /* few enough bits that its multiples are exact; HI + LO is good to 2^-44 */
#define LN2_LO 0x1.7f7d1cp-20f
#define EXP_LOWEST (-104) /* below, e^x rounds to 0 */
#define EXP_LEAST (-55)   /* 1e-24: below, e^x makes no difference to a gradient */
#define EXP_HIGHEST 89    /* above, it rounds to infinity */
#define EXPM1_LOWEST (-20) /* below, e^x - 1 rounds to -1 */
#define SMALLEST_NORMAL 0x1p-126f

/* (e^r - 1 - r) / r^2 on |r| <= log(2) / 2; the error in e^r is below 2^-27. */
static const real exp_terms[] = {0x1.000000p-1f, 0x1.5554aep-3f, 0x1.555486p-5f, 0x1.12287cp-7f, 0x1.6d99b8p-10f};

/* (log((1 + s) / (1 - s)) / s - 2) / s^2 by s^2, for s <= 0.1717; the error in the logarithm is below 2^-29 of it. */
static const real log_terms[] = {0x1.55557ap-1f, 0x1.995e42p-2f, 0x1.31f0b8p-2f};

/* Phi(-a) e^(a^2 / 2) (1 + C a) by 2 / (1 + C a) - 1, for a <= 14.6; relative error 2^-24.2. */
#define NORMAL_C 0.25f
#define NORMAL_FARTHEST 20
static const real normal_terms[] = {
    0x1.82b4bcp-3f,   0x1.373e38p-3f,   0x1.8c6d9ep-4f,   0x1.7e0006p-5f,
    0x1.eed3e0p-7f,   0x1.ed289cp-10f,  -0x1.cc55cap-11f, -0x1.9b755cp-12f,
    0x1.761286p-15f,  0x1.15bb8ap-15f};
#else
#define INTEGER 0x1.8p52
#define LN2_HI 0x1.62e42feep-1
#define LN2_LO 0x1.a39ef35793c76p-33
#define EXP_LOWEST (-746)
#define EXP_LEAST (-650)
#define EXP_HIGHEST 710
#define EXPM1_LOWEST (-40)
#define SMALLEST_NORMAL 0x1p-1022

/* As above: the error in e^r is below 2^-56.9, in the logarithm below 2^-59 of it, in Phi 2^-55.2 (a <= 38.8). */
static const real exp_terms[] = {
    0x1.0000000000005p-1,  0x1.555555555555cp-3,  0x1.5555555552096p-5,  0x1.111111110e695p-7,
    0x1.6c16c17f512e8p-10, 0x1.a01a01b5f0d74p-13, 0x1.a019a63425f05p-16, 0x1.71dde9c808836p-19,
    0x1.28a300866868ap-22, 0x1.af7715c91e8e9p-26};
static const real log_terms[] = {
    0x1.5555555555594p-1, 0x1.999999997f3c8p-2, 0x1.24924942886f4p-2, 0x1.c71c518647d60p-3,
    0x1.74665b6243556p-3, 0x1.399eb50ef9820p-3, 0x1.2f254e14a6d17p-3};
#define NORMAL_C 0.1875
#define NORMAL_FARTHEST 40
static const real normal_terms[] = {
    0x1.2897222860a86p-3,   0x1.04c47b8643a74p-3,   0x1.91abf19ca2194p-4,   0x1.0cc75ae57aac0p-4,
    0x1.33f33b09ec883p-5,   0x1.263cb8fa68f7ep-6,   0x1.bd7695dd31f45p-8,   0x1.d68d411325292p-10,
    0x1.6a7ef5d757e89p-13,  -0x1.a56882c4a9ecap-14, -0x1.9cb614bb57f30p-15, -0x1.9ab0699c8568bp-19,
    0x1.46205de526f83p-18,  0x1.72aa5dd5b03d7p-20,  -0x1.94f4e19d53724p-22, -0x1.0096052eca0c6p-22,
    0x1.b7907c8c2df05p-26,  0x1.3bcb6406025eap-25,  -0x1.1e688a52c5ff1p-29, -0x1.775a6e0973ea1p-28,
    0x1.26f6dbeb8316ep-31,  0x1.4f1fd5e194a3cp-31,  -0x1.3a4c9309ad5a7p-33};
#endif

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static inline vi sign_bit(void) { return (vi)vf_set1((real)-0.0); }
static inline vf vf_abs(vf x) { return (vf)((vi)x & ~sign_bit()); }
static inline vf minus_abs(vf x) { return (vf)((vi)x | sign_bit()); }
/* Compares bit patterns, by which NaN is large and stays. */
static inline vf unless_subnormal(vf x) { return vf_keep((vi)vf_abs(x) >= (vi)vf_set1(SMALLEST_NORMAL), x); }
static inline vf with_sign_of(vf sign, vf x) { return (vf)((vi)vf_abs(x) | ((vi)sign & sign_bit())); }

/* c[0] + c[1] x + c[2] x^2 + ... */
INLINE vf polynomial(vf x, const real *c, int n)
{
    vf sum = vf_set1(c[n - 1]);
#ifndef __clang__
#pragma GCC unroll 32
#endif
    for (int i = n - 2; i >= 0; i--) sum = vf_fma(sum, x, vf_set1(c[i]));
    return sum;
}

/* ---- exponentials ------------------------------------------------------------------------------------------- */

/* x = n log(2) + r: returns e^r - 1, and n + 2 bias in the low bits of *n. Twice the bias, so that both halves of n can
 * become exponents without a signed shift, which AVX2 does not have for 64 bits. n LN2_LO is added to the small terms, to be
 * rounded with them and not with r. */
static inline vf expm1_reduced(vf x, vu *n)
{
    const vf integer = vf_set1(INTEGER + 2 * FM_EXPONENT_BIAS);
    const vf shifted = vf_fma(x, vf_set1((real)1.4426950408889634), integer), k = shifted - integer;
    const vf high = vf_fma(k, vf_set1(-LN2_HI), x), low = k * vf_set1(-LN2_LO), r = high + low;
    *n = (vu)shifted;
    return high + vf_fma(polynomial(r, exp_terms, COUNT(exp_terms)), r * r, low);
}

/* 2^(n - bias), from the low bits of n. */
static inline vf power_of_2(vu n) { return (vf)(n << FM_MANTISSA_BITS); }

/* 2^n is applied as two factors: n may be one more than the largest exponent, and a subnormal must be rounded only once. */
static inline vf exp_from(vf lowest, vf x)
{
    vu n;
    const vf p = expm1_reduced(vf_min(vf_set1(EXP_HIGHEST), vf_max(lowest, x)), &n);
    const vu half = n >> 1;
    return (p + vf_set1(1)) * power_of_2(half) * power_of_2(n - half);
}

/* e^x, 0.91 / 0.89 ulp. */
static inline vf vf_exp(vf x) { return exp_from(vf_set1(EXP_LOWEST), x); }

/* v, a multiple of e^x, or 0 if e^x is too small to matter: so that no subnormal numbers arise, for which many processors take a
 * hundred times as long. NaN stays NaN. */
static inline vf unless_lost(vf x, vf v) { return vf_keep(~(x < vf_set1(EXP_LEAST)), v); }

/* e^x - 1, 1.1 / 1.0 ulp, for x <= 0 only: enough for elu and the derivative of softplus. */
static inline vf vf_expm1(vf x)
{
    vu n;
    const vf p = expm1_reduced(vf_max(vf_set1(EXPM1_LOWEST), x), &n), scale = power_of_2(n - FM_EXPONENT_BIAS);
    return vf_fma(scale, p, scale - vf_set1(1));
}

/* (1 - e^-2|x|) / (1 + e^-2|x|), with the sign of x; 2.1 / 2.1 ulp. */
static inline vf vf_tanh(vf x)
{
    vu n;
    const vf one = vf_set1(1), y = vf_max(vf_set1(EXPM1_LOWEST), vf_set1(2) * minus_abs(x));
    const vf p = expm1_reduced(y, &n), scale = power_of_2(n - FM_EXPONENT_BIAS);
    return with_sign_of(x, vf_fma(scale, p, scale - one) / vf_fma(scale, p, scale + one));
}

/* 1 / (1 + e^-x) or e^x / (1 + e^x), whichever exponential is at most 1; 2.5 / 2.5 ulp. */
static inline vf vf_sigmoid(vf x)
{
    const vf e = vf_exp(minus_abs(x)), one = vf_set1(1);
    return vf_select(x >= vf_set1(0), one, e) / (one + e);
}

/* ---- logarithms --------------------------------------------------------------------------------------------- */

/* log(1 + f) + k log(2), for 1 + f between sqrt(1/2) and sqrt(2): the scheme of fdlibm's log. */
static inline vf log_reduced(vf f, vf k)
{
    const vf s = f / (vf_set1(2) + f), s2 = s * s, half_square = vf_set1((real)0.5) * f * f;
    const vf rest = s2 * polynomial(s2, log_terms, COUNT(log_terms));
    const vf low = vf_fma(s, half_square + rest, k * vf_set1(LN2_LO));
    return vf_fma(k, vf_set1(LN2_HI), f - (half_square - low));
}

/* log(x), 0.85 / 0.85 ulp: -infinity at 0, NaN below. */
static inline vf vf_log(vf x)
{
    const vf one = vf_set1(1), sqrt_half = vf_set1((real)0.70710678118654752);
    const ireal mantissa = ((ireal)1 << FM_MANTISSA_BITS) - 1;
    const vi subnormal = x < vf_set1(SMALLEST_NORMAL);
    const vf normal = vf_select(subnormal, x * vf_set1((real)(1LL << (FM_MANTISSA_BITS + 2))), x);
    /* Shifted so that the exponent changes at sqrt(1/2). It is converted by way of 2^M's mantissa: no 64-bit conversion. */
    const vu moved = (vu)normal + ((vu)one - (vu)sqrt_half);
    const vf two_m = vf_set1((real)(1LL << FM_MANTISSA_BITS));
    const vf k = (vf)((moved >> FM_MANTISSA_BITS) | (vu)two_m) - (two_m + vf_set1(FM_EXPONENT_BIAS));
    const vf f = (vf)((moved & mantissa) + (vu)sqrt_half) - one;
    const vf y = log_reduced(f, k - vf_keep(subnormal, vf_set1(FM_MANTISSA_BITS + 2)));

    const vf infinity = vf_set1((real)INFINITY);
    const vf edge = vf_select(x == vf_set1(0), -infinity, vf_set1((real)NAN));
    return vf_select(x > vf_set1(0), vf_select(x < infinity, y, x), edge);
}

/* log(1 + x), 1.4 / 1.4 ulp, for 0 <= x <= 1 only: enough for softplus. 1 + x is never computed, so a small x keeps its
 * digits. */
static inline vf vf_log1p(vf x)
{
    const vi beyond = x > vf_set1((real)0.41421356237309505);
    const vf one = vf_set1(1), half = vf_set1((real)0.5);
    return log_reduced(vf_select(beyond, vf_fma(half, x, -half), x), vf_keep(beyond, one));
}

/* log(1 + e^x), 1.7 / 1.7 ulp. */
static inline vf vf_softplus(vf x) { return vf_max(vf_set1(0), x) + vf_log1p(vf_exp(minus_abs(x))); }

/* ---- the normal distribution -------------------------------------------------------------------------------- */

/* Phi(z), and the density. The lower tail is e^(-z^2 / 2) times a slowly varying function of |z|, the upper tail 1 minus
 * that; the rounding error of z^2 enters the exponential to first order, or the far tail would have few digits. Phi 4.4 / 5.3
 * ulp, the density 2.8 / 3.0; without a fused vf_fma that error is not seen, and the far tail is off by up to 70 / 510 ulp. */
static inline vf vf_normal(vf z, vf *density)
{
    const vf one = vf_set1(1), half = vf_set1((real)0.5), a = vf_min(vf_set1(NORMAL_FARTHEST), vf_abs(z));
    const vf square = a * a, dropped = vf_fma(a, a, -square);
    const vf rounded = vf_exp(-half * square), e = vf_fma(rounded, -half * dropped, rounded);
    const vf u = one / vf_fma(vf_set1(NORMAL_C), a, one);
    const vf t = vf_fma(a * u, vf_set1(-2 * NORMAL_C), one); /* 2 u - 1, but to the last bit also near a = 0 */
    const vf tail = e * (u * polynomial(t, normal_terms, COUNT(normal_terms)));
    *density = e * vf_set1((real)0.39894228040143268);
    return vf_select(z > vf_set1(0), one - tail, tail);
}

/* ---- across a block ----------------------------------------------------------------------------------------- */

/* 0, 1, 2, ...: compared with a count, they give the mask of the lanes inside a row. */
static inline vi lane_numbers(void)
{
    vi l = {0};
    for (int i = 0; i < LANES; i++) l[i] = i;
    return l;
}

/* v with lane l replaced. Not through memory: a vector loaded after a partial store stalls. */
static inline vf with_lane(vf v, int64_t l, vf value) { return vf_select(lane_numbers() == (ireal)l, value, v); }

/* Adds elements l and l + BLOCK / 2, then l and l + BLOCK / 4, and so on: whole vectors while there are several. */
static inline real vf_sum_block(const vf v[NB])
{
    vf s[NB];
    real a[LANES];
    for (int i = 0; i < NB; i++) s[i] = v[i];
    for (int half = NB / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) s[i] = s[i] + s[i + half];
    vf_store(a, s[0]);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++) a[l] = a[l] + a[l + half];
    return a[0];
}

static inline real vf_max_block(const vf v[NB])
{
    vf s[NB];
    real a[LANES];
    for (int i = 0; i < NB; i++) s[i] = v[i];
    for (int half = NB / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) s[i] = vf_max(s[i], s[i + half]);
    vf_store(a, s[0]);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++) a[l] = a[l] > a[l + half] ? a[l] : a[l + half];
    return a[0];
}
