/* Transposition of matrices, for products. */

/* t[c, r] = m[r, c] for LANES x LANES elements, by interleaving the two halves log2(LANES) times. */
static inline void transpose_square(const real *m, int64_t ldm, real *t, int64_t ldt)
{
    vf a[LANES], b[LANES];
    UNROLL for (int r = 0; r < LANES; r++) a[r] = vf_load(m + r * ldm);
    UNROLL for (int half = 1; half < LANES; half *= 2) {
        UNROLL for (int r = 0; r < LANES / 2; r++) {
            b[2 * r] = vf_interleave_low(a[r], a[r + LANES / 2]);
            b[2 * r + 1] = vf_interleave_high(a[r], a[r + LANES / 2]);
        }
        UNROLL for (int r = 0; r < LANES; r++) a[r] = b[r];
    }
    UNROLL for (int r = 0; r < LANES; r++) vf_store(t + r * ldt, a[r]);
}

/* t[columns, width] = m[rows, columns] transposed; columns of t from `rows` to width, whole vectors, become zero. */
static void transpose(const real *m, int64_t ldm, int64_t rows, int64_t columns, real *t, int64_t ldt, int64_t width)
{
    for (int64_t r = 0; r < width; r += LANES) {
        int64_t c = 0;
        if (r + LANES <= rows)
            for (; c + LANES <= columns; c += LANES) transpose_square(m + r * ldm + c, ldm, t + c * ldt + r, ldt);
        for (; c < columns; c++)
            for (int64_t l = 0; l < LANES; l++) t[c * ldt + r + l] = r + l < rows ? m[(r + l) * ldm + c] : 0;
    }
}
