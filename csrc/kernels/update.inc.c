/* How parameters move: the optimizers, and what else works on parameters (norms, averages).
 *
 * Row n_in of w, g, s1 and s2 is the bias. Padding stays zero under every rule because its gradient is zero: 0 goes to 0
 * also through eps and the square roots. */

/* One op's rule for one step, as vectors. */
struct mover {
    int kind, nesterov, penalised, clipped;
    vf scale, clip, l1, l2, shrink, lr, momentum, alpha, beta1, beta2, eps, root2;
    vf rest_alpha, rest_beta1, rest_beta2; /* 1 - alpha, ...: subtracted in double, or 0.999 loses four digits */
};

/* b^n for whole n >= 0, by squaring: multiplications only, so the same bits everywhere. */
static double whole_power(double b, int64_t n)
{
    double p = 1;
    for (; n > 0; n >>= 1, b *= b)
        if (n & 1) p *= b;
    return p;
}

/* min(1, clip_norm / |all gradients|), from the partial sums added in order. */
static double norm_scale(const fm_op *op)
{
    if (op->rule.clip_norm <= 0) return 1;
    const double *part = op->part.p;
    double sum = 0;
    for (int64_t i = 0; i < op->part.ld; i++) sum += part[i];
    const double norm = sqrt(sum);
    return norm > op->rule.clip_norm ? op->rule.clip_norm / norm : 1;
}

static struct mover mover_of(const fm_op *op, const fm_step *step, int bias)
{
    const fm_rule *rule = &op->rule;
    const int decay = !bias || rule->decay_bias;
    const double scale = norm_scale(op), t = (double)(step->number + 1);
    double lr = step->lr * (bias ? rule->lr_bias : rule->lr_weight), root2 = 1;
    const double shrink = decay ? 1 - lr * rule->decay : 1;
    if (op->kind == FM_OPT_adam) {
        lr /= 1 - whole_power(rule->beta1, (int64_t)t);
        root2 = sqrt(1 - whole_power(rule->beta2, (int64_t)t));
    }
    return (struct mover){
        .kind = op->kind, .nesterov = rule->nesterov,
        .penalised = decay && (rule->l1 != 0 || rule->l2 != 0 || rule->decay != 0),
        .clipped = scale != 1 || rule->clip_value > 0,
        .scale = vf_set1((real)scale), .clip = vf_set1(rule->clip_value > 0 ? (real)rule->clip_value : (real)INFINITY),
        .l1 = vf_set1((real)rule->l1), .l2 = vf_set1((real)rule->l2), .shrink = vf_set1((real)shrink),
        .lr = vf_set1((real)-lr), .momentum = vf_set1((real)rule->momentum), .alpha = vf_set1((real)rule->alpha),
        .beta1 = vf_set1((real)rule->beta1), .beta2 = vf_set1((real)rule->beta2), .eps = vf_set1((real)rule->eps),
        .root2 = vf_set1((real)root2), .rest_alpha = vf_set1((real)(1 - rule->alpha)),
        .rest_beta1 = vf_set1((real)(1 - rule->beta1)), .rest_beta2 = vf_set1((real)(1 - rule->beta2)),
    };
}

static inline vf sign(vf a)
{
    const vf zero = vf_set1(0), one = vf_set1(1);
    return vf_keep(a > zero, one) - vf_keep(a < zero, one);
}

/* How far w moves, in units of -lr, given the gradient: s1 and s2 are read and written in place. */
static inline __attribute__((always_inline)) vf direction(const struct mover *m, int kind, int momentum, vf g, real *s1, real *s2)
{
    vf a, b;
    switch (kind) {
    case FM_OPT_sgd:
        if (!momentum) return g;
        vf_store(s1, a = vf_fma(m->momentum, vf_load(s1), g));
        return m->nesterov ? vf_fma(m->momentum, a, g) : a;
    case FM_OPT_rmsprop:
        vf_store(s1, a = vf_fma(m->alpha, vf_load(s1), m->rest_alpha * g * g));
        a = g / (vf_sqrt(a) + m->eps);
        if (momentum) vf_store(s2, a = vf_fma(m->momentum, vf_load(s2), a));
        return a;
    case FM_OPT_adagrad:
        vf_store(s1, a = vf_fma(g, g, vf_load(s1)));
        return g / (vf_sqrt(a) + m->eps);
    default: /* adam */
        vf_store(s1, a = vf_fma(m->beta1, vf_load(s1), m->rest_beta1 * g));
        vf_store(s2, b = vf_fma(m->beta2, vf_load(s2), m->rest_beta2 * g * g));
        return a / (vf_sqrt(b) / m->root2 + m->eps);
    }
}

/* The penalties, then the step, for `vectors` vectors that start at element `at` of w and of the states. */
static inline __attribute__((always_inline)) void move_as(const struct mover *m, int kind, int momentum, real *w, real *s1,
                                                          real *s2, const real *g, int64_t vectors)
{
    for (int64_t v = 0; v < vectors; v++, w += LANES, s1 += LANES, s2 += LANES, g += LANES) {
        vf wv = vf_load(w), gv = vf_load(g);
        if (m->clipped) gv = vf_min(m->clip, vf_max(-m->clip, gv * m->scale));
        if (m->penalised) {
            gv = vf_fma(m->l1, sign(wv), vf_fma(m->l2, wv, gv));
            wv *= m->shrink;
        }
        vf_store(w, vf_fma(m->lr, direction(m, kind, momentum, gv, s1, s2), wv));
    }
}

static void move(const struct mover *m, const fm_op *op, int64_t at, const real *g, int64_t vectors)
{
    real *w = (real *)op->w.p + at, *s1 = op->s1.p ? (real *)op->s1.p + at : w, *s2 = op->s2.p ? (real *)op->s2.p + at : w;
    switch (m->kind) {
    case FM_OPT_sgd:
        if (op->s1.p) move_as(m, FM_OPT_sgd, 1, w, s1, s2, g, vectors);
        else move_as(m, FM_OPT_sgd, 0, w, s1, s2, g, vectors);
        break;
    case FM_OPT_rmsprop:
        if (op->s2.p) move_as(m, FM_OPT_rmsprop, 1, w, s1, s2, g, vectors);
        else move_as(m, FM_OPT_rmsprop, 0, w, s1, s2, g, vectors);
        break;
    case FM_OPT_adagrad: move_as(m, FM_OPT_adagrad, 0, w, s1, s2, g, vectors); break;
    case FM_OPT_adam: move_as(m, FM_OPT_adam, 0, w, s1, s2, g, vectors); break;
    }
}

static void update(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    for (int bias = 0; bias <= op->bias; bias++) {
        const int64_t first = bias ? (begin > op->n_in ? begin : op->n_in) : begin, last = bias ? end : at_most(end, op->n_in);
        if (first >= last) continue;
        const struct mover mover = mover_of(op, step, bias);
        for (int64_t r = first; r < last; r++)
            move(&mover, op, r * op->w.ld, (const real *)op->g.p + r * op->g.ld, vectors_of(op->n_out));
    }
}

/* part[r] = sum of g[r, :]^2, added on a block of lanes and then across it. */
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
    const vf decay = vf_set1((real)op->param), rest = vf_set1((real)(1 - op->param));
    for (int64_t r = begin; r < end; r++) {
        const real *w = (const real *)op->w.p + r * op->w.ld;
        real *a = (real *)op->aux.p + r * op->aux.ld;
        for (int64_t v = 0; v < vectors_of(op->n_out); v++)
            vf_store(a + v * LANES, vf_fma(decay, vf_load(a + v * LANES), rest * vf_load(w + v * LANES)));
    }
}

/* Splits the columns, not the rows: a unit's incoming weights are a column. span is the number of column vectors of a
 * block, so that workers own whole blocks. */
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
