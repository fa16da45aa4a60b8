/* The dense layer, forward. (Its gradients: linear_grad.inc.c for the weights, linear_back.inc.c for the input.)
 *
 * The activation is applied to a panel of the result while that is still in the L1 cache. */

/* Bytes of weights that stay in an L2 cache from one step to the next: prefetches a few rows ahead, by the tiles, are enough for
 * them. (On a Zen 4 with AVX2, 128 rows by more weights took 1.01 to 1.15 times as long with no others.) */
#define NEAR_WEIGHTS (768 << 10)
#define NEAR_LOOKING (512 << 10) /* bytes of weights that leave room in that cache for the data's next rows */

/* With weights from memory and few rows of a batch, reading the weights takes most of the time. A short run of inputs reads
 * along few rows of w at a time, as many streams as the hardware prefetcher follows. (On an Intel, 16 rows of 4096 x 4096 took
 * 2.1 times as long in long runs, with two workers 1.5 to 1.8 times; from 64 rows on, short runs cost more than they save.) */
#define FEW_ROWS 32
#define SHORT_RUN 48

/* Rows that are few enough for low tiles of four vectors, although each tile reads the panel again, from the L1 or L2 cache. (On
 * a Zen 3 with AVX2, 4 to 9 rows of 784 x 512 and 1000 x 1000 took up to 1.5 times as long in tiles of two vectors, which wait
 * for the L3 cache; of 2048 x 2048, whose weights come from memory, 2 to 8 rows took 1.2 to 1.9 times as long in longer runs.) */
#define LOW_TILES_ROWS (FM_BYTES == 32 ? 9 : 0)
#define SHORTEST_RUN 8

/* A product of rows of the batch and columns of the weights, in vectors. */
struct forward {
    const fm_op *op;
    int64_t begin, rows, first, last;
    const real *const *at; /* see product */
    struct ahead *coming;  /* of the data, for the next block of rows */
    int n_coming;
    int64_t look; /* terms between looks at `coming`; 0: none */
    int64_t run;  /* inputs at a time */
};

/* How many inputs are read at a time. */
static inline int64_t run_of_inputs(const fm_op *op, int64_t rows)
{
    if (!is_distant(op) || rows > FEW_ROWS) return RUN_K;
    if (rows <= LOW_TILES_ROWS) return SHORTEST_RUN;
    return rows > LOW_ROWS ? SHORT_RUN : RUN_K;
}

/* The next rows, if in order, are contiguous memory, of which the tiles prefetch a few lines at a look. (Bursts would cost what
 * they save. Tiles of one vector are busy loading, and more weights leave no room for the rows; narrower vectors gained nothing.
 * On an Intel, predictions of 784-128-10 for 10,000 rows took 1.05 times as long without, of 784-32-10 1.13 times.) */
static void look_at_next_rows(struct forward *f, const fm_step *step, struct ahead coming[2])
{
    const int wide = panel_vectors(f->rows, f->last - f->first), n = wide == 2 ? 2 : 1;
    const int64_t part = step->next_bytes / n, looks = part / (wide * FM_BYTES);
    if (FM_BYTES < 64 || wide < 2 || !f->at || f->op->partial || weight_bytes(f->op) > NEAR_LOOKING || !looks) return;
    for (int i = 0; i < n; i++) coming[i] = ahead_of(step->next + i * part, wide * LANES, looks);
    f->coming = coming, f->n_coming = n;
    f->look = look_every(f->op->n_in, tiles_in(f->rows, wide) * fm_parts_of(f->last - f->first, wide), looks);
}

/* The product for one run of inputs, from k on, of a panel of y = x w + b. Sums start from the bias or op->init; the caller sets
 * where they are stored. */
static inline struct product run_of_panel(const struct forward *f, int64_t k, int64_t v)
{
    const fm_op *op = f->op;
    const int64_t j = v * LANES, run = at_most(op->n_in - k, f->run);
    const real *bias = (const real *)op->w.p + op->n_in * op->w.ld;
    return (struct product){
        .k = run, .a = (const real *)op->x.p + f->begin * op->x.ld + k, .lda = op->x.ld, .at = f->at, .skip = op->first_in + k,
        .b = (const real *)op->w.p + k * op->w.ld + j, .ldb = op->w.ld, .relu = op->kind == FM_ACT_relu && k + run == op->n_in,
        .init = (op->partial ? (const real *)op->init.p + f->begin * op->init.ld : bias) + j, .ldi = op->init.ld,
    };
}

/* Applies the activation to a panel whose sums are complete, in y or in scratch. */
static inline void end_panel(const struct forward *f, int64_t v, int wide, real *y, int64_t ldy)
{
    const fm_op *op = f->op;
    real *z = op->z.p ? (real *)op->z.p + f->begin * op->z.ld + v * LANES : 0;
    if (op->kind != FM_ACT_relu) activation_forward(op->kind, (real)op->param, y, ldy, z, op->z.ld, f->rows, wide);
}

/* What the panel after the one at row k and vector v of w will read and write. Returns the number of terms between looks. */
static int64_t next_panel(const struct forward *f, int64_t k, int64_t v, int wide, struct ahead ahead[2])
{
    const fm_op *op = f->op;
    const int64_t run = at_most(op->n_in - k, f->run);
    v += wide;
    if (v >= f->last) k += f->run, v = f->first;
    const int64_t next = k < op->n_in ? at_most(op->n_in - k, f->run) : 0;
    ahead[0] = ahead_of((const real *)op->w.p + k * op->w.ld + v * LANES, op->w.ld, next);
    ahead[1] = ahead_of((real *)op->y.p + f->begin * op->y.ld + v * LANES, op->y.ld, next ? f->rows : 0);
    return look_every(run, tiles_in(f->rows, wide), next ? larger_of(next, f->rows) : 0);
}

/* The width of the next panel. Far weights need tiles that look ahead, or that are so low that they prefetch b themselves. */
static inline int forward_vectors(const struct forward *f, int64_t vectors, int far)
{
    const int wide = panel_vectors(f->rows, vectors);
    if (far && f->rows > LOW_ROWS && f->rows <= LOW_TILES_ROWS && vectors >= 4) return 4;
    return far && wide > LOOKING_VECTORS && f->rows > LOW_ROWS ? MAIN_VECTORS : wide;
}

/* All panels for a run of the inputs, then for the next: the run's columns of x stay in the L2 cache. */
NOINLINE void panels_forward(const struct forward *f, int far)
{
    const fm_op *op = f->op;
    for (int64_t k = 0; k < op->n_in; k += f->run)
        for (int64_t v = f->first, wide; v < f->last; v += wide) {
            real *y = (real *)op->y.p + f->begin * op->y.ld + v * LANES;
            struct product p = run_of_panel(f, k, v);
            struct ahead ahead[2];
            wide = forward_vectors(f, f->last - v, far);
            if (k) p.init = y, p.ldi = op->y.ld;
            p.c = y, p.ldc = op->y.ld;
            if (far) p.look = next_panel(f, k, v, (int)wide, ahead), p.ahead = ahead, p.n_ahead = 2;
            else p.look = f->look, p.ahead = f->coming, p.n_ahead = f->n_coming;
            panel(&p, f->rows, (int)wide);
            if (k + f->run >= op->n_in) end_panel(f, v, (int)wide, y, op->y.ld);
        }
}

/* One row by weights from memory: eight rows of w side by side, each read from end to end, as the hardware prefetcher expects it.
 * (On a Zen 3, panels read 2048 x 2048 at 17 GB/s, and these streams at 31.) */
#define STREAMS 8
#define STREAMS_ROWS (FM_BYTES == 32 ? 1 : 0)

NOINLINE void row_by_streams(const struct forward *f)
{
    const fm_op *op = f->op;
    const struct product p = run_of_panel(f, 0, 0);
    const real *x = p.at ? p.at[0] + p.skip : p.a, *from = p.init;
    real *y = (real *)op->y.p + f->begin * op->y.ld;
    for (int64_t k = 0; k < op->n_in; k += STREAMS, from = y) {
        const real *w = p.b + k * p.ldb;
        const int64_t terms = at_most(op->n_in - k, STREAMS);
        vf xs[STREAMS];
        for (int t = 0; t < STREAMS; t++) xs[t] = vf_set1(t < terms ? x[k + t] : 0);
        for (int64_t j = f->first * LANES; j < f->last * LANES; j += LANES) {
            vf sum = vf_load(from + j);
            if (terms == STREAMS) {
                UNROLL for (int t = 0; t < STREAMS; t++) vf_accumulate_by(&sum, xs[t], w + t * p.ldb + j);
            } else {
                for (int t = 0; t < terms; t++) sum = vf_fma(xs[t], vf_load(w + t * p.ldb + j), sum);
            }
            vf_store(y + j, op->kind == FM_ACT_relu && k + terms == op->n_in ? relu(sum) : sum);
        }
    }
    end_panel(f, f->first, (int)(f->last - f->first), y + f->first * LANES, op->y.ld);
}

/* One panel after the other, stored non-temporally. */
NOINLINE void panels_handed_out(const struct forward *f)
{
    const fm_op *op = f->op;
    real scratch[HANDED_ROWS * 4 * LANES] __attribute__((aligned(64)));
    for (int64_t v = f->first, wide; v < f->last; v += wide) {
        const int64_t width = (wide = at_most(panel_vectors(f->rows, f->last - v), 4)) * LANES;
        for (int64_t k = 0; k < op->n_in; k += RUN_K) {
            struct product p = run_of_panel(f, k, v);
            const int last = k + p.k == op->n_in;
            const int64_t next = last ? (v + wide < f->last ? at_most(op->n_in, RUN_K) : 0) : at_most(op->n_in - k - p.k, RUN_K);
            struct ahead ahead = ahead_of(last ? p.b - k * p.ldb + width : p.b + p.k * p.ldb, p.ldb, next);
            if (k) p.init = scratch, p.ldi = width;
            p.c = scratch, p.ldc = width;
            p.look = look_every(p.k, tiles_in(f->rows, (int)wide), next), p.ahead = &ahead, p.n_ahead = 1;
            panel(&p, f->rows, (int)wide);
        }
        end_panel(f, v, (int)wide, scratch, width);
        stream_block(scratch, width, (real *)op->y.p + f->begin * op->y.ld + v * LANES, op->y.ld, f->rows, wide);
    }
    vf_streamed();
}

/* Rows begin .. end - 1 by vectors first .. last - 1 of the weights. */
static void forward(const fm_op *op, const fm_step *step, int64_t begin, int64_t end, int64_t first, int64_t last, int handed_out)
{
    const int far = weight_bytes(op) > NEAR_WEIGHTS || is_streamed(op, step, end - begin < step->rows);
    for (int64_t r = begin, rows; r < end && first < last; r += rows) {
        rows = handed_out ? at_most(end - r, HANDED_ROWS) : end - r;
        struct forward f = {
            .op = op, .begin = r, .rows = rows, .first = first, .last = last, .at = rows_in_place(op, step, r),
            .run = run_of_inputs(op, rows),
        };
        struct ahead coming[2];
        look_at_next_rows(&f, step, coming);
        if (handed_out) panels_handed_out(&f);
        else if (is_distant(op) && rows <= STREAMS_ROWS) row_by_streams(&f);
        else panels_forward(&f, far);
    }
}

/* Non-temporal stores for what others will read: of this worker's columns, others' rows; of its rows, others' columns. */
static void forward_far_apart(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const int64_t vectors = vectors_of(op->n_out);
    const int by_rows = end - begin == step->rows;
    const int64_t all = by_rows ? step->rows : vectors, mine = my_begin(step, all), others = my_end(step, all);
    const int64_t from[3] = {0, mine, others}, to[3] = {mine, others, all};
    for (int i = 0; i < 3; i++)
        if (by_rows) forward(op, step, from[i], to[i], 0, vectors, i != 1);
        else forward(op, step, begin, end, from[i], to[i], i != 1);
}

NOINLINE void wide_linear(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    if (is_handed_out(step, op->y) && !op->partial && !is_distant(op)) forward_far_apart(op, step, begin, end);
    else forward(op, step, begin, end, 0, vectors_of(op->n_out), 0);
}

static void linear(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    if (!is_small(op, end - begin) || op->partial) wide_linear(op, step, begin, end);
    else small_linears[op->n_out > LANES][small_activation(op->kind)](op, step, begin, end);
}
