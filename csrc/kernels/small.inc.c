/* The dense layer where its matrices are a vector or two wide: the same chains as in linear.inc.c, so the same bits, without
 * what large layers need (panels, runs of k, look-ahead), which would take longer to set up than the arithmetic takes.
 *
 * Four rows at a time. Where fewer are left the last one is computed again and stored to the same place, or not at all. */

#define SMALL_ROWS 64 /* of the batch: beyond, taller tiles pay */
#define GROUP 4

static inline int is_small(const fm_op *op, int64_t rows)
{
    return op->n_out <= 2 * LANES && op->n_in <= 2 * LANES && rows <= SMALL_ROWS;
}

/* nn, for so many rows, nv vectors wide; all start from the same vectors. */
INLINE void small_product_of(int nv, const struct product *p, int64_t rows)
{
    for (int64_t r = 0; r < rows; r += GROUP) {
        const real *row[GROUP], *b = p->b;
        vf acc[GROUP][2];
        UNROLL for (int i = 0; i < GROUP; i++) row[i] = p->a + at_most(r + i, rows - 1) * p->lda;
        EACH_ACC(GROUP, nv) acc[r][v] = vf_load(p->init + v * LANES);
        for (int64_t n = 0; n < p->k; n++, b += p->ldb) {
            vf bv[2];
            UNROLL for (int v = 0; v < nv; v++) bv[v] = vf_load(b + v * LANES);
            UNROLL for (int i = 0; i < GROUP; i++) {
                const vf ai = vf_set1(row[i][n]);
                UNROLL for (int v = 0; v < nv; v++) acc[i][v] = vf_fma(ai, bv[v], acc[i][v]);
            }
        }
        if (p->relu) {
            EACH_ACC(GROUP, nv) acc[r][v] = vf_max(vf_set1(0), acc[r][v]);
        }
        UNROLL for (int i = 0; i < GROUP; i++)
            UNROLL for (int v = 0; v < nv; v++) vf_store(p->c + at_most(r + i, rows - 1) * p->ldc + v * LANES, acc[i][v]);
    }
}

INLINE void small_product(const struct product *p, int64_t rows, int64_t vectors)
{
    vectors == 1 ? small_product_of(1, p, rows) : small_product_of(2, p, rows);
}

static void small_linear(const fm_op *op, int64_t begin, int64_t end)
{
    const int64_t rows = end - begin, vectors = vectors_of(op->n_out), ldw = op->w.ld;
    const real *x = (const real *)op->x.p + begin * op->x.ld, *w = op->w.p;
    real *y = (real *)op->y.p + begin * op->y.ld, *z = op->z.p ? (real *)op->z.p + begin * op->z.ld : 0;
    const struct product p = {
        .k = op->n_in, .a = x, .lda = op->x.ld, .b = w, .ldb = ldw, .init = w + op->n_in * ldw, .c = y, .ldc = op->y.ld,
        .relu = op->kind == FM_ACT_relu,
    };
    small_product(&p, rows, vectors);
    if (op->kind == FM_ACT_relu || op->kind == FM_ACT_identity) return;
    activation_forward(op->kind, (real)op->param, y, op->y.ld, z, op->z.ld, rows, vectors);
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

static void small_back(const fm_op *op, int64_t begin, int64_t end)
{
    const int64_t vectors = vectors_of(op->n_in), width = vectors * LANES;
    real wt[4 * LANES * LANES] __attribute__((aligned(64)));
    if (op->n_in < LANES) small_transpose(op->w.p, op->w.ld, op->n_in, op->n_out, wt);
    else transpose(op->w.p, op->w.ld, op->n_in, op->n_out, wt, width, width);
    const struct product p = {
        .k = op->n_out, .a = (const real *)op->dy.p + begin * op->dy.ld, .lda = op->dy.ld, .b = wt, .ldb = width, .init = zeros,
        .c = (real *)op->dx.p + begin * op->dx.ld, .ldc = op->dx.ld,
    };
    small_product(&p, end - begin, vectors);
    through_activation(op, begin, 0, end - begin, vectors);
}

/* ---- update --------------------------------------------------------------------------------------------------- */

/* Which parameters of an op to move, and by what. */
struct small_move {
    const struct mover *by;
    int64_t begin, end; /* rows of the weights */
    int bias;
};

INLINE void small_update_of(int nv, int kind, int momentum, int plain, const fm_op *op, const fm_step *step,
                            const struct small_move *what)
{
    const struct mover by = *what->by; /* a copy that no store can reach: it stays in registers */
    const int64_t ldx = op->x.ld, ldy = op->dy.ld, ldw = op->w.ld;
    real *w = op->w.p, *s1 = op->s1.p ? op->s1.p : w, *s2 = op->s2.p ? op->s2.p : w;
#define SMALL_MOVE(at, g) vf_store(w + (at), moved(&by, kind, momentum, plain, vf_load(w + (at)), g, s1 + (at), s2 + (at)))
    for (int64_t k = what->begin; k < what->end; k += GROUP) {
        const real *x = op->x.p, *dy = op->dy.p;
        int64_t column[GROUP];
        vf g[GROUP][2];
        UNROLL for (int i = 0; i < GROUP; i++) column[i] = at_most(k + i, what->end - 1);
        EACH_ACC(GROUP, nv) g[r][v] = vf_set1(0);
        for (int64_t n = step->rows; n > 0; n--, x += ldx, dy += ldy) {
            vf d[2];
            UNROLL for (int v = 0; v < nv; v++) d[v] = vf_load(dy + v * LANES);
            UNROLL for (int i = 0; i < GROUP; i++) {
                const vf xi = vf_set1(x[column[i]]);
                UNROLL for (int v = 0; v < nv; v++) g[i][v] = vf_fma(xi, d[v], g[i][v]);
            }
        }
        UNROLL for (int i = 0; i < GROUP; i++)
            if (k + i < what->end) {
                UNROLL for (int v = 0; v < nv; v++) SMALL_MOVE((k + i) * ldw + v * LANES, g[i][v]);
            }
    }
    if (!what->bias) return;
    UNROLL for (int v = 0; v < nv; v++) {
        const real *dy = (const real *)op->dy.p + v * LANES;
        vf g = vf_set1(0);
        for (int64_t n = step->rows; n > 0; n--, dy += ldy) g += vf_load(dy);
        SMALL_MOVE(op->n_in * ldw + v * LANES, g);
    }
#undef SMALL_MOVE
}

static void small_move(const fm_op *op, const fm_step *step, const struct small_move *what)
{
#define MOVE(kind, momentum, plain)                                                                                    \
    (op->n_out <= LANES ? small_update_of(1, kind, momentum, plain, op, step, what)                                    \
                        : small_update_of(2, kind, momentum, plain, op, step, what))
    AS_OPTIMIZER(what->by, op, MOVE)
#undef MOVE
}

static void small_update(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const struct mover mover = mover_of(op, step, 0);
    const int bias = op->bias && end > op->n_in, differs = bias && bias_differs(op, &mover);
    small_move(op, step, &(struct small_move){&mover, begin, at_most(end, op->n_in), bias && !differs});
    if (!differs) return;
    const struct mover bias_mover = mover_of(op, step, 1);
    small_move(op, step, &(struct small_move){&bias_mover, 0, 0, 1});
}
