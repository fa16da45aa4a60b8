/* The dense layer with matrices one or two vectors wide: the same chains as in linear.inc.c, so the same bits, without what large
 * layers need (panels, runs of k, prefetches), whose setup would take longer than the arithmetic.
 *
 * Four rows at a time. If fewer are left, the last one is computed repeatedly and stored once. */

#define SMALL_ROWS 64 /* of the batch at most: beyond, taller tiles pay */
#define GROUP 4

static inline int is_small(const fm_op *op, int64_t rows)
{
    return op->n_out <= 2 * LANES && op->n_in <= 2 * LANES && rows <= SMALL_ROWS;
}

/* The activations of most tiny networks; others are applied after the product. */
enum { OTHER, RELU, SIGMOID, TANH };

static inline int small_activation(int kind)
{
    return kind == FM_ACT_relu ? RELU : kind == FM_ACT_sigmoid ? SIGMOID : kind == FM_ACT_tanh ? TANH : OTHER;
}

INLINE vf small_forward(int act, vf z)
{
    return act == RELU ? relu(z) : act == SIGMOID ? vf_sigmoid(z) : act == TANH ? vf_tanh(z) : z;
}

INLINE vf small_backward(int act, vf d, const real *y)
{
    return act == RELU ? relu_back(d, vf_load(y)) : act == SIGMOID ? sigmoid_back(d, vf_load(y)) : tanh_back(d, vf_load(y));
}

/* A product of the layer: y = act(x w + b), or, if `below` (the output of the layer below) is given, dx = (dy w^T) act'(y). */
INLINE void small_product_of(int nv, int act, const struct product *p, int64_t rows, const real *below, int64_t ld_below)
{
    const int64_t lda = p->lda, ldb = p->ldb, ldc = p->ldc, k = p->k;
    const real *a = p->a, *const *at = p->at;
    real *c = p->c;
    for (int64_t left = rows; left > 0; left -= GROUP, a += GROUP * lda) {
        const real *row[GROUP] = {a}, *b = p->b;
        vf acc[GROUP][2];
        UNROLL for (int i = 1; i < GROUP; i++) row[i] = row[i - 1] + (i < left ? lda : 0);
        if (at) {
            UNROLL for (int i = 0; i < GROUP; i++) row[i] = at[i < left ? i : left - 1];
            at += GROUP;
        }
        EACH_ACC(GROUP, nv) acc[r][v] = vf_load(p->init + v * LANES);
        for (int64_t n = 0; n < k; n++, b += ldb) {
            vf bv[2];
            UNROLL for (int v = 0; v < nv; v++) bv[v] = vf_load(b + v * LANES);
            UNROLL for (int i = 0; i < GROUP; i++) {
                const vf ai = vf_set1(row[i][n]);
                UNROLL for (int v = 0; v < nv; v++) acc[i][v] = vf_fma(ai, bv[v], acc[i][v]);
            }
        }
        UNROLL for (int i = 0; i < GROUP; i++, c += ldc) {
            if (i >= left) break;
            UNROLL for (int v = 0; v < nv; v++)
                vf_store(c + v * LANES, below ? small_backward(act, acc[i][v], below + v * LANES) : small_forward(act, acc[i][v]));
            if (below) below += ld_below;
        }
    }
}

INLINE void small_linear_of(int nv, int act, const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const int64_t rows = end - begin, ldw = op->w.ld;
    const real *w = op->w.p;
    real *y = (real *)op->y.p + begin * op->y.ld, *z = op->z.p ? (real *)op->z.p + begin * op->z.ld : 0;
    const struct product p = {
        .k = op->n_in, .a = (const real *)op->x.p + begin * op->x.ld, .lda = op->x.ld, .at = rows_in_place(op, step, begin),
        .b = w, .ldb = ldw, .init = w + op->n_in * ldw, .c = y, .ldc = op->y.ld,
    };
    small_product_of(nv, act, &p, rows, 0, 0);
    if (act == OTHER && op->kind != FM_ACT_identity)
        activation_forward(op->kind, (real)op->param, y, op->y.ld, z, op->z.ld, rows, nv);
}

/* t[columns, LANES] = m[rows, columns] transposed, for fewer rows than lanes. */
static inline void small_transpose(const real *m, int64_t ldm, int64_t rows, int64_t columns, real *t)
{
    for (int64_t c = 0; c < columns; c++) {
        vf v = vf_set1(0);
        for (int64_t r = 0; r < rows; r++) v = with_lane(v, r, vf_set1(m[r * ldm + c]));
        vf_store(t + c * LANES, v);
    }
}

INLINE void small_back_of(int nv, int act, const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    (void)step;
    const int64_t width = nv * LANES, rows = end - begin;
    real wt[4 * LANES * LANES] __attribute__((aligned(64)));
    if (op->n_in < LANES) small_transpose(op->w.p, op->w.ld, op->n_in, op->n_out, wt);
    else transpose(op->w.p, op->w.ld, op->n_in, op->n_out, wt, width, width);
    const struct product p = {
        .k = op->n_out, .a = (const real *)op->dy.p + begin * op->dy.ld, .lda = op->dy.ld, .b = wt, .ldb = width, .init = zeros,
        .c = (real *)op->dx.p + begin * op->dx.ld, .ldc = op->dx.ld,
    };
    small_product_of(nv, act, &p, rows, act == OTHER ? 0 : (const real *)op->y.p + begin * op->y.ld, op->y.ld);
    if (act == OTHER) through_activation(op, begin, 0, rows, nv, dx_at(op, begin, 0), op->dx.ld);
}

/* A function for each combination of constants, so that each has all registers. */
#define SMALL(what, nv, act)                                                                                           \
    NOINLINE void what##_##nv##act(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)                   \
    {                                                                                                                  \
        what##_of(nv, act, op, step, begin, end);                                                                      \
    }
#define SMALL_TABLE(what)                                                                                              \
    SMALL(what, 1, OTHER) SMALL(what, 1, RELU) SMALL(what, 1, SIGMOID) SMALL(what, 1, TANH)                            \
    SMALL(what, 2, OTHER) SMALL(what, 2, RELU) SMALL(what, 2, SIGMOID) SMALL(what, 2, TANH)                            \
    static fm_kernel *const what##s[2][4] = {{what##_1OTHER, what##_1RELU, what##_1SIGMOID, what##_1TANH},             \
                                             {what##_2OTHER, what##_2RELU, what##_2SIGMOID, what##_2TANH}};
SMALL_TABLE(small_linear)
SMALL_TABLE(small_back)

/* ---- update --------------------------------------------------------------------------------------------------- */

/* Rows begin .. end - 1 of the weights, of which row n_in is the bias, whose input is always 1. A plain rule's updaters are
 * built here, where constants tell what they need. */
INLINE void small_update_of(int nv, int kind, int momentum, int plain, const fm_op *op, const fm_step *step, int64_t begin,
                            int64_t end, const struct updater *given)
{
    const struct updater by = plain ? updater_as(kind, 1, op, step, 0, 1) : *given; /* a copy that no store can reach */
    const struct updater bias_by = plain ? updater_as(kind, 1, op, step, 1, 1) : *given;
    const real *const *at = rows_in_place(op, step, 0);
    const int64_t ldx = op->x.ld, ldy = op->dy.ld, ldw = op->w.ld, last = at_most(end, op->n_in), rows = step->rows;
    real *w = op->w.p, *s1 = op->s1.p ? op->s1.p : w, *s2 = op->s2.p ? op->s2.p : w;
    int64_t place = begin * ldw;
#define UPDATE_VECTOR(by, at, g) vf_store(w + (at), moved(by, kind, momentum, plain, vf_load(w + (at)), g, s1 + (at), s2 + (at)))
    for (int64_t k = begin; k < end; k += GROUP) {
        const real *x = op->x.p, *dy = op->dy.p;
        int64_t column[GROUP];
        vf g[GROUP][2], g_bias[2];
        UNROLL for (int i = 0; i < GROUP; i++) column[i] = at_most(k + i, op->n_in - 1);
        EACH_ACC(GROUP, nv) g[r][v] = vf_set1(0);
        UNROLL for (int v = 0; v < nv; v++) g_bias[v] = vf_set1(0);
        for (int64_t n = rows; n > 0; n--, x += ldx, dy += ldy) {
            const real *line = at ? at[rows - n] : x;
            vf d[2];
            UNROLL for (int v = 0; v < nv; v++) g_bias[v] += d[v] = vf_load(dy + v * LANES);
            UNROLL for (int i = 0; i < GROUP; i++) {
                const vf xi = vf_set1(line[column[i]]);
                UNROLL for (int v = 0; v < nv; v++) g[i][v] = vf_fma(xi, d[v], g[i][v]);
            }
        }
        UNROLL for (int i = 0; i < GROUP; i++, place += ldw) {
            if (k + i >= last) break;
            UNROLL for (int v = 0; v < nv; v++) UPDATE_VECTOR(&by, place + v * LANES, g[i][v]);
        }
        if (end <= op->n_in || k + GROUP < op->n_in) continue;
        UNROLL for (int v = 0; v < nv; v++) UPDATE_VECTOR(&bias_by, place + v * LANES, g_bias[v]);
        return;
    }
#undef UPDATE_VECTOR
}

/* A function for each combination of constants, so that each has all registers. */
#define SMALL_UPDATE(kind, nv, momentum, plain)                                                                        \
    NOINLINE void small_##kind##_##nv##momentum##plain(const fm_op *op, const fm_step *step, int64_t begin, int64_t end, \
                                                       const struct updater *given)                                    \
    {                                                                                                                  \
        small_update_of(nv, kind, momentum, plain, op, step, begin, end, given);                                       \
    }
#define SMALL_UPDATES(kind, momentum)                                                                                  \
    SMALL_UPDATE(kind, 1, momentum, 0) SMALL_UPDATE(kind, 1, momentum, 1)                                              \
    SMALL_UPDATE(kind, 2, momentum, 0) SMALL_UPDATE(kind, 2, momentum, 1)
SMALL_UPDATES(FM_OPT_sgd, 0) SMALL_UPDATES(FM_OPT_sgd, 1)
SMALL_UPDATES(FM_OPT_rmsprop, 0) SMALL_UPDATES(FM_OPT_rmsprop, 1)
SMALL_UPDATES(FM_OPT_adagrad, 0) SMALL_UPDATES(FM_OPT_adam, 0)

static inline void small_update_as(const fm_op *op, const fm_step *step, int64_t begin, int64_t end, int is_plain,
                                   const struct updater *given)
{
#define UPDATE_ROWS(kind, momentum, plain)                                                                             \
    (op->n_out <= LANES ? small_##kind##_1##momentum##plain : small_##kind##_2##momentum##plain)(op, step, begin, end, given)
    AS_OPTIMIZER(op, is_plain, UPDATE_ROWS)
#undef UPDATE_ROWS
}

/* With clipping or penalties, which may differ for the bias. */
NOINLINE void small_update_not_plain(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const struct updater updater = updater_of(op, step, 0), bias_updater = updater_of(op, step, 1);
    if (begin < op->n_in) small_update_as(op, step, begin, at_most(end, op->n_in), updater.plain, &updater);
    if (end > op->n_in) small_update_as(op, step, op->n_in, end, bias_updater.plain, &bias_updater);
}

static inline void small_update(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    if (!op->bias) end = at_most(end, op->n_in);
    if (op->rule.plain) small_update_as(op, step, begin, end, 1, 0);
    else small_update_not_plain(op, step, begin, end);
}
