/* The gradient of a dense layer with respect to its input, through the activation of the layer below: dx = (dy w^T) act'(y).
 *
 * One side of the product must be transposed: w, a panel at a time for all rows of the batch; or dy and dx, a panel at a time
 * for all rows of w. */

#define BACK_VECTORS (FM_BYTES == 64 ? 4 : 2) /* widest panel */
#define BACK_LOOKING (FM_BYTES == 64 ? LOOKING_VECTORS : 2) /* widest panel whose tiles look ahead */
#define BACK_PANELS (FM_BYTES == 64 ? 3 : 4)  /* at once: half of an L2 cache of 1 MB */

static inline int back_vectors(int64_t rows, int64_t vectors, int widest)
{
    if (vectors == widest) return widest; /* all at once: the other side is read only once, and each broadcast used most often */
    const int wide = panel_vectors(rows, vectors);
    return wide <= widest ? wide : 2;
}

/* Applies act' to a block of dx in scratch, and stores it to (r, j) non-temporally. */
static void hand_out(const fm_op *op, int64_t r, int64_t j, int64_t rows, int64_t vectors, real *scratch, int64_t ld)
{
    through_activation(op, r, j, rows, vectors, scratch, ld);
    stream_block(scratch, ld, dx_at(op, r, j), op->dx.ld, rows, vectors);
}

/* dx = dy w^T by columns of dx: a panel of them from as many rows of w, transposed once for all rows of the batch. handed_out is
 * a constant. */
INLINE void back_by_columns_as(const fm_op *op, int64_t begin, int64_t end, int handed_out)
{
    const int64_t rows = end - begin, vectors = vectors_of(op->n_in), ldw = op->w.ld;
    const real *dy = (const real *)op->dy.p + begin * op->dy.ld, *w = op->w.p;
    real scratch[HANDED_ROWS * BACK_VECTORS * LANES] __attribute__((aligned(64)));
    real wt[RUN_K * BACK_VECTORS * LANES] __attribute__((aligned(64)));
    const int far = is_distant(op), widest = far ? BACK_LOOKING : BACK_VECTORS;

    for (int64_t v = 0, wide; v < vectors; v += wide) {
        const int64_t j = v * LANES, width = (wide = back_vectors(rows, vectors - v, widest)) * LANES;
        const int64_t ldx = handed_out ? width : op->dx.ld;
        real *dx = handed_out ? scratch : dx_at(op, begin, j);
        const int64_t left = op->n_in - j - width, next = left > 0 ? at_most(left, width) * ldw / width : 0;
        const int64_t look = far ? look_every(op->n_out, tiles_in(rows, (int)wide), next ? larger_of(next, rows) : 0) : 0;
        struct ahead ahead[2] = { /* the next panel's rows of w, which are contiguous, and its dx */
            ahead_of(w + (j + width) * ldw, width, next), ahead_of(handed_out ? dx : dx + width, ldx, next ? rows : 0),
        };
        for (int64_t k = 0, run; k < op->n_out; k += run) {
            run = at_most(op->n_out - k, RUN_K);
            transpose(w + j * ldw + k, ldw, at_most(op->n_in - j, width), run, wt, width, width);
            struct product p = {
                .k = run, .a = dy + k, .lda = op->dy.ld, .b = wt, .ldb = width, .c = dx, .ldc = ldx,
                .init = k ? dx : zeros, .ldi = k ? ldx : 0, .look = look, .ahead = ahead, .n_ahead = far ? 2 : 0,
            };
            panel(&p, rows, (int)wide);
        }
        if (handed_out) hand_out(op, begin, j, rows, wide, dx, ldx);
        else through_activation(op, begin, j, rows, wide, dx, ldx);
    }
}

NOINLINE void back_by_columns(const fm_op *op, int64_t begin, int64_t end) { back_by_columns_as(op, begin, end, 0); }
NOINLINE void back_by_columns_to_hand_out(const fm_op *op, int64_t begin, int64_t end) { back_by_columns_as(op, begin, end, 1); }

/* dx of a single output, row by row, a block of rows at a time: a tile's call would take longer than its one term, and rows are
 * written from end to end. (On a Zen 3, 32 rows of 2048 x 1 took 3 times as long by columns, 256 rows of 256 x 1 twice.) */
#define ONE_OUTPUT_WEIGHTS (RUN_K * BACK_VECTORS * LANES)
#define ONE_OUTPUT_BLOCK (8 << 10) /* bytes of dx */

NOINLINE void back_of_one_output(const fm_op *op, int64_t begin, int64_t end)
{
    const int64_t width = vectors_of(op->n_in) * LANES, block = larger_of(1, ONE_OUTPUT_BLOCK / (width * (int64_t)sizeof(real)));
    real w[ONE_OUTPUT_WEIGHTS] __attribute__((aligned(64)));
    transpose(op->w.p, op->w.ld, op->n_in, 1, w, width, width);
    for (int64_t first = begin, rows; first < end; first += rows) {
        rows = at_most(end - first, block);
        for (int64_t r = first; r < first + rows; r++) {
            const vf dy = vf_set1(*((const real *)op->dy.p + r * op->dy.ld)), zero = vf_set1(0); /* a sum begins at +0 */
            real *dx = dx_at(op, r, 0);
            for (int64_t j = 0; j < width; j += LANES) vf_store(dx + j, vf_fma(dy, vf_load(w + j), zero));
        }
        through_activation(op, first, 0, rows, width / LANES, dx_at(op, first, 0), op->dx.ld);
    }
}

static inline int has_one_output(const fm_op *op)
{
    return op->n_out == 1 && vectors_of(op->n_in) * LANES <= ONE_OUTPUT_WEIGHTS;
}

/* Rows of the batch, transposed: their dy for a run of columns, and their dx for as many rows of w. */
struct back_panel {
    real *dyt, *dxt;
    int64_t first, rows, width;
    int wide;
};

/* Prefetches columns k .. k + run - 1 of these rows of w, a piece of each row at a look. */
static int look_at_rows(const fm_op *op, int64_t i, int64_t rows, int64_t k, int64_t run, int64_t piece, struct ahead *ahead)
{
    if (run < piece) return 0;
    for (int64_t r = 0; r < rows; r++) ahead[r] = ahead_of((const real *)op->w.p + (i + r) * op->w.ld + k, piece, run / piece);
    return (int)rows;
}

/* dxt += w dyt for rows i .. i + height - 1 of w and columns k .. k + run - 1: all panels use a tile of w, while the next one is
 * prefetched from memory. */
static void back_through_panels(const fm_op *op, struct back_panel *panels, int n, int64_t i, int64_t height, int64_t k,
                                int64_t run)
{
    const int distant = is_distant(op);
    for (struct back_panel *a = panels; a < panels + n; a++)
        transpose((const real *)op->dy.p + a->first * op->dy.ld + k, op->dy.ld, a->rows, run, a->dyt, a->width, a->width);
    for (int64_t t = 0, left = tiles_in(height, panels->wide), m; left > 0; t += m, left--) {
        m = (height - t + left - 1) / left;
        struct ahead ahead[TALLEST_TILE];
        const int ahead_rows = distant && left > 1 ? look_at_rows(op, i + t + m, m, k, run, panels->width, ahead) : 0;
        const int64_t look = ahead_rows ? look_every(run, n, run / panels->width) : 0;
        for (struct back_panel *a = panels; a < panels + n; a++) {
            real *c = a->dxt + t * a->width;
            const struct product p = {
                .k = run, .a = (const real *)op->w.p + (i + t) * op->w.ld + k, .lda = op->w.ld, .b = a->dyt, .ldb = a->width,
                .c = c, .ldc = a->width, .init = k ? c : zeros, .ldi = k ? a->width : 0,
                .look = look, .ahead = ahead, .n_ahead = ahead_rows,
            };
            tiles[NN][a->wide][m](&p);
        }
    }
}

/* Transposes a panel's dx for rows i .. i + height - 1 of w back and applies act'. */
static void finish_panel(const fm_op *op, const struct back_panel *a, int64_t i, int64_t height, int handed_out)
{
    real scratch[BACK_VECTORS * LANES * 4 * LANES] __attribute__((aligned(64)));
    if (!handed_out) {
        real *dx = dx_at(op, a->first, i);
        transpose(a->dxt, a->width, height, a->rows, dx, op->dx.ld, vectors_of(height) * LANES);
        through_activation(op, a->first, i, a->rows, vectors_of(height), dx, op->dx.ld);
        return;
    }
    for (int64_t t = 0, some; t < height; t += some) {
        some = at_most(height - t, 4 * LANES);
        transpose(a->dxt + t * a->width, a->width, some, a->rows, scratch, 4 * LANES, vectors_of(some) * LANES);
        hand_out(op, a->first, i + t, a->rows, vectors_of(some), scratch, 4 * LANES);
    }
}

/* dx^T = w dy^T by rows of the batch: up to `most` panels of them at a time are transposed before and after; w is used as it is.
 * scratch: dyt and dxt of each panel, of up to `widest` vectors; narrower panels leave room for longer runs. */
static void back_by_panels(const fm_op *op, int most, int widest, real *scratch, int64_t begin, int64_t end, int handed_out)
{
    struct back_panel panels[BACK_PANELS];
    while (begin < end) {
        const int wide = back_vectors(op->n_in, vectors_of(end - begin), widest), alone = end - begin <= wide * LANES;
        const int64_t longest = alone && most > 1 ? most * widest * RUN_K / wide : RUN_K;
        int n = 0;
        for (; begin < end && n < most; begin += panels[n++].rows) {
            struct back_panel *a = &panels[n];
            a->wide = back_vectors(op->n_in, vectors_of(end - begin), widest), a->width = a->wide * LANES;
            a->dyt = scratch + 2 * n * RUN_K * widest * LANES, a->dxt = a->dyt + longest * a->width;
            a->first = begin, a->rows = at_most(end - begin, a->width);
        }
        for (int64_t i = 0, height; i < op->n_in; i += height) {
            height = at_most(op->n_in - i, RUN_K);
            for (int64_t k = 0; k < op->n_out; k += longest)
                back_through_panels(op, panels, n, i, height, k, at_most(op->n_out - k, longest));
            for (struct back_panel *a = panels; a < panels + n; a++) finish_panel(op, a, i, height, handed_out);
        }
    }
}

NOINLINE void back_by_rows(const fm_op *op, int64_t begin, int64_t end, int handed_out)
{
    real scratch[2 * RUN_K * BACK_VECTORS * LANES] __attribute__((aligned(64)));
    back_by_panels(op, 1, BACK_VECTORS, scratch, begin, end, handed_out);
}

/* Several panels at once: weights are read from memory once for all of them. */
NOINLINE void back_by_rows_from_memory(const fm_op *op, int64_t begin, int64_t end, int handed_out)
{
    real scratch[BACK_PANELS * 2 * RUN_K * BACK_LOOKING * LANES] __attribute__((aligned(64)));
    back_by_panels(op, BACK_PANELS, BACK_LOOKING, scratch, begin, end, handed_out);
}

/* Which way costs less. Both give the same bits, but differ in the number of transposed squares and of empty lanes. */
static int rows_are_cheaper(const fm_op *op, int64_t rows)
{
    const int64_t vx = vectors_of(op->n_in), vy = vectors_of(op->n_out), vr = vectors_of(rows), square = 8 * LANES;
    const int64_t by_columns = rows * vx * op->n_out + vx * vy * square;
    return vr * op->n_in * op->n_out + vr * (vy * fm_parts_of(op->n_in, RUN_K) + vx) * square < by_columns;
}

static void linear_back(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    /* In the next op on parameters all workers read dx, and the next step writes every line of it again. */
    const int handed_out = is_handed_out(step, op->dx) && end - begin < step->rows && end - begin <= HANDED_ROWS;
    if (is_small(op, end - begin)) small_backs[op->n_in > LANES][small_activation(op->kind)](op, step, begin, end);
    else if (has_one_output(op) && !handed_out) back_of_one_output(op, begin, end);
    else if (!rows_are_cheaper(op, end - begin)) (handed_out ? back_by_columns_to_hand_out : back_by_columns)(op, begin, end);
    else (is_distant(op) ? back_by_rows_from_memory : back_by_rows)(op, begin, end, handed_out);
    if (handed_out) vf_streamed();
}
