/* The dense layer, forward. (Its gradients: linear_grad.inc.c by the weights, linear_back.inc.c by the input.)
 *
 * A panel of the result is finished by the activation while it is still in the first-level cache. */

#define NEAR_WEIGHTS (768 << 10) /* bytes of weights: more are not left in a second-level cache from one step to the next */

/* What the panel of `linear` reads that follows the one at row k and vector v of w, and what it writes. Returns how many
 * terms of its sums there are from one look to the next. */
static int64_t next_panel(const fm_op *op, int64_t k, int64_t v, int wide, const real *y, int64_t rows, struct ahead ahead[2])
{
    const int64_t run = at_most(op->n_in - k, RUN_K);
    v += wide;
    if (v >= vectors_of(op->n_out)) k += RUN_K, v = 0;
    const int64_t next = k < op->n_in ? at_most(op->n_in - k, RUN_K) : 0;
    ahead[0] = ahead_of((const real *)op->w.p + k * op->w.ld + v * LANES, op->w.ld, next);
    ahead[1] = ahead_of(y + v * LANES, op->y.ld, next ? rows : 0);
    return look_every(run, tiles_in(rows, wide), next ? larger_of(next, rows) : 0);
}

NOINLINE void wide_linear(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const int64_t rows = end - begin, vectors = vectors_of(op->n_out), ldw = op->w.ld, ldy = op->y.ld;
    const real *x = (const real *)op->x.p + begin * op->x.ld, *w = op->w.p;
    const real *init = op->partial ? (const real *)op->init.p + begin * op->init.ld : w + op->n_in * ldw; /* the bias */
    const real *const *at = rows_in_place(op, step, begin);
    real *y = (real *)op->y.p + begin * ldy, *z = op->z.p ? (real *)op->z.p + begin * op->z.ld : 0;
    const int far = weight_bytes(op) > NEAR_WEIGHTS || is_streamed(op, step, rows < step->rows);

    for (int64_t k = 0, run; k < op->n_in; k += run) {
        run = at_most(op->n_in - k, RUN_K);
        const int last = k + run == op->n_in;
        for (int64_t v = 0; v < vectors;) {
            const int64_t j = v * LANES;
            const int wide = panel_vectors(rows, vectors - v);
            struct ahead ahead[2];
            const int64_t look = far ? next_panel(op, k, v, wide, y, rows, ahead) : 0;
            struct product p = {
                .k = run, .a = x + k, .lda = op->x.ld, .at = at, .skip = op->first_in + k, .b = w + k * ldw + j, .ldb = ldw,
                .c = y + j, .ldc = ldy, .init = k ? y + j : init + j, .ldi = k ? ldy : op->init.ld,
                .relu = last && op->kind == FM_ACT_relu,
                .look = look, .ahead = ahead, .n_ahead = far ? 2 : 0,
            };
            panel(&p, rows, wide);
            if (last && op->kind != FM_ACT_relu)
                activation_forward(op->kind, (real)op->param, y + j, ldy, z ? z + j : 0, op->z.ld, rows, wide);
            v += wide;
        }
    }
}

static void linear(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    if (!is_small(op, end - begin) || op->partial) wide_linear(op, step, begin, end);
    else small_linears[op->n_out > LANES][small_activation(op->kind)](op, step, begin, end);
}
