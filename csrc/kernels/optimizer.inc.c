/* The optimizers' updates of parameters.
 *
 * Row n_in of w, g, s1 and s2 is the bias. Padding stays zero under every rule because its gradient is zero, and so is
 * 0 / (sqrt(0) + eps). */

/* An op's rule in one step. */
struct updater {
    int kind, nesterov, plain; /* plain: neither clipping nor penalties */
    int stream;                /* w is stored non-temporally */
    real scale, clip, l1, l2, shrink, lr, momentum, alpha, beta1, beta2, eps;
    real rest_alpha, rest_beta1, rest_beta2; /* 1 - alpha, ...: subtracted in double, or 1 - 0.999 loses digits */
};

/* min(1, clip_norm / |all gradients|), from the partial sums, added in order. */
static double norm_scale(const fm_op *op)
{
    if (op->rule.clip_norm <= 0) return 1;
    const double *part = op->part.p;
    double sum = 0;
    for (int64_t i = 0; i < op->part.ld; i++) sum += part[i];
    const double norm = sqrt(sum);
    return norm > op->rule.clip_norm ? op->rule.clip_norm / norm : 1;
}

/* The rule for the weights, or for the bias, in the network's type. With constant `kind` and `plain` the compiler computes only
 * what is used: tiny networks do that for every few vectors. scale: factor on the gradient. */
INLINE struct updater updater_as(int kind, int plain, const fm_op *op, const fm_step *step, int bias, double scale)
{
    const fm_rule *rule = &op->rule;
    const int decays = !plain && (!bias || rule->decay_bias);
    const double lr = step->lr * (bias ? rule->lr_bias : rule->lr_weight);
    return (struct updater){
        .kind = kind, .nesterov = rule->nesterov, .plain = plain,
        .scale = (real)scale, .clip = rule->clip_value > 0 ? (real)rule->clip_value : (real)INFINITY,
        .l1 = decays ? (real)rule->l1 : 0, .l2 = decays ? (real)rule->l2 : 0, .shrink = decays ? (real)(1 - lr * rule->decay) : 1,
        /* adam's fraction is multiplied by root2 above and below: saves a division per element */
        .lr = (real)-(kind == FM_OPT_adam ? lr * step->root2 / step->unbias1 : lr), .momentum = (real)rule->momentum,
        .alpha = (real)rule->alpha, .rest_alpha = (real)(1 - rule->alpha),
        .beta1 = (real)rule->beta1, .rest_beta1 = (real)(1 - rule->beta1),
        .beta2 = (real)rule->beta2, .rest_beta2 = (real)(1 - rule->beta2),
        .eps = (real)(kind == FM_OPT_adam ? rule->eps * step->root2 : rule->eps),
    };
}

static struct updater updater_of(const fm_op *op, const fm_step *step, int bias)
{
    const fm_rule *rule = &op->rule;
    const int decays = (!bias || rule->decay_bias) && (rule->l1 != 0 || rule->l2 != 0 || rule->decay != 0);
    const double scale = norm_scale(op);
    return updater_as(op->kind, !decays && rule->clip_value <= 0 && scale == 1, op, step, bias, scale);
}

/* Whether the bias has another rule than the weights. */
static inline int bias_differs(const fm_op *op)
{
    return op->rule.lr_bias != op->rule.lr_weight || (!op->rule.plain && !op->rule.decay_bias);
}

static inline vf sign(vf a)
{
    const vf zero = vf_set1(0), one = vf_set1(1);
    return vf_keep(a > zero, one) - vf_keep(a < zero, one);
}

/* The step of w in units of -lr, given the gradient; updates s1 and s2 in place. */
INLINE vf direction(const struct updater *m, int kind, int momentum, vf g, real *s1, real *s2)
{
    vf a, b;
    switch (kind) {
    case FM_OPT_sgd:
        if (!momentum) return g;
        vf_store(s1, a = vf_fma(vf_set1(m->momentum), vf_load(s1), g));
        return m->nesterov ? vf_fma(vf_set1(m->momentum), a, g) : a;
    case FM_OPT_rmsprop:
        vf_store(s1, a = vf_fma(vf_set1(m->alpha), vf_load(s1), vf_set1(m->rest_alpha) * g * g));
        a = g / (vf_sqrt(a) + vf_set1(m->eps));
        if (momentum) vf_store(s2, a = vf_fma(vf_set1(m->momentum), vf_load(s2), a));
        return a;
    case FM_OPT_adagrad:
        vf_store(s1, a = vf_fma(g, g, vf_load(s1)));
        return g / (vf_sqrt(a) + vf_set1(m->eps));
    default: /* adam */
        vf_store(s1, a = vf_fma(vf_set1(m->beta1), vf_load(s1), vf_set1(m->rest_beta1) * g));
        vf_store(s2, b = vf_fma(vf_set1(m->beta2), vf_load(s2), vf_set1(m->rest_beta2) * g * g));
        return a / (vf_sqrt(b) + vf_set1(m->eps));
    }
}

/* w after the penalties and the step, given its gradient. */
INLINE vf moved(const struct updater *m, int kind, int momentum, int plain, vf w, vf g, real *s1, real *s2)
{
    if (!plain) {
        g = vf_min(vf_set1(m->clip), vf_max(-vf_set1(m->clip), g * vf_set1(m->scale)));
        g = vf_fma(vf_set1(m->l1), sign(w), vf_fma(vf_set1(m->l2), w, g));
        w *= vf_set1(m->shrink);
    }
    return vf_fma(vf_set1(m->lr), direction(m, kind, momentum, g, s1, s2), w);
}

/* Calls as(kind, momentum, plain), all three constants. */
#define AS_OPTIMIZER(op, plain, as)                                                                                    \
    switch ((op)->kind) {                                                                                              \
    case FM_OPT_sgd: (op)->s1.p ? AS_PLAIN(plain, as, FM_OPT_sgd, 1) : AS_PLAIN(plain, as, FM_OPT_sgd, 0); break;      \
    case FM_OPT_rmsprop:                                                                                               \
        (op)->s2.p ? AS_PLAIN(plain, as, FM_OPT_rmsprop, 1) : AS_PLAIN(plain, as, FM_OPT_rmsprop, 0);                  \
        break;                                                                                                         \
    case FM_OPT_adagrad: AS_PLAIN(plain, as, FM_OPT_adagrad, 0); break;                                                \
    case FM_OPT_adam: AS_PLAIN(plain, as, FM_OPT_adam, 0); break;                                                      \
    }
#define AS_PLAIN(plain, as, kind, momentum) ((plain) ? as(kind, momentum, 1) : as(kind, momentum, 0))

/* A block of rows (ldw apart in w and the states, ldg in g) and vectors. */
INLINE void update_block_as(const struct updater *given, int kind, int momentum, int plain, real *w, real *s1, real *s2,
                            int64_t ldw, const real *g, int64_t ldg, int64_t rows, int64_t vectors)
{
    const struct updater m = *given; /* a copy that no store can reach: it stays in registers */
    for (int64_t r = 0; r < rows; r++, w += ldw, s1 += ldw, s2 += ldw, g += ldg)
        for (int64_t v = 0; v < vectors * LANES; v += LANES) {
            const vf to = moved(&m, kind, momentum, plain, vf_load(w + v), vf_load(g + v), s1 + v, s2 + v);
            m.stream ? vf_stream(w + v, to) : vf_store(w + v, to);
        }
}

/* Updates a block of parameters that starts at element `at` of w and of the states. */
static void update_block(const struct updater *m, const fm_op *op, int64_t at, const real *g, int64_t ldg, int64_t rows,
                         int64_t vectors)
{
    const int64_t ldw = op->w.ld;
    real *w = (real *)op->w.p + at, *s1 = op->s1.p ? (real *)op->s1.p + at : w, *s2 = op->s2.p ? (real *)op->s2.p + at : w;
    if (ldw == vectors * LANES && ldg == ldw) vectors *= rows, rows = 1; /* contiguous rows */
#define UPDATE_BLOCK(kind, momentum, plain) update_block_as(m, kind, momentum, plain, w, s1, s2, ldw, g, ldg, rows, vectors)
    AS_OPTIMIZER(op, m->plain, UPDATE_BLOCK)
#undef UPDATE_BLOCK
}
