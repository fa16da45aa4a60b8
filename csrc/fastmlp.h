/* The contract between a plan (built in Python) and the kernels that run it: op, step, plan, target.
 *
 * Invariants. A matrix is row-major and padded: element (r, c) is p[r * ld + c], rows start on 64-byte boundaries,
 * and ld is a whole number of 64-byte blocks, so kernels load and store whole vectors without looking at the edge.
 * The contents of the padding never affect a result. Kernels neither allocate nor print nor fail, and keep no state
 * between calls: a plan is checked when it is built, and its memory belongs to the caller. A run does update a plan's
 * team.ops, and its caller's balance and choice. */
#ifndef FASTMLP_H
#define FASTMLP_H

#include "balance.h"
#include "choice.h"

#include <stdint.h>

/* ---- names ------------------------------------------------------------------------------------------------- */

/* The opcodes: name, and what is split over the workers (rows of the batch, or rows of the parameters).
 *
 *   gather         x[r, c]  = (data[index[r], c] - shift[c]) * scale[c]                    t[r] = data[index[r]] for labels
 *   linear         z        = x w + b;             y = act(z)                              z stored only where act' needs it
 *   activate       y        = act(x)                                                       softmax only here
 *   activate_back  dx       = dy * act'(y)                                                 softmax: y (dy - sum(dy y))
 *   loss           row_loss = loss(y, t);          dy = weight[r] / sum(weight) * loss'    dy null: evaluate only
 *   linear_back    dx       = (dy w^T) * act'(y)                                           y, z: of the layer below
 *   dropout        y        = x * keep(seed, step, r, c) / (1 - p)                         forward on y, backward on dx
 *   scatter        out[index[r], c] = y[r, c]
 *   linear_grad    g        = x^T dy;              g_b = sum_r dy                          + g where it accumulates
 *   update         w        = rule(w, g)                                                   rule: see fm_rule
 *   linear_update  w        = rule(w, x^T dy)                                              linear_grad + update, fused
 *   square_sum     part[i]  = sum of g^2 over the i-th row of g                            for clipping by global norm
 *   average        a        = decay a + (1 - decay) w                                      exponential moving average
 *   max_norm       w[:, c] *= min(1, limit / |w[:, c]|)                                    each column is a unit
 */
#define FM_OPCODES(X)                                                                                                  \
    X(gather, ROWS) X(linear, ROWS) X(activate, ROWS) X(activate_back, ROWS) X(loss, ROWS) X(linear_back, ROWS)        \
    X(dropout, ROWS) X(scatter, ROWS) X(linear_grad, PARAMS) X(update, PARAMS) X(linear_update, PARAMS)                \
    X(square_sum, PARAMS) X(average, PARAMS) X(max_norm, PARAMS)

/* Activations: y = f(z). All but the last four, which need z, give f' from y alone.
 *   identity z | sigmoid 1/(1+e^-z) | tanh | relu max(0,z) | leaky_relu z>0 ? z : a z | elu z>0 ? z : a(e^z - 1)
 *   selu s*elu(z, a) with s=1.0507009873554805, a=1.6732632423543772 | softplus log(1+e^z)
 *   hard_tanh min(1,max(-1,z)) | softmax e^z_c / sum e^z, exp e^z (op activate only)
 *   gelu z Phi(z), by erf | gelu_tanh z/2 (1+tanh(sqrt(2/pi)(z+0.044715 z^3))) | silu z sigmoid(z)
 *   mish z tanh(softplus(z)) */
#define FM_ACTIVATIONS(X)                                                                                              \
    X(identity) X(sigmoid) X(tanh) X(relu) X(leaky_relu) X(elu) X(selu) X(softplus) X(hard_tanh) X(softmax)            \
    X(exp) X(gelu) X(gelu_tanh) X(silu) X(mish)

/* Losses of one row; all but softmax_cross_entropy are means over the n_out outputs.
 *   softmax_cross_entropy  y logits:  log(sum e^y) - y[t]            dense t: sum_c t_c (log(sum e^y) - y_c)
 *                          smoothing s: t <- (1 - s) t + s / n_out
 *   sigmoid_cross_entropy  y logits:  softplus(y) - t y              positive weight p: t p softplus(-y) + (1-t) softplus(y)
 *   squared_error          scale (y - t)^2
 *   absolute_error         |y - t|
 *   huber                  |e| <= d ? e^2 / 2 : d (|e| - d / 2)      e = y - t
 *   quantile               max(q e, (q - 1) e)                       e = t - y, one q per output
 *   poisson                exp(y) - t y                              y is the log of the rate */
#define FM_LOSSES(X)                                                                                                   \
    X(softmax_cross_entropy) X(sigmoid_cross_entropy) X(squared_error) X(absolute_error) X(huber) X(quantile) X(poisson)

/* Optimizers, as PyTorch defines them; G is the gradient with its penalties (see fm_rule), t counts steps from 1.
 *   sgd       s1 = momentum s1 + G;  w -= lr s1       nesterov: w -= lr (G + momentum s1)      momentum 0: w -= lr G
 *   rmsprop   s1 = alpha s1 + (1-alpha) G^2;  d = G / (sqrt(s1) + eps);  momentum: s2 = momentum s2 + d;  w -= lr (s2 or d)
 *   adagrad   s1 += G^2;  w -= lr G / (sqrt(s1) + eps)
 *   adam      s1 = beta1 s1 + (1-beta1) G;  s2 = beta2 s2 + (1-beta2) G^2
 *             w -= lr / (1 - beta1^t) * s1 / (sqrt(s2) / sqrt(1 - beta2^t) + eps) */
#define FM_OPTIMIZERS(X) X(sgd) X(rmsprop) X(adagrad) X(adam)

/* Element types that a gather reads and converts to the plan's type. */
#define FM_SOURCES(X)                                                                                                  \
    X(float32, float) X(float64, double) X(uint8, uint8_t) X(int8, int8_t) X(uint16, uint16_t) X(int16, int16_t)       \
    X(uint32, uint32_t) X(int32, int32_t) X(uint64, uint64_t) X(int64, int64_t)

enum fm_split { FM_ROWS, FM_PARAMS };
#define X(name, split) FM_##name,
enum fm_opcode { FM_OPCODES(X) FM_N_OPCODES };
#undef X
#define X(name) FM_ACT_##name,
enum fm_activation { FM_ACTIVATIONS(X) FM_N_ACTIVATIONS };
#undef X
#define X(name) FM_LOSS_##name,
enum fm_loss { FM_LOSSES(X) FM_N_LOSSES };
#undef X
#define X(name) FM_OPT_##name,
enum fm_optimizer { FM_OPTIMIZERS(X) FM_N_OPTIMIZERS };
#undef X
#define X(name, type) FM_SRC_##name,
enum fm_source { FM_SOURCES(X) FM_N_SOURCES };
#undef X
enum fm_dtype { FM_FLOAT32, FM_FLOAT64 };

/* ---- an op ------------------------------------------------------------------------------------------------- */

typedef struct fm_mat {
    void *p;    /* null: the op does not use it */
    int64_t ld; /* elements from one row to the next */
} fm_mat;

/* How a parameter is updated. The gradient the optimizer sees is G = clip(scale g) + l2 w + l1 sign(w); decoupled decay is
 * w -= lr decay w before it. The bias row takes part in l1, l2 and decay only where decay_bias is set. */
typedef struct fm_rule {
    int32_t nesterov, decay_bias, plain; /* plain: neither clipping nor penalties */
    double momentum, alpha, beta1, beta2, eps; /* alpha: rmsprop */
    double l1, l2, decay;
    double lr_weight, lr_bias; /* factors on the step's learning rate */
    double clip_value;         /* |g| <= clip_value; 0: off */
    double clip_norm;          /* scale = min(1, clip_norm / sqrt(sum of part)); 0: off, scale = 1 */
} fm_rule;

typedef struct fm_op {
    int32_t opcode;
    int32_t kind;        /* fm_activation, fm_loss, fm_optimizer or fm_source, by opcode */
    int32_t labels;      /* gather, loss: t holds int32 class numbers, one per row */
    int32_t bias;        /* row n_in of w (and g, s1, s2) is the bias; else that row is zero and remains zero */
    int32_t accumulate;  /* linear_grad: add to g */
    int32_t smooth_clip; /* gather: x / sqrt(1 + (x / 3)^2) after shift and scale */
    int32_t direct;      /* gather, linear, linear_grad, linear_update: if step->at is set, x is read through it, not gathered */
    int32_t partial;     /* gather, linear, linear_update: for one worker's part of the inputs. linear adds to the sum of the
                            worker before; linear_update updates these inputs' weights, and prefetches only these inputs */
    int64_t n_in, n_out; /* input and output columns */
    int64_t first_in;    /* the first column of X that is read; linear_update, partial: the worker's first input */
    fm_mat x;            /* [rows, n_in]      input rows (loss, activate, dropout, scatter: see the formula) */
    fm_mat w;            /* [n_in + 1, n_out] weights, then the bias row; gather: [2, n_in] shift and scale, or null */
    fm_mat init;         /* [rows, n_out]     linear, partial: where sums start, the bias (ld 0) or y; else null */
    fm_mat y;            /* [rows, n_out]     output rows; linear_back: the output of the layer below [rows, n_in] */
    fm_mat z;            /* [rows, n_out]     pre-activations, where the derivative needs them */
    fm_mat dy, dx;       /* [rows, n_out], [rows, n_in] gradients of the loss with respect to y and x (before the activation) */
    fm_mat t;            /* [rows, n_out]     dense targets, or int32 [rows] labels */
    fm_mat g, s1, s2;    /* [n_in + 1, n_out] gradient and optimizer state, laid out like w */
    fm_mat part;         /* [1, m] doubles    partial sums of squares; ld = m, their number in the whole plan */
    fm_mat aux;          /* [1, n_out]        loss: quantiles or positive weights; average: the averaged w */
    double *row_loss;    /* [rows]            loss of each row, unweighted */
    uint8_t *nonfinite;  /* gather: set to 1 if a value of X, in the plan's type, is not finite; or null */
    const char *data;    /* gather: source; scatter: destination (of the plan's type); linear_grad, linear_update: source of
                            the next batch, to be prefetched, or null */
    int64_t data_row, data_column; /* strides in bytes */
    double param;        /* activation: slope, alpha; loss: smoothing, scale, delta; dropout: p; average: decay; max_norm: limit */
    uint64_t seed;       /* dropout: the Philox key */
    fm_rule rule;
} fm_op;

/* ---- a step, a run, a plan --------------------------------------------------------------------------------- */

#define FM_DIRECT_ROWS 1024 /* the largest batch that can be read in place */
#define FM_ROWS_AHEAD 8     /* how many rows ahead such a batch is prefetched */

/* One batch as the kernels see it. Row r of the batch is row index[r] of the data (first + r where index is null). */
typedef struct fm_step {
    int64_t rows, first, number; /* number: steps since training began, from 0 */
    fm_fetch *coming;            /* this worker's share of the next batch's rows */
    const int64_t *index;
    const void *const *at;       /* [rows + FM_ROWS_AHEAD] addresses of the rows of X, to be read in place (the last one is
                                    repeated, for prefetches); null: rows are gathered */
    const char *next;            /* the part of the data that the next block of rows reads, if it is contiguous; ... */
    int64_t next_bytes;          /* ... 0: unknown, or not contiguous */
    const double *weight;        /* sample weights by row of the data; null: all 1 */
    double inverse_weight;       /* 1 / sum of the batch's weights; 0 if they are all zero */
    int me, n_workers;           /* this worker's index, and the number of workers; for speed only */
    int far_apart;               /* the workers' cores share no cache: writing to a line that another core has read is slow */
    double lr;
    double unbias1, root2;       /* adam: 1 - beta1^t and sqrt(1 - beta2^t), t = number + 1 */
} fm_step;

/* always_inline: else GCC does not inline a baseline function into kernels, which are tuned for another CPU. */
#define FM_INLINE static inline __attribute__((always_inline))

/* Row of the data that is row r of the batch. */
FM_INLINE int64_t fm_data_row(const fm_step *step, int64_t r) { return step->index ? step->index[r] : step->first + r; }

/* Number of parts of at most `most` that make up `whole`; at least 1. In small networks mostly 1: the test saves a division,
 * which takes as long as a tile. */
FM_INLINE int64_t fm_parts_of(int64_t whole, int64_t most) { return whole <= most ? 1 : (whole + most - 1) / most; }

/* Runs an op on rows [begin, end) of the batch, or of the op's parameters (0 <= begin <= end <= span). */
typedef void fm_kernel(const fm_op *op, const fm_step *step, int64_t begin, int64_t end);

typedef struct fm_kernels {
    const char *target;
    fm_kernel *run[FM_N_OPCODES];
    int (*all_finite)(const void *x, int64_t n); /* n numbers of the kernels' type, aligned or not */
    int tile_rows;  /* rows of the batch per tile of a product */
    int real_bytes; /* size of a number */
} fm_kernels;

enum fm_barriers {
    FM_BARRIERS_NONE,     /* only rows ops: no barriers */
    FM_BARRIERS_FOR_LOSS, /* only rows ops, followed by the sum of the step's loss */
    FM_BARRIERS_BY_SYNC   /* params ops, or a worker's own ops, follow the rows ops: sync marks the barriers, and the loss is
                             summed after one */
};

/* How workers share the ops. Those split by rows are the same for all workers. A worker's own op covers all rows, and its
 * buffers are this worker's columns of the result, or its copy of the result. */
typedef struct fm_sharing {
    fm_op *ops;          /* [n_ops]; for a team [n_workers, n_ops], whose shares of the inputs each run sets */
    const uint8_t *sync; /* [n_ops] barrier before this op */
    const uint8_t *own;  /* [n_ops] each worker has its own version of this op; null: of none */
    int32_t barriers;    /* fm_barriers */
} fm_sharing;

typedef struct fm_plan {
    fm_sharing any;        /* for any number of workers: no op is a worker's own */
    fm_sharing team;       /* for exactly n_workers, if that is not 0, and from the first op on */
    const int64_t *span;   /* [n_ops] number of parameter rows that an op splits over the workers; 0 for ops split by rows */
    int32_t n_ops, n_workers;
    int32_t last_direct;   /* 1 + the last op that reads rows of X in place; 0: none does */
    int32_t row_block;     /* a worker runs consecutive rows ops on at most this many rows at a time */
    int64_t capacity;      /* rows that the buffers hold */
    const double *row_loss; /* of the loss op, or null */
    const fm_rule *adam;    /* the rule of the adam updates, or null */
    double work;           /* floating-point operations of a full step, by which the number of workers is chosen */
    const fm_kernels *kernels;
} fm_plan;

/* Whether the workers' cores share a cache: to be measured, or (for tests) assumed. */
enum fm_apart { FM_APART_MEASURED, FM_APART_NEAR, FM_APART_FAR };

/* Steps s = 0 .. n_steps-1: step s trains on rows order[offsets[s] .. offsets[s+1]) at rate lr[s]. */
typedef struct fm_run_args {
    const int64_t *order;      /* null: 0, 1, 2, ... */
    const int64_t *offsets;    /* [n_steps + 1] */
    const double *lr;          /* [n_steps] or null */
    const double *weight;      /* sample weights by row of the data, or null */
    double *losses;            /* [n_steps] weighted mean loss of each step, or null */
    int64_t n_steps, first_number;
    int32_t first_op, last_op; /* run ops [first_op, last_op): all, or one for a lock-step check */
    int32_t n_threads;
    int32_t apart;             /* fm_apart */
    fm_balance *balance;       /* the workers' shares, updated after the run; null: equal shares */
    fm_choice *choice;         /* whether one worker is faster than all, updated by the run; null: always all */
} fm_run_args;

void fm_run(const fm_plan *plan, const fm_run_args *args);

/* ---- targets ----------------------------------------------------------------------------------------------- */

typedef struct fm_target {
    const char *name;
    int (*supported)(void);
    const fm_kernels *kernels[2]; /* by fm_dtype */
} fm_target;

extern const fm_target fm_targets[]; /* best first; ends with a null name */

#endif
