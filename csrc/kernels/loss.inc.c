/* Losses of a row, and their gradients with respect to its outputs.
 *
 * y and dy may be the same. Columns from n_out on enter no sum, and dy is 0 there. Columns are summed in the lanes of a block,
 * and then across it, so that the bits are the same on every target. */

/* t[r, c ..], or a label as one-hot row; with a single output, the label itself is the target. */
static inline vf target(const fm_op *op, int64_t r, int64_t c)
{
    if (!op->labels) return vf_load((const real *)op->t.p + r * op->t.ld + c);
    const int32_t label = ((const int32_t *)op->t.p)[r];
    if (op->n_out == 1) return vf_set1((real)label);
    return vf_keep(lane_numbers() == (ireal)(label - c), vf_set1(1));
}

/* The weight of the row's loss in the loss of the batch. */
static inline double row_share(const fm_step *step, int64_t r)
{
    return (step->weight ? step->weight[fm_data_row(step, r)] : 1) * step->inverse_weight;
}

/* ---- one element: the losses that are a mean over the outputs ----------------------------------------------- */

/* t p softplus(-y) + (1 - t) softplus(y). Both from one e^-|y|, without differences of large terms. */
static inline vf sigmoid_cross_entropy(vf y, vf t, vf p, vf *slope)
{
    const vf zero = vf_set1(0), one = vf_set1(1), e = vf_exp(minus_abs(y)), log1p_e = vf_log1p(e);
    const vf upper = one / (one + e), lower = unless_lost(minus_abs(y), e / (one + e)), on = t * p, off = one - t;
    const vi positive = y >= zero;
    *slope = off * vf_select(positive, upper, lower) - on * vf_select(positive, lower, upper);
    return on * (vf_max(zero, -y) + log1p_e) + off * (vf_max(zero, y) + log1p_e);
}

/* The loss of one output, and its derivative with respect to y. a: scale or delta; q: quantile or positive weight. */
INLINE vf element(int kind, vf y, vf t, vf a, vf q, vf *slope)
{
    const vf e = y - t, size = vf_abs(e), zero = vf_set1(0), one = vf_set1(1), half = vf_set1((real)0.5);
    switch (kind) {
    case FM_LOSS_sigmoid_cross_entropy: return sigmoid_cross_entropy(y, t, q, slope);
    case FM_LOSS_squared_error: *slope = (a + a) * e; return a * e * e;
    case FM_LOSS_absolute_error: *slope = vf_select(size > zero, with_sign_of(e, one), e); return size;
    case FM_LOSS_huber:
        *slope = vf_min(a, vf_max(-a, e));
        return vf_select(size <= a, half * e * e, a * (size - half * a));
    case FM_LOSS_quantile: /* e = y - t has the opposite sign of the formula's; slope 0 at 0 */
        *slope = vf_select(e < zero, -q, vf_select(e > zero, one - q, e));
        return vf_max(-q * e, (one - q) * e);
    default: /* poisson */ *slope = vf_exp(y) - t; return vf_exp(y) - t * y;
    }
}

INLINE void mean_over_outputs(int kind, const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const int64_t n = op->n_out;
    const vf a = vf_set1((real)op->param);
    const real *aux = op->aux.p;
    for (int64_t r = begin; r < end; r++) {
        const real *y = (const real *)op->y.p + r * op->y.ld;
        real *dy = op->dy.p ? (real *)op->dy.p + r * op->dy.ld : 0;
        const vf share = vf_set1((real)(row_share(step, r) / (double)n));
        vf sum[NB] = {{0}};
        EACH_COLUMN {
            vf slope;
            if (c >= n) { /* the rest of the block */
                if (dy) vf_store(dy + c, vf_set1(0));
                continue;
            }
            const vf q = aux ? vf_load(aux + c) : vf_set1(1);
            const vf value = element(kind, vf_load(y + c), target(op, r, c), a, q, &slope);
            sum[i] += vf_keep(inside(c, n), value);
            if (dy) vf_store(dy + c, vf_keep(inside(c, n), share * slope));
        }
        op->row_loss[r] = (double)vf_sum_block(sum) / (double)n;
    }
}

/* Not inlined: else the loop, mostly of one vector, would first load the constants of all kinds. */
NOINLINE vf one_vector(int kind, vf y, vf t, vf a, vf q, vf *slope)
{
    return element(kind, y, t, a, q, slope);
}

/* A row's target for a single output. */
static inline real single_target(const fm_op *op, int64_t r)
{
    return op->labels ? (real)((const int32_t *)op->t.p)[r] : ((const real *)op->t.p)[r * op->t.ld];
}

/* The same for a single output, on a vector of rows. Not inlined, to keep its stack frame out of `loss`. */
NOINLINE void single_loss(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const vf a = vf_set1((real)op->param), q = vf_set1(op->aux.p ? *(const real *)op->aux.p : 1);
    real values[LANES] __attribute__((aligned(64))), slopes[LANES] __attribute__((aligned(64)));
    for (int64_t r = begin; r < end; r += LANES) {
        const int64_t rows = at_most(end - r, LANES);
        const real *from = (const real *)op->y.p + r * op->y.ld;
        vf y = vf_set1(0), t = y, share = vf_set1((real)step->inverse_weight), slope;
        vi place = lane_numbers();
        for (int64_t l = 0; l < rows; l++, from += op->y.ld, place -= 1) { /* lane l is where place is 0 */
            NOT_VECTORISED;
            y = vf_select(place == 0, vf_set1(*from), y), t = vf_select(place == 0, vf_set1(single_target(op, r + l)), t);
            if (step->weight) share = vf_select(place == 0, vf_set1((real)row_share(step, r + l)), share);
        }
        vf_store(values, one_vector(op->kind, y, t, a, q, &slope));
        vf_store(slopes, slope * share);
        real *dy = (real *)op->dy.p + (op->dy.p ? r * op->dy.ld : 0);
        for (int64_t l = 0; l < rows; l++) {
            NOT_VECTORISED;
            op->row_loss[r + l] = (double)values[l];
            if (!op->dy.p) continue;
            vf_store(dy, (vf){slopes[l]});
            for (int c = LANES; c < BLOCK; c += LANES) vf_store(dy + c, vf_set1(0));
            dy += op->dy.ld;
        }
    }
}

/* ---- softmax: every output depends on the whole row ---------------------------------------------------------- */

/* An output's term of the sum; 0 if it is smaller than the sum's rounding error. */
static inline vf exp_or_zero(vf x) { return unless_lost(x, exp_from(vf_set1(EXP_LEAST), x)); }

/* sum_c t_c (log(sum e^y) - y_c) = (sum t) log(sum e^(y - top)) + sum_c t_c (top - y_c): two sums without cancellation,
 * which one pass computes with the exponentials; a second turns those into the gradient. */
static void wide_softmax_cross_entropy(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const int64_t n = op->n_out;
    const vf zero = vf_set1(0), kept = vf_set1((real)(1 - op->param)), spread = vf_set1((real)(op->param / (double)n));
    for (int64_t r = begin; r < end; r++) {
        const real *y = (const real *)op->y.p + r * op->y.ld;
        real *dy = op->dy.p ? (real *)op->dy.p + r * op->dy.ld : 0;
        const vf top = vf_set1(row_max(y, n)), share = vf_set1((real)row_share(step, r));
        vf sum_e[NB] = {{0}}, sum_t[NB] = {{0}}, sum_below[NB] = {{0}};
        EACH_COLUMN {
            if (c >= n) break; /* the rest of the block */
            const vi in = inside(c, n);
            const vf below = top - vf_load(y + c), e = vf_keep(in, exp_or_zero(-below));
            const vf t = vf_keep(in, vf_fma(kept, target(op, r, c), spread));
            sum_e[i] += e, sum_t[i] += t;
            sum_below[i] += vf_keep(t != zero, t * below); /* 0 log 0 = 0 */
            if (dy) vf_store(dy + c, e);
        }
        const real total = vf_sum_block(sum_e), weight = vf_sum_block(sum_t);
        op->row_loss[r] = (double)weight * vf_log(vf_set1(total))[0] + vf_sum_block(sum_below);
        if (!dy) continue;
        const vf totals = vf_set1(total), weights = vf_set1(weight);
        EACH_COLUMN {
            const vf t = vf_fma(kept, target(op, r, c), spread), p = vf_load(dy + c) / totals;
            vf_store(dy + c, vf_keep(inside(c, n), share * vf_fma(weights, p, -t)));
        }
    }
}

/* ---- the same for rows within a block, LANES of them at a time --------------------------------------------------- */

/* t[column][row], smoothed. */
INLINE void target_columns(const fm_op *op, int64_t r, int64_t rows, int width, square t)
{
    const int64_t n = op->n_out;
    const vf kept = vf_set1((real)(1 - op->param)), spread = vf_set1((real)(op->param / (double)n));
    vi labels = {0};
    if (!op->labels) columns_of((const real *)op->t.p + r * op->t.ld, op->t.ld, rows, width, t);
    else if (rows == LANES) /* one load */
        for (int64_t l = 0; l < LANES; l++) labels[l] = ((const int32_t *)op->t.p)[r + l];
    else
        for (int64_t l = 0; l < rows; l++) labels[l] = ((const int32_t *)op->t.p)[r + l];
    for (int c = 0; c < n; c++) {
        const vf target = op->labels ? vf_keep(labels == (ireal)c, vf_set1(1)) : vf_load(t[c]);
        vf_store(t[c], vf_fma(kept, target, spread));
    }
}

/* width: a power of two >= n; a constant. The other columns of the block would only add zeros. */
INLINE void narrow_softmax_as(const fm_op *op, const fm_step *step, int64_t begin, int64_t end, int width)
{
    const int64_t n = op->n_out;
    const vf zero = vf_set1(0);
    for (int64_t r = begin, rows; r < end; r += rows) {
        square x, t;
        vf sum_e[BLOCK], sum_t[BLOCK], sum_below[BLOCK], share = vf_set1((real)step->inverse_weight);
        UNROLL for (int c = 0; c < width; c++) sum_e[c] = sum_t[c] = sum_below[c] = zero;
        rows = at_most(end - r, LANES);
        columns_of((const real *)op->y.p + r * op->y.ld, op->y.ld, rows, width, x);
        target_columns(op, r, rows, width, t);
        const vf top = max_of_columns(x, n, width);
        for (int c = 0; c < n; c++) {
            const vf below = top - vf_load(x[c]), target = vf_load(t[c]);
            sum_e[c] = zero + exp_or_zero(-below), sum_t[c] = zero + target;
            sum_below[c] = zero + vf_keep(target != zero, target * below); /* 0 log 0 = 0 */
            vf_store(x[c], sum_e[c]);
        }
        const vf total = sum_of_columns(sum_e, width), weight = sum_of_columns(sum_t, width);
        const vf below = sum_of_columns(sum_below, width);
        const vf log_total = vf_log(total);
        for (int64_t l = 0; l < rows; l++) op->row_loss[r + l] = (double)weight[l] * log_total[l] + below[l];
        for (int64_t l = 0; step->weight && l < rows; l++) share[l] = (real)row_share(step, r + l);
        if (!op->dy.p) continue;
        for (int c = 0; c < larger_of(width, LANES); c++)
            vf_store(x[c], c < n ? share * vf_fma(weight, vf_load(x[c]) / total, -vf_load(t[c])) : zero);
        rows_of(x, width, (real *)op->dy.p + r * op->dy.ld, op->dy.ld, rows);
    }
}

NOINLINE void softmax_of_four(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    narrow_softmax_as(op, step, begin, end, 4);
}

NOINLINE void softmax_of_a_block(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    narrow_softmax_as(op, step, begin, end, BLOCK);
}

static void softmax_cross_entropy(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    if (op->n_out > 1 && op->n_out <= 4) softmax_of_four(op, step, begin, end);
    else if (op->n_out > 1 && op->n_out <= BLOCK) softmax_of_a_block(op, step, begin, end);
    else wide_softmax_cross_entropy(op, step, begin, end);
}

static void loss(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
#define MEAN_OVER_OUTPUTS(kind)                                                                                                \
    case FM_LOSS_##kind: mean_over_outputs(FM_LOSS_##kind, op, step, begin, end); break;
    if (op->kind == FM_LOSS_softmax_cross_entropy) softmax_cross_entropy(op, step, begin, end);
    else if (op->n_out == 1) single_loss(op, step, begin, end);
    else
        switch (op->kind) {
            MEAN_OVER_OUTPUTS(sigmoid_cross_entropy)
            MEAN_OVER_OUTPUTS(squared_error)
            MEAN_OVER_OUTPUTS(absolute_error)
            MEAN_OVER_OUTPUTS(huber)
            MEAN_OVER_OUTPUTS(quantile)
            MEAN_OVER_OUTPUTS(poisson)
        }
#undef MEAN_OVER_OUTPUTS
}
