/* Trains small networks with the engine, without Python, and prints digests of all weights, which must be the same on every
 * target with fused multiply-add. Usage: digest TARGET THREADS
 *
 * One line per network: its name, its type, the loss of the first and of the last epoch, the digest. The data, the initial
 * weights and the order of the rows come from an integer generator; all numbers here are dyadic, and libm is not used, so
 * any difference between two machines comes from the kernels. */
#include "fastmlp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES 106 /* three batches of 33 and a last one of 7 */
#define BATCH 33
#define BATCHES 4
#define STEPS 20
#define LAYERS 3
static const int64_t sizes[LAYERS + 1] = {10, 37, 19, 7}; /* no width is a multiple of a vector's */

enum { MOMENTUM, ADAM, CLIPPED_ADAM, RMSPROP };

struct recipe {
    const char *name;
    int hidden[LAYERS - 1], output; /* activations */
    int loss, labels, optimizer, source, weighted;
    double lr, dropout;
};

static const struct recipe recipes[] = {
    {"relu-tanh-softmax", {FM_ACT_relu, FM_ACT_tanh}, FM_ACT_identity, FM_LOSS_softmax_cross_entropy, 1, MOMENTUM,
     FM_SRC_float64, 0, 0.25, 0},
    {"sigmoid-elu-mse", {FM_ACT_sigmoid, FM_ACT_elu}, FM_ACT_sigmoid, FM_LOSS_squared_error, 0, ADAM, FM_SRC_float32, 1,
     0.015625, 0},
    {"gelu-silu-bce", {FM_ACT_gelu, FM_ACT_silu}, FM_ACT_identity, FM_LOSS_sigmoid_cross_entropy, 0, CLIPPED_ADAM,
     FM_SRC_uint8, 1, 0.015625, 0.125},
    {"mish-softplus-softmax", {FM_ACT_mish, FM_ACT_softplus}, FM_ACT_softmax, FM_LOSS_huber, 0, RMSPROP, FM_SRC_int16, 0,
     0.0078125, 0},
    {"selu-gelu_tanh-poisson", {FM_ACT_selu, FM_ACT_gelu_tanh}, FM_ACT_identity, FM_LOSS_poisson, 0, MOMENTUM,
     FM_SRC_float64, 1, 0.015625, 0.25},
};

/* ---- memory and numbers -------------------------------------------------------------------------------------- */

static void *taken[128]; /* allocated separately, so that sanitizers detect accesses beyond a block */
static int n_taken;
static uint64_t seed;
static int64_t whole[SAMPLES][32]; /* the data: 0 .. 15 */

static void *take(size_t bytes)
{
    void *p;
    if (n_taken == sizeof taken / sizeof *taken || posix_memalign(&p, 64, bytes)) abort();
    taken[n_taken++] = p;
    return memset(p, 0, bytes);
}

static void give_back(void)
{
    while (n_taken) free(taken[--n_taken]);
}

static size_t size_of(int dtype) { return dtype == FM_FLOAT32 ? sizeof(float) : sizeof(double); }

static fm_mat matrix(int64_t rows, int64_t columns, int dtype)
{
    const int64_t block = 64 / (int64_t)size_of(dtype), ld = (columns + block - 1) / block * block;
    return (fm_mat){take((size_t)(rows * ld) * size_of(dtype)), ld};
}

static void put(fm_mat m, int dtype, int64_t r, int64_t c, double value)
{
    if (dtype == FM_FLOAT32) ((float *)m.p)[r * m.ld + c] = (float)value;
    else ((double *)m.p)[r * m.ld + c] = value;
}

/* The upper 16 bits of Knuth's 64-bit linear congruential generator. */
static int64_t draw(int64_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)(seed >> 48) % below;
}

static double centred(void) { return (double)(draw(1024) - 512) / 512; }

/* FNV-1a of the weights and biases, without the padding. */
static uint64_t digest(const fm_mat *w, int dtype)
{
    uint64_t hash = 14695981039346656037u;
    for (int layer = 0; layer < LAYERS; layer++)
        for (int64_t r = 0; r <= sizes[layer]; r++) {
            const unsigned char *row = (unsigned char *)w[layer].p + (size_t)(r * w[layer].ld) * size_of(dtype);
            for (size_t i = 0; i < (size_t)sizes[layer + 1] * size_of(dtype); i++) hash = (hash ^ row[i]) * 1099511628211u;
        }
    return hash;
}

/* ---- the plan ------------------------------------------------------------------------------------------------ */

struct network {
    const struct recipe *recipe;
    int dtype, n_ops;
    fm_op ops[40];
    int64_t span[40];
    uint8_t sync[40];
    fm_mat w[LAYERS], s1[LAYERS], s2[LAYERS], x[LAYERS], y[LAYERS], z[LAYERS], dy[LAYERS];
    double *row_loss, *parts, weight[SAMPLES];
};

static int splits_params(int opcode)
{
#define X(name, split) FM_##split == FM_PARAMS,
    static const int params[] = {FM_OPCODES(X)};
#undef X
    return params[opcode];
}

static void add(struct network *net, fm_op op)
{
    if (splits_params(op.opcode)) net->span[net->n_ops] = op.n_in + 1;
    net->ops[net->n_ops++] = op;
}

/* The data in the source type: integers, or eighths. */
static fm_op gather_data(struct network *net)
{
    const int source = net->recipe->source;
    const int64_t n = sizes[0];
    fm_op op = {.opcode = FM_gather, .kind = source, .n_in = n, .x = net->x[0]};
#define X(name, type) sizeof(type),
    static const size_t bytes[] = {FM_SOURCES(X)};
#undef X
    const size_t size = bytes[source];
    char *data = take((size_t)(SAMPLES * n) * size + 1) + 1; /* unaligned */
    for (int64_t i = 0; i < SAMPLES * n; i++) {
        const int64_t k = whole[i / n][i % n] = draw(16);
        const float f = (float)(k - 8) / 8;
        const double d = (double)(k - 8) / 8;
        const uint8_t u = (uint8_t)k;
        const int16_t s = (int16_t)(k - 8);
        const void *value = source == FM_SRC_float32 ? (const void *)&f : source == FM_SRC_float64 ? (const void *)&d :
                            source == FM_SRC_uint8 ? (const void *)&u : (const void *)&s;
        memcpy(data + (size_t)i * size, value, size);
    }
    op.data = data, op.data_row = n * (int64_t)size, op.data_column = (int64_t)size;
    if (source == FM_SRC_uint8 || source == FM_SRC_int16) {
        op.w = matrix(2, n, net->dtype);
        for (int64_t c = 0; c < n; c++) {
            put(op.w, net->dtype, 0, c, source == FM_SRC_uint8 ? 7.5 : 0.5);
            put(op.w, net->dtype, 1, c, 0.1875);
        }
        op.smooth_clip = source == FM_SRC_int16;
    }
    return op;
}

/* Targets that can be learnt: the sum of two columns, in seven classes; or the class as one-hot vector. */
static fm_op gather_targets(const struct network *net, fm_mat t)
{
    const int64_t n = sizes[LAYERS];
    const int labels = net->recipe->labels;
    uint8_t *targets = take((size_t)(SAMPLES * n));
    for (int64_t r = 0; r < SAMPLES; r++) {
        const int64_t class = (whole[r][0] + whole[r][1]) * n / 31;
        if (labels) targets[r] = (uint8_t)class;
        else targets[r * n + class] = 1;
    }
    return (fm_op){.opcode = FM_gather, .kind = FM_SRC_uint8, .labels = labels, .n_in = labels ? 1 : n,
                   .t = labels ? t : (fm_mat){0}, .x = labels ? (fm_mat){0} : t, .data = (const char *)targets,
                   .data_row = labels ? 1 : n, .data_column = 1};
}

static void add_dropout(struct network *net, int layer, fm_mat x, fm_mat y)
{
    if (net->recipe->dropout > 0)
        add(net, (fm_op){.opcode = FM_dropout, .n_in = sizes[layer], .n_out = sizes[layer], .x = x, .y = y,
                         .param = net->recipe->dropout, .seed = 0x9E3779B97F4A7C15u + (uint64_t)layer});
}

static void add_forward(struct network *net)
{
    add(net, gather_data(net));
    for (int i = 0; i < LAYERS; i++) {
        const int last = i == LAYERS - 1, act = last ? FM_ACT_identity : net->recipe->hidden[i];
        add(net, (fm_op){.opcode = FM_linear, .kind = act, .n_in = sizes[i], .n_out = sizes[i + 1], .bias = 1,
                         .param = 1, .x = net->x[i], .w = net->w[i], .y = net->y[i], .z = last ? (fm_mat){0} : net->z[i]});
        if (!last) add_dropout(net, i + 1, net->y[i], net->x[i + 1]);
    }
}

static void add_loss(struct network *net)
{
    const struct recipe *recipe = net->recipe;
    const int last = LAYERS - 1;
    const int64_t n = sizes[LAYERS];
    const fm_mat t = recipe->labels ? (fm_mat){take(BATCH * sizeof(int32_t)), 1} : matrix(BATCH, n, net->dtype);
    const fm_mat y = net->y[last], dy = net->dy[last];
    if (recipe->output != FM_ACT_identity)
        add(net, (fm_op){.opcode = FM_activate, .kind = recipe->output, .n_in = n, .n_out = n, .x = y, .y = y});
    add(net, gather_targets(net, t));
    add(net, (fm_op){.opcode = FM_loss, .kind = recipe->loss, .labels = recipe->labels, .n_in = n, .n_out = n, .y = y,
                     .t = t, .dy = dy, .row_loss = net->row_loss,
                     .param = recipe->loss == FM_LOSS_softmax_cross_entropy ? 0.125 : 0.5});
    if (recipe->output != FM_ACT_identity)
        add(net, (fm_op){.opcode = FM_activate_back, .kind = recipe->output, .n_in = n, .n_out = n, .dy = dy, .dx = dy, .y = y});
}

static void add_backward(struct network *net)
{
    for (int i = LAYERS - 1; i > 0; i--) {
        add(net, (fm_op){.opcode = FM_linear_back, .kind = net->recipe->hidden[i - 1], .n_in = sizes[i], .n_out = sizes[i + 1],
                         .param = 1, .dy = net->dy[i], .w = net->w[i], .y = net->y[i - 1], .z = net->z[i - 1],
                         .dx = net->dy[i - 1]});
        add_dropout(net, i, net->dy[i - 1], net->dy[i - 1]);
    }
}

/* One op per layer, from the last to the first. */
static void add_params(struct network *net, int opcode, int kind, fm_rule rule, const fm_mat *g)
{
    int64_t first_part = 0, parts = 0;
    for (int i = 0; i < LAYERS; i++) parts += sizes[i] + 1;
    for (int i = LAYERS - 1; i >= 0; i--) {
        const int clips = opcode == FM_square_sum || rule.clip_norm > 0;
        add(net, (fm_op){.opcode = opcode, .kind = kind, .bias = 1, .n_in = sizes[i], .n_out = sizes[i + 1], .x = net->x[i],
                         .dy = net->dy[i], .w = net->w[i], .g = g ? g[i] : (fm_mat){0}, .s1 = net->s1[i],
                         .s2 = kind == FM_OPT_sgd ? (fm_mat){0} : net->s2[i], .rule = rule,
                         .part = clips ? (fm_mat){net->parts + (opcode == FM_square_sum ? first_part : 0), parts} : (fm_mat){0}});
        first_part += sizes[i] + 1;
    }
}

static void add_updates(struct network *net)
{
    fm_rule rule = {.momentum = 0.9, .alpha = 0.99, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .lr_weight = 1, .lr_bias = 2};
    const int optimizer = net->recipe->optimizer;
    if (optimizer == CLIPPED_ADAM) {
        fm_mat g[LAYERS];
        for (int i = 0; i < LAYERS; i++) g[i] = matrix(sizes[i] + 1, sizes[i + 1], net->dtype);
        add_params(net, FM_linear_grad, 0, (fm_rule){0}, g);
        add_params(net, FM_square_sum, 0, (fm_rule){0}, g);
        rule.clip_norm = 0.25, rule.decay = 0.01, rule.clip_value = 0.125;
        add_params(net, FM_update, FM_OPT_adam, rule, g);
        return;
    }
    rule.l2 = 0.001, rule.l1 = 0.0001, rule.nesterov = net->recipe->labels;
    add_params(net, FM_linear_update, optimizer == ADAM ? FM_OPT_adam : optimizer == RMSPROP ? FM_OPT_rmsprop : FM_OPT_sgd,
               rule, 0);
}

static void build(struct network *net, const struct recipe *recipe, int dtype)
{
    seed = 20260101;
    *net = (struct network){.recipe = recipe, .dtype = dtype, .row_loss = take(BATCH * sizeof(double)), .parts = take(1024)};
    for (int i = 0; i < LAYERS; i++) {
        const int64_t n_in = sizes[i], n_out = sizes[i + 1];
        net->w[i] = matrix(n_in + 1, n_out, dtype);
        net->s1[i] = matrix(n_in + 1, n_out, dtype), net->s2[i] = matrix(n_in + 1, n_out, dtype);
        net->y[i] = matrix(BATCH, n_out, dtype), net->z[i] = matrix(BATCH, n_out, dtype);
        net->dy[i] = matrix(BATCH, n_out, dtype);
        net->x[i] = i && recipe->dropout == 0 ? net->y[i - 1] : matrix(BATCH, n_in, dtype);
        for (int64_t r = 0; r <= n_in; r++)
            for (int64_t c = 0; c < n_out; c++) put(net->w[i], dtype, r, c, centred() * (r < n_in ? 0.25 : 0.125));
    }
    for (int r = 0; r < SAMPLES; r++) net->weight[r] = (double)(1 + draw(8)) / 4;
    add_forward(net);
    add_loss(net);
    add_backward(net);
    add_updates(net);
    for (int i = 0; i < net->n_ops; i++) {
        const int op = net->ops[i].opcode, before = net->ops[(i + net->n_ops - 1) % net->n_ops].opcode;
        net->sync[i] = splits_params(op) != splits_params(before) || (op == FM_update && before == FM_square_sum);
    }
}

static void train(struct network *net, const fm_target *target, int threads)
{
    int64_t order[SAMPLES * STEPS / BATCHES], offsets[STEPS + 1];
    double lr[STEPS], losses[STEPS];
    for (int epoch = 0; epoch < STEPS / BATCHES; epoch++) {
        int64_t *rows = order + epoch * SAMPLES;
        for (int64_t r = 0; r < SAMPLES; r++) { /* Fisher-Yates, inside-out */
            const int64_t other = draw(r + 1);
            rows[r] = rows[other], rows[other] = r;
        }
    }
    for (int s = 0; s < STEPS; s++) {
        offsets[s] = s / BATCHES * SAMPLES + s % BATCHES * BATCH;
        lr[s] = net->recipe->lr;
    }
    offsets[STEPS] = STEPS / BATCHES * SAMPLES;
    const fm_op *updater = &net->ops[net->n_ops - 1];
    const fm_rule *adam = updater->kind == FM_OPT_adam ? &updater->rule : 0;
    const fm_plan plan = {
        .any = {net->ops, net->sync, 0, FM_BARRIERS_BY_SYNC}, .span = net->span, .n_ops = net->n_ops,
        .row_block = 8, .capacity = BATCH, .row_loss = net->row_loss, .kernels = target->kernels[net->dtype],
        .adam = adam, .work = 1e12, /* else these steps would be too small for several workers */
    };
    fm_team_insist(1);
    fm_run(&plan, &(fm_run_args){.order = order, .offsets = offsets, .lr = lr, .losses = losses, .n_steps = STEPS,
                                 .weight = net->recipe->weighted ? net->weight : 0, .last_op = net->n_ops,
                                 .n_threads = threads});
    double first = 0, last = 0; /* of the whole batches of the first and of the last epoch */
    for (int b = 0; b < BATCHES - 1; b++) first += losses[b], last += losses[STEPS - BATCHES + b];
    printf("%s %s %.17g %.17g %016llx\n", net->recipe->name, net->dtype == FM_FLOAT32 ? "float32" : "float64", first, last,
           (unsigned long long)digest(net->w, net->dtype));
}

int main(int argc, char **argv)
{
    const fm_target *target = fm_targets;
    if (argc != 3) return fprintf(stderr, "usage: digest TARGET THREADS\n"), 2;
    while (target->name && strcmp(target->name, argv[1])) target++;
    if (!target->name || !target->supported()) return fprintf(stderr, "no target %s here\n", argv[1]), 3;
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        for (int dtype = FM_FLOAT32; dtype <= FM_FLOAT64; dtype++) {
            static struct network net;
            build(&net, &recipes[i], dtype);
            train(&net, target, atoi(argv[2]));
            give_back();
        }
    return 0;
}
