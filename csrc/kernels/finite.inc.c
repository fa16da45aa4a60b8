/* Whether numbers are finite. */

static inline vf vf_anywhere(const char *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* n reals at any address: 0 times NaN or infinity is NaN, and so is a sum that contains it. */
static int all_finite(const void *numbers, int64_t n)
{
    const char *x = numbers, *const end = x + n * (int64_t)sizeof(real);
    const vf zero = vf_set1(0);
    vf sum[4] = {{0}};
    real rest = 0, value, all[LANES];
    for (; end - x >= 4 * FM_BYTES; x += 4 * FM_BYTES)
        UNROLL for (int i = 0; i < 4; i++) sum[i] = vf_fma(vf_anywhere(x + i * FM_BYTES), zero, sum[i]);
    for (; end - x >= FM_BYTES; x += FM_BYTES) sum[0] = vf_fma(vf_anywhere(x), zero, sum[0]);
    for (; x < end; x += sizeof value) {
        memcpy(&value, x, sizeof value);
        rest += value * 0;
    }
    vf_store(all, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (int l = 0; l < LANES; l++) rest += all[l];
    return rest == 0;
}
