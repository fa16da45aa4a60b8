/* Rows of at most a block, transposed: a vector holds a column of LANES rows instead of a part of one row, so that one
 * exponential, say, serves LANES rows. Columns are summed in the order of lanes: the same bits. */

typedef real square[BLOCK][LANES] __attribute__((aligned(64))); /* [column][row] */

/* The first `width` columns of rows of m, as rows of `columns`; of fewer than LANES rows, the last one is repeated. */
INLINE void columns_of(const real *m, int64_t ldm, int64_t rows, int width, square columns)
{
    real copy[LANES][LANES] __attribute__((aligned(64)));
    for (int c = 0; c < width; c += LANES) {
        for (int64_t l = 0; l < LANES; l++) vf_store(copy[l], vf_load(m + at_most(l, rows - 1) * ldm + c));
        transpose_square(copy[0], LANES, columns[c], LANES);
    }
}

/* The inverse, with zeros in the rest of the block. */
INLINE void rows_of(square columns, int width, real *m, int64_t ldm, int64_t rows)
{
    real copy[LANES][LANES] __attribute__((aligned(64)));
    for (int c = 0; c < BLOCK; c += LANES) {
        if (c < width) transpose_square(columns[c], LANES, copy[0], LANES);
        for (int64_t l = 0; l < rows; l++) vf_store(m + l * ldm + c, c < width ? vf_load(copy[l]) : vf_set1(0));
    }
}

INLINE vf sum_of_columns(const vf *s, int width)
{
    vf sum[BLOCK];
    UNROLL for (int c = 0; c < width; c++) sum[c] = s[c];
    UNROLL for (int half = width / 2; half > 0; half /= 2)
        UNROLL for (int c = 0; c < half; c++) sum[c] = sum[c] + sum[c + half];
    return sum[0];
}

INLINE vf max_of_columns(square x, int64_t n, int width)
{
    const vf lowest = vf_set1((real)-INFINITY);
    vf s[BLOCK];
    UNROLL for (int c = 0; c < width; c++) s[c] = c < n ? vf_max(lowest, vf_load(x[c])) : lowest;
    UNROLL for (int half = width / 2; half > 0; half /= 2)
        UNROLL for (int c = 0; c < half; c++) s[c] = vf_max(s[c], s[c + half]);
    return s[0];
}
