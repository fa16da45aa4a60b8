/* Activations and their derivatives, one line each per kind, on panels of whole vectors; softmax on whole rows.
 *
 * Derivatives are computed from the stored output where that is possible (not for gelu, gelu_tanh, silu and mish). NaN stays
 * NaN, and an infinite z gives the limit, not NaN: the arguments of products like z sigmoid(z) are clamped where the product
 * no longer changes. */

#define GELU_SLOPE 1.5957691216057308 /* 2 sqrt(2 / pi) */
#define GELU_CUBE (1.5957691216057308 * 0.044715)
#define GELU_FARTHEST 24 /* beyond, the gate is 0 or 1 in both types */
#define SELU_ALPHA 1.6732632423543772
#define SELU_SCALE 1.0507009873554805

static inline vf at_least(real limit, vf x) { return vf_max(vf_set1(limit), x); }
static inline vf within(real limit, vf x) { return vf_min(vf_set1(limit), vf_max(vf_set1(-limit), x)); }

static inline vf elu(vf z, vf a) { return vf_select(z > vf_set1(0), z, a * vf_expm1(z)); }

static inline vf gelu(vf z)
{
    vf density;
    return at_least(-NORMAL_FARTHEST, z) * vf_normal(z, &density);
}

static inline vf gelu_derivative(vf z)
{
    vf density;
    const vf phi = vf_normal(z, &density);
    return vf_fma(within(NORMAL_FARTHEST, z), density, phi);
}

/* (1 + tanh u) / 2 = sigmoid(2u): as a sigmoid it keeps the digits of the lower tail. */
static inline vf gelu_tanh(vf z)
{
    const vf bounded = at_least(-GELU_FARTHEST, z);
    const vf v = bounded * vf_fma(bounded * bounded, vf_set1((real)GELU_CUBE), vf_set1((real)GELU_SLOPE));
    return bounded * vf_sigmoid(v);
}

static inline vf silu(vf z) { return at_least(EXP_LOWEST, z) * vf_sigmoid(z); }

/* Derivative of z sigmoid(v(z)), given v and z v': sigmoid(v) + z v' sigmoid(v) sigmoid(-v). */
static inline vf gate_derivative(vf v, vf zv)
{
    const vf e = vf_exp(minus_abs(v)), one = vf_set1(1), upper = one / (one + e), lower = e / (one + e);
    return vf_fma(zv, upper * lower, vf_select(v >= vf_set1(0), upper, lower));
}

static inline vf gelu_tanh_derivative(vf z)
{
    const vf x = within(GELU_FARTHEST, z), x2 = x * x, slope = vf_set1((real)GELU_SLOPE);
    const vf v = x * vf_fma(x2, vf_set1((real)GELU_CUBE), slope);
    return gate_derivative(v, x * vf_fma(x2, vf_set1((real)(3 * GELU_CUBE)), slope));
}

static inline vf silu_derivative(vf z)
{
    const vf x = within(-EXP_LOWEST, z);
    return gate_derivative(x, x);
}

/* tanh(log(1 + w)) = n / (n + 2) for w = e^z and n = w (w + 2); it is 1 before w^4 can overflow. */
static inline vf mish_n(vf z, vf *w)
{
    *w = vf_exp(vf_min(vf_set1(-EXPM1_LOWEST), z));
    return *w * (*w + vf_set1(2));
}

static inline vf mish(vf z)
{
    vf w;
    const vf n = mish_n(z, &w);
    return at_least(EXP_LOWEST, z) * (n / (n + vf_set1(2)));
}

/* (n (n + 2) + 4 z w (w + 1)) / (n + 2)^2 */
static inline vf mish_derivative(vf z)
{
    vf w;
    const vf x = vf_min(vf_set1(-EXPM1_LOWEST), at_least(EXP_LOWEST, z)), n = mish_n(z, &w), n2 = n + vf_set1(2);
    return vf_fma(n, n2, vf_set1(4) * x * (w * (w + vf_set1(1)))) / (n2 * n2);
}

static inline vf relu(vf z) { return vf_max(vf_set1(0), z); } /* in this order, NaN stays NaN */

/* d act'(z), from y = act(z). */
static inline vf sigmoid_back(vf d, vf y) { return d * (y * (vf_set1(1) - y)); }
static inline vf tanh_back(vf d, vf y) { return d * vf_fma(-y, y, vf_set1(1)); }
static inline vf relu_back(vf d, vf y) { return vf_keep(y > vf_set1(0), d); }

/* ---- panels ------------------------------------------------------------------------------------------------- */

#define EACH_VECTOR                                                                                                    \
    for (int64_t r = 0; r < rows; r++)                                                                                 \
        for (int64_t c = 0; c < vectors * LANES; c += LANES)

#define FORWARD(name, value)                                                                                           \
    case FM_ACT_##name:                                                                                                \
        EACH_VECTOR {                                                                                                  \
            const vf z = vf_load(y_panel + r * ldy + c);                                                               \
            vf_store(y_panel + r * ldy + c, value);                                                                    \
        }                                                                                                              \
        break;

/* In place: y_panel holds z, then act(z). If z_panel is not null, z is stored there. */
static void activation_forward(int kind, real param, real *y_panel, int64_t ldy, real *z_panel, int64_t ldz,
                               int64_t rows, int64_t vectors)
{
    const vf a = vf_set1(param), zero = vf_set1(0), one = vf_set1(1);
    if (z_panel) EACH_VECTOR vf_store(z_panel + r * ldz + c, vf_load(y_panel + r * ldy + c));
    switch (kind) {
        FORWARD(sigmoid, vf_sigmoid(z))
        FORWARD(tanh, vf_tanh(z))
        FORWARD(relu, relu(z))
        FORWARD(leaky_relu, vf_select(z > zero, z, a * z))
        FORWARD(elu, elu(z, a))
        FORWARD(selu, vf_set1((real)SELU_SCALE) * elu(z, vf_set1((real)SELU_ALPHA)))
        FORWARD(softplus, vf_softplus(z))
        FORWARD(hard_tanh, vf_min(one, vf_max(-one, z)))
        FORWARD(exp, vf_exp(z))
        FORWARD(gelu, gelu(z))
        FORWARD(gelu_tanh, gelu_tanh(z))
        FORWARD(silu, silu(z))
        FORWARD(mish, mish(z))
    default: break; /* identity */
    }
}

#define BACKWARD(name, gradient)                                                                                       \
    case FM_ACT_##name:                                                                                                \
        EACH_VECTOR {                                                                                                  \
            const vf y = vf_load(y_panel + r * ldy + c), z = vf_load(z_panel + r * ldz + c);                           \
            const vf d = vf_load(dx_panel + r * lddx + c);                                                             \
            (void)y, (void)z; /* a kind needs one of them; the other load is optimised away */                             \
            vf_store(dx_panel + r * lddx + c, gradient);                                                               \
        }                                                                                                              \
        break;

/* dx *= act', from y or z. */
static void activation_backward(int kind, real param, const real *y_panel, int64_t ldy, const real *z_panel,
                                int64_t ldz, real *dx_panel, int64_t lddx, int64_t rows, int64_t vectors)
{
    const vf a = vf_set1(param), zero = vf_set1(0), one = vf_set1(1);
    switch (kind) {
        BACKWARD(sigmoid, sigmoid_back(d, y))
        BACKWARD(tanh, tanh_back(d, y))
        BACKWARD(relu, relu_back(d, y))
        BACKWARD(leaky_relu, vf_select(y > zero, d, d * a))
        BACKWARD(elu, vf_select(y > zero, d, d * (y + a)))
        BACKWARD(selu, d * vf_select(y > zero, vf_set1((real)SELU_SCALE), y + vf_set1((real)(SELU_SCALE * SELU_ALPHA))))
        BACKWARD(softplus, d * -vf_expm1(-y))
        BACKWARD(hard_tanh, vf_keep(vf_abs(y) < one, d))
        BACKWARD(exp, d * y)
        BACKWARD(gelu, d * gelu_derivative(z))
        BACKWARD(gelu_tanh, d * gelu_tanh_derivative(z))
        BACKWARD(silu, d * silu_derivative(z))
        BACKWARD(mish, d * mish_derivative(z))
    default: break; /* identity */
    }
}

/* Row r, column j of an op's dx. */
static real *dx_at(const fm_op *op, int64_t r, int64_t j) { return (real *)op->dx.p + r * op->dx.ld + j; }

/* dx *= act', for a block of rows and vectors at (r, j), from the output of the layer below. */
static void through_activation(const fm_op *op, int64_t r, int64_t j, int64_t rows, int64_t vectors, real *dx, int64_t ld)
{
    const real *y = (const real *)op->y.p + r * op->y.ld + j, *z = op->z.p ? (const real *)op->z.p + r * op->z.ld + j : y;
    activation_backward(op->kind, (real)op->param, y, op->y.ld, z, op->z.ld, dx, ld, rows, vectors);
}

/* ---- the ops, on rows --------------------------------------------------------------------------------------- */

/* The vectors of a row of n columns, block by block to its padded end; i is the vector's index in its block, for sums over
 * lanes. Columns from n on must be masked: they enter no sum, and are stored as 0. */
#define EACH_COLUMN                                                                                                    \
    for (int64_t block = 0; block < n; block += BLOCK)                                                                 \
        for (int64_t i = 0, c = block; i < NB; i++, c += LANES)

static inline vi inside(int64_t c, int64_t n) { return lane_numbers() < (ireal)(n - c); }

static real row_max(const real *x, int64_t n)
{
    const vf lowest = vf_set1((real)-INFINITY);
    vf top[NB];
    for (int i = 0; i < NB; i++) top[i] = lowest;
    EACH_COLUMN top[i] = vf_max(top[i], vf_select(inside(c, n), vf_load(x + c), lowest));
    return vf_max_block(top);
}

static void softmax(const real *x, real *y, int64_t n)
{
    const vf top = vf_set1(row_max(x, n));
    vf sum[NB] = {{0}};
    EACH_COLUMN {
        const vf e = vf_keep(inside(c, n), vf_exp(vf_load(x + c) - top));
        vf_store(y + c, e);
        sum[i] += e;
    }
    const vf total = vf_set1(vf_sum_block(sum));
    EACH_COLUMN vf_store(y + c, vf_load(y + c) / total);
}

/* width: a power of two >= n; a constant. The other columns of the block would only add zeros. */
INLINE void softmax_of_columns(const fm_op *op, int64_t begin, int64_t end, int width)
{
    const int64_t n = op->n_out;
    const vf zero = vf_set1(0);
    for (int64_t r = begin, rows; r < end; r += rows) {
        square x;
        vf e[BLOCK];
        rows = at_most(end - r, LANES);
        columns_of((const real *)op->x.p + r * op->x.ld, op->x.ld, rows, width, x);
        const vf top = max_of_columns(x, n, width);
        UNROLL for (int c = 0; c < width; c++) e[c] = zero;
        for (int c = 0; c < n; c++) vf_store(x[c], e[c] = vf_exp(vf_load(x[c]) - top));
        const vf total = sum_of_columns(e, width);
        for (int c = 0; c < larger_of(width, LANES); c++) vf_store(x[c], c < n ? vf_load(x[c]) / total : zero);
        rows_of(x, width, (real *)op->y.p + r * op->y.ld, op->y.ld, rows);
    }
}

NOINLINE void softmax_of_up_to_four(const fm_op *op, int64_t begin, int64_t end) { softmax_of_columns(op, begin, end, 4); }
NOINLINE void softmax_of_up_to_a_block(const fm_op *op, int64_t begin, int64_t end) { softmax_of_columns(op, begin, end, BLOCK); }

static void softmax_back(const real *y, const real *dy, real *dx, int64_t n)
{
    vf sum[NB] = {{0}};
    EACH_COLUMN sum[i] += vf_keep(inside(c, n), vf_load(dy + c) * vf_load(y + c));
    const vf dot = vf_set1(vf_sum_block(sum));
    EACH_COLUMN vf_store(dx + c, vf_keep(inside(c, n), vf_load(y + c) * (vf_load(dy + c) - dot)));
}

#define SOME_ROWS 3 /* least number for which transposing pays */

/* x and y may be the same, and so may dy and dx. */
static void activate(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    (void)step;
    const int64_t n = op->n_out;
    if (op->kind == FM_ACT_softmax && n > 1 && n <= BLOCK && end - begin >= SOME_ROWS) {
        (n <= 4 ? softmax_of_up_to_four : softmax_of_up_to_a_block)(op, begin, end);
        return;
    }
    for (int64_t r = begin; r < end; r++) {
        const real *x = (const real *)op->x.p + r * op->x.ld;
        real *y = (real *)op->y.p + r * op->y.ld;
        if (op->kind == FM_ACT_softmax) {
            softmax(x, y, n);
            continue;
        }
        EACH_COLUMN vf_store(y + c, vf_keep(inside(c, n), vf_load(x + c)));
        activation_forward(op->kind, (real)op->param, y, 0, 0, 0, 1, (n + LANES - 1) / LANES);
    }
}

static void activate_back(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    (void)step;
    const int64_t n = op->n_out;
    for (int64_t r = begin; r < end; r++) {
        const real *y = (const real *)op->y.p + r * op->y.ld, *z = op->z.p ? (const real *)op->z.p + r * op->z.ld : y;
        const real *dy = (const real *)op->dy.p + r * op->dy.ld;
        real *dx = (real *)op->dx.p + r * op->dx.ld;
        if (op->kind == FM_ACT_softmax) {
            softmax_back(y, dy, dx, n);
            continue;
        }
        EACH_COLUMN vf_store(dx + c, vf_load(dy + c));
        activation_backward(op->kind, (real)op->param, y, 0, z, 0, dx, 0, 1, (n + LANES - 1) / LANES);
        EACH_COLUMN vf_store(dx + c, vf_keep(inside(c, n), vf_load(dx + c)));
    }
}
