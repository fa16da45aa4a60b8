/* Ops on whole parameters: update from a complete gradient, norms, averages. */

/* If a gradient stays zero, as that of a dead unit, the optimizer's state decays until it is subnormal. It would remain so,
 * since 0.9 times the smallest number rounds back to it; and many processors take a hundred times as long for subnormal
 * numbers. So every few steps these are set to zero; Adam's mean square only after its mean, which it divides. */
#define FADED_STEPS 16

static inline int is_time_to_clear(const fm_step *step) { return (step->number + 1) % FADED_STEPS == 0; }

NOINLINE void clear_faded(const fm_op *op, int64_t begin, int64_t end)
{
    const vf zero = vf_set1(0);
    for (int64_t r = begin; op->s1.p && r < end; r++)
        for (int64_t v = 0; v < vectors_of(op->n_out); v++) {
            real *const s1 = (real *)op->s1.p + r * op->s1.ld + v * LANES;
            const vf first = unless_subnormal(vf_load(s1));
            vf_store(s1, first);
            if (!op->s2.p) continue;
            real *const s2 = (real *)op->s2.p + r * op->s2.ld + v * LANES;
            const vf second = vf_load(s2), cleared = unless_subnormal(second);
            vf_store(s2, op->kind == FM_OPT_adam ? vf_select(vf_abs(first) > zero, second, cleared) : cleared);
        }
}

static void update(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    for (int bias = 0; bias <= op->bias; bias++) {
        const int64_t first = bias ? (begin > op->n_in ? begin : op->n_in) : begin, last = bias ? end : at_most(end, op->n_in);
        if (first >= last) continue;
        struct updater updater = updater_of(op, step, bias);
        updater.stream = !bias && is_streamed(op, step, is_shared(op, begin, end));
        const real *g = (const real *)op->g.p + first * op->g.ld;
        update_block(&updater, op, first * op->w.ld, g, op->g.ld, last - first, vectors_of(op->n_out));
    }
    if (step->far_apart) vf_streamed();
    if (is_time_to_clear(step)) clear_faded(op, begin, end);
}

/* part[r] = sum of g[r, :]^2, in double, added in order. */
static void square_sum(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    (void)step;
    for (int64_t r = begin; r < end; r++) {
        const real *g = (const real *)op->g.p + r * op->g.ld;
        double sum = 0;
        for (int64_t c = 0; c < op->n_out; c++) sum += (double)g[c] * g[c];
        ((double *)op->part.p)[r] = sum;
    }
}

static void average(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    (void)step;
    const vf rest = vf_set1((real)(1 - op->param)); /* on the difference: this and the decay, both rounded, would not add up to 1 */
    for (int64_t r = begin; r < end; r++) {
        const real *w = (const real *)op->w.p + r * op->w.ld;
        real *a = (real *)op->aux.p + r * op->aux.ld;
        for (int64_t v = 0; v < vectors_of(op->n_out); v++, w += LANES, a += LANES)
            vf_store(a, vf_fma(rest, vf_load(w) - vf_load(a), vf_load(a)));
    }
}

/* Split by columns, not rows: a unit's incoming weights are a column. span counts blocks of columns, so that workers own whole
 * blocks. */
static void max_norm(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    (void)step;
    const vf limit = vf_set1((real)op->param), one = vf_set1(1);
    for (int64_t c = begin * BLOCK; c < at_most(end * BLOCK, vectors_of(op->n_out) * LANES); c += LANES) {
        real *w = (real *)op->w.p + c;
        vf sum = vf_set1(0);
        for (int64_t r = 0; r < op->n_in; r++) sum = vf_fma(vf_load(w + r * op->w.ld), vf_load(w + r * op->w.ld), sum);
        const vf norm = vf_sqrt(sum), factor = vf_select(norm > limit, limit / norm, one);
        for (int64_t r = 0; r < op->n_in; r++) vf_store(w + r * op->w.ld, vf_load(w + r * op->w.ld) * factor);
    }
}
