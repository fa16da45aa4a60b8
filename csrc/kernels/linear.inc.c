/* The dense layer: forward, gradient by its input, gradient by its weights, and the update fused into the last.
 *
 * A panel of the result is finished (activation, its derivative, the optimizer) while it is still in the first-level
 * cache; the weight gradient of a fused update lives in a tile of scratch and never reaches memory. */

#define RUN_ROWS 512 /* of the batch at a time in linear_grad: x and dy of this many rows stay in the second-level cache */

static void linear(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    (void)step;
    const int64_t rows = end - begin, vectors = vectors_of(op->n_out), ldw = op->w.ld, ldy = op->y.ld;
    const real *x = (const real *)op->x.p + begin * op->x.ld, *w = op->w.p, *bias = w + op->n_in * ldw;
    real *y = (real *)op->y.p + begin * ldy, *z = op->z.p ? (real *)op->z.p + begin * op->z.ld : 0;

    for (int64_t k = 0, run; k < op->n_in; k += run) {
        run = at_most(op->n_in - k, RUN_K);
        const int last = k + run == op->n_in;
        for (int64_t v = 0, log2; v < vectors; v += 1 << log2) {
            const int64_t j = v * LANES;
            log2 = panel_log2(rows, vectors - v);
            const struct product p = {
                .k = run, .a = x + k, .lda = op->x.ld, .b = w + k * ldw + j, .ldb = ldw, .c = y + j, .ldc = ldy,
                .init = k ? y + j : bias + j, .ldi = k ? ldy : 0, .end = last && op->kind == FM_ACT_relu ? END_RELU : END_PLAIN,
            };
            panel(NN, p, rows, log2);
            if (last && op->kind != FM_ACT_relu)
                activation_forward(op->kind, (real)op->param, y + j, ldy, z ? z + j : 0, op->z.ld, rows, 1 << log2);
        }
    }
}

/* ---- gradient by the input --------------------------------------------------------------------------------- */

/* t[c, r] = m[r, c] for a square of vectors, by interleaving the two halves log2(LANES) times. */
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

/* t[columns, width] = m[rows, columns] transposed; lanes of t past `rows` become zero, up to width. */
static void transpose(const real *m, int64_t ldm, int64_t rows, int64_t columns, real *t, int64_t width)
{
    for (int64_t r = 0; r < width; r += LANES) {
        int64_t c = 0;
        if (r + LANES <= rows)
            for (; c + LANES <= columns; c += LANES) transpose_square(m + r * ldm + c, ldm, t + c * width + r, width);
        for (; c < columns; c++)
            for (int64_t l = 0; l < LANES; l++) t[c * width + r + l] = r + l < rows ? m[(r + l) * ldm + c] : 0;
    }
}

static void linear_back(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    (void)step;
    const int64_t rows = end - begin, vectors = vectors_of(op->n_in), ldx = op->dx.ld;
    const real *dy = (const real *)op->dy.p + begin * op->dy.ld, *w = op->w.p, *y = (const real *)op->y.p + begin * op->y.ld;
    const real *z = op->z.p ? (const real *)op->z.p + begin * op->z.ld : y;
    real *dx = (real *)op->dx.p + begin * ldx;
    real wt[RUN_K * 2 * LANES] __attribute__((aligned(64)));

    for (int64_t k = 0, run; k < op->n_out; k += run) {
        run = at_most(op->n_out - k, RUN_K);
        const int last = k + run == op->n_out;
        for (int64_t v = 0, log2; v < vectors; v += 1 << log2) {
            const int64_t j = v * LANES, width = (int64_t)LANES << (log2 = vectors - v >= 2);
            transpose(w + j * op->w.ld + k, op->w.ld, at_most(op->n_in - j, width), run, wt, width);
            const struct product p = {
                .k = run, .a = dy + k, .lda = op->dy.ld, .b = wt, .ldb = width, .c = dx + j, .ldc = ldx, .y = y + j, .ldy = op->y.ld,
                .init = k ? dx + j : zeros, .ldi = k ? ldx : 0, .end = last && op->kind == FM_ACT_relu ? END_RELU_BACK : END_PLAIN,
            };
            panel(NN, p, rows, log2);
            if (last && op->kind != FM_ACT_relu)
                activation_backward(op->kind, (real)op->param, y + j, op->y.ld, z + j, op->z.ld, dx + j, ldx, rows, 1 << log2);
        }
    }
}

/* ---- gradient by the weights ------------------------------------------------------------------------------- */

/* g_b[j] += sum of dy[r, j] over rows, in rising r. */
static void bias_gradient(const real *dy, int64_t ldy, int64_t rows, int64_t vectors, const real *init, real *g)
{
    for (int64_t v = 0; v < vectors; v++) {
        vf sum = vf_load(init + v * LANES);
        for (int64_t r = 0; r < rows; r++) sum += vf_load(dy + r * ldy + v * LANES);
        vf_store(g + v * LANES, sum);
    }
}

static void linear_grad(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const int64_t vectors = vectors_of(op->n_out), ldx = op->x.ld, ldy = op->dy.ld, ldg = op->g.ld;
    const int64_t last = at_most(end, op->n_in), rows = last - begin;
    real *g = (real *)op->g.p + begin * ldg, *gb = (real *)op->g.p + op->n_in * ldg;

    for (int64_t k = 0, run; k < step->rows; k += run) {
        run = at_most(step->rows - k, RUN_ROWS);
        const real *x = (const real *)op->x.p + k * ldx + begin, *dy = (const real *)op->dy.p + k * ldy;
        const int go_on = k || op->accumulate;
        for (int64_t v = 0, log2; v < vectors; v += 1 << log2) {
            const int64_t j = v * LANES;
            log2 = panel_log2(rows, vectors - v);
            const struct product p = {
                .k = run, .a = x, .lda = ldx, .b = dy + j, .ldb = ldy, .c = g + j, .ldc = ldg,
                .init = go_on ? g + j : zeros, .ldi = go_on ? ldg : 0,
            };
            if (rows > 0) panel(TN, p, rows, log2);
            if (op->bias && end > op->n_in) bias_gradient(dy + j, ldy, run, 1 << log2, go_on ? gb + j : zeros, gb + j);
        }
    }
}

/* The parameters a tile will move come from far: ask for them before its sum, not after. */
static inline void prefetch_parameters(const fm_op *op, int64_t at)
{
    __builtin_prefetch((const real *)op->w.p + at, 1);
    if (op->s1.p) __builtin_prefetch((const real *)op->s1.p + at, 1);
    if (op->s2.p) __builtin_prefetch((const real *)op->s2.p + at, 1);
}

/* t[rows, width] = m[rows, width of ldm]: a panel on consecutive lines, which every tile then reads without a miss. */
static void pack(const real *m, int64_t ldm, int64_t rows, real *t, int64_t width)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < width; c += LANES) vf_store(t + r * width + c, vf_load(m + r * ldm + c));
}

static void linear_update(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const int64_t vectors = vectors_of(op->n_out), ldx = op->x.ld, ldy = op->dy.ld, ldw = op->w.ld;
    const int64_t last = at_most(end, op->n_in);
    const struct mover mover = mover_of(op, step, 0);
    const real *x = op->x.p, *dy = op->dy.p;
    real g[TALLEST_TILE * PANEL_VECTORS * LANES] __attribute__((aligned(64)));
    real packed[RUN_ROWS * 2 * LANES] __attribute__((aligned(64)));

    for (int64_t v = 0, log2; v < vectors; v += 1 << log2) {
        const int64_t j = v * LANES, width = (int64_t)LANES << (log2 = panel_log2(last - begin, vectors - v));
        const int packs = log2 == 1 && step->rows <= RUN_ROWS && vectors > 2 && last - begin >= 64;
        if (packs) pack(dy + j, ldy, step->rows, packed, width);
        for (int64_t i = begin, m; i < last; i += m) {
            const int64_t tiles_left = (last - i + tile_rows[log2] - 1) / tile_rows[log2];
            m = (last - i + tiles_left - 1) / tiles_left;
            const struct product p = {
                .k = step->rows, .a = x + i, .lda = ldx, .b = packs ? packed : dy + j, .ldb = packs ? width : ldy,
                .c = g, .ldc = width, .init = zeros,
            };
            for (int64_t r = 0; r < m; r++) prefetch_parameters(op, (i + r) * ldw + j);
            tiles[TN][log2][m - 1](&p);
            move(&mover, op, i * ldw + j, g, width, m, 1 << log2);
        }
        if (op->bias && end > op->n_in) {
            const struct mover bias_mover = bias_differs(op, &mover) ? mover_of(op, step, 1) : mover;
            bias_gradient(dy + j, ldy, step->rows, 1 << log2, zeros, g);
            move(&bias_mover, op, op->n_in * ldw + j, g, width, 1, 1 << log2);
        }
    }
}
