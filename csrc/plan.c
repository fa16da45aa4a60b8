/* Runs a plan: steps times ops, and a barrier where an op has to wait for all workers.
 *
 * Ops that split rows run in stretches: a worker carries a block of its rows through the whole stretch, so that a block's
 * activations stay in its cache. Ops that split parameters run one after the other over the worker's share. */
#include "cpu.h"
#include "fastmlp.h"
#include "plan.h"
#include "sharing.h"
#include "threads.h"

#include <math.h>

/* Nanoseconds to wait for helpers, for each operation of a run: a quarter of its time at 50 operations a nanosecond. */
#define PATIENCE 0.005

struct job {
    const fm_plan *plan;
    const fm_run_args *args;
    int taken; /* workers take rows as they come */
};

static int splits_params(const fm_op *op)
{
    static const uint8_t split[FM_N_OPCODES] = {
#define X(name, split) [FM_##name] = FM_##split,
        FM_OPCODES(X)
#undef X
    };
    return split[op->opcode] == FM_PARAMS;
}

/* Sums are cut in eight, by position, whoever adds them: a fixed order that still keeps the adder busy. */
static double sum_of_eight(const double *part)
{
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

static double weight_of(const fm_step *step, int64_t r)
{
    return step->weight[step->index ? step->index[r] : step->first + r];
}

static double inverse_weight(const fm_step *step)
{
    if (!step->weight) return 1 / (double)step->rows;
    double part[8] = {0};
    for (int64_t r = 0; r < step->rows; r++) part[r % 8] += weight_of(step, r);
    const double sum = sum_of_eight(part);
    return sum > 0 ? 1 / sum : 0;
}

/* b^n for whole n >= 0, by squaring: multiplications only, so the same bits everywhere. */
static double whole_power(double b, int64_t n)
{
    double p = 1;
    for (; n > 0; n >>= 1, b *= b)
        if (n & 1) p *= b;
    return p;
}

static double mean_loss(const double *row_loss, const fm_step *step)
{
    double part[8] = {0};
    if (step->weight)
        for (int64_t r = 0; r < step->rows; r++) part[r % 8] += weight_of(step, r) * row_loss[r];
    else
        for (int64_t r = 0; r < step->rows; r++) part[r % 8] += row_loss[r];
    return sum_of_eight(part) * step->inverse_weight;
}

/* What one worker of a team does in every step. */
struct worker {
    const fm_plan *plan;
    const fm_op *ops;
    const uint8_t *sync, *own;
    fm_team *team;
    int barriers; /* fm_barriers */
    int me, n, first_op, last_op;
    int64_t all_rows;               /* of the data, that the run goes through */
    const fm_op *fetching;          /* the op whose x the next batch will be; or null */
    int64_t fetch_begin, fetch_end; /* which columns of that */
    const fm_balance *balance;      /* of the shares; null: they are equal */
    int shared;                     /* what was shared since the last barrier: fm_shared, or FM_N_SHARED for nothing */
    int64_t left;                   /* that barrier, in ticks */
    double given[FM_N_SHARED];      /* how much of it, in a unit of its own */
    double busy[FM_N_SHARED + 1];   /* ticks from barrier to barrier, by what was shared */
};

static struct worker worker_of(const struct job *job, fm_team *team, int me, int n)
{
    const fm_plan *plan = job->plan;
    const fm_sharing *sharing = fm_sharing_of(plan, job->args, n);
    return (struct worker){
        .plan = plan, .ops = sharing->ops + (sharing == &plan->team ? me * plan->n_ops : 0), .sync = sharing->sync,
        .own = sharing->own, .barriers = sharing->barriers,
        .team = team, .me = me, .n = n, .first_op = job->args->first_op, .last_op = job->args->last_op,
        .all_rows = job->args->offsets[job->args->n_steps],
        .balance = sharing->barriers == FM_BARRIERS_BY_SYNC && n > 1 ? job->args->balance : 0, .shared = FM_N_SHARED,
    };
}

/* Where a worker's share of so many rows begins, of the batch or of parameters; the next worker's beginning ends it. One
 * worker is spared the division. */
static int64_t share_begin(const struct worker *w, enum fm_shared what, int64_t all, int me)
{
    return w->n == 1 ? all * me : fm_share_begin(w->balance, what, all, me, w->n);
}

/* A barrier; and how long it took from the last one. */
static void meet(struct worker *w, const fm_step *step)
{
    if (!w->balance) {
        fm_barrier(w->team, step->coming);
        return;
    }
    w->busy[w->shared] += (double)(fm_ticks() - w->left);
    fm_barrier(w->team, step->coming);
    w->left = fm_ticks(), w->shared = FM_N_SHARED;
}

/* Notes that what a worker does now is its share. */
static void note_share(struct worker *w, enum fm_shared what, int64_t work)
{
    w->shared = what;
    w->given[what] += (double)work;
}

static int is_own(const struct worker *w, int i) { return w->own && w->own[i]; }

/* Finds what of the data is read behind rows begin .. end - 1 of the batch, of which this worker has those from `mine` on; where
 * rows are read in place and in order, and lie close to one another. */
static void find_next(const struct worker *w, fm_step *step, int64_t mine, int64_t begin, int64_t end, int64_t my_end)
{
    const fm_op *gather = w->ops;
    const int64_t first = step->first + (end < my_end ? end : step->rows + mine), left = w->all_rows - first;
    const int64_t most = end < my_end && my_end - end < end - begin ? my_end - end : end - begin, rows = left < most ? left : most;
    const int64_t bytes = gather->n_in * gather->data_column;
    const int close = gather->data_row >= bytes && gather->data_row <= 2 * bytes;
    step->next = gather->data + first * gather->data_row;
    step->next_bytes = close && rows > 0 ? (rows - 1) * gather->data_row + bytes : 0;
}

static void run_rows(const struct worker *w, fm_step *step, int first, int last, int64_t begin, int64_t end)
{
    const fm_plan *plan = w->plan;
    for (int64_t r = begin; r < end; r += plan->row_block) {
        const int64_t stop = r + plan->row_block < end ? r + plan->row_block : end;
        if (step->at && !step->index) find_next(w, step, begin, r, stop, end);
        for (int i = first; i < last; i++) plan->kernels->run[w->ops[i].opcode](&w->ops[i], step, r, stop);
    }
}

/* A sum over all inputs, of which two workers each have some: the first hands its rows over tile by tile, the second goes
 * on from there. So neither reads weights that the other moves, and both are busy but for the first and the last tile. */
static void run_part(const struct worker *w, const fm_step *step, int i)
{
    const fm_kernels *kernels = w->plan->kernels;
    int64_t left = (step->rows + kernels->tile_rows - 1) / kernels->tile_rows;
    for (int64_t r = 0, end; r < step->rows; r = end, left--) {
        end = r + (step->rows - r) / left;
        if (w->me) fm_take_over(w->team, step->coming);
        kernels->run[w->ops[i].opcode](&w->ops[i], step, r, end);
        if (!w->me) fm_hand_over(w->team);
    }
}

/* The rows of an op's parameters that this worker moves: those of its inputs, where it has some of these. */
static void params_of(const struct worker *w, int i, int64_t *begin, int64_t *end)
{
    const int64_t span = w->plan->span[i], own = is_own(w, i);
    *begin = own ? 0 : share_begin(w, FM_PARAMETERS, span, w->me);
    *end = own ? span : share_begin(w, FM_PARAMETERS, span, w->me + 1);
    if (!w->ops[i].partial) return;
    *begin = w->ops[i].first_in;
    if (w->me + 1 < w->n) *end = w->ops[i + w->plan->n_ops].first_in; /* where the next worker's begin */
}

static void run_params(struct worker *w, const fm_step *step, int i)
{
    int64_t begin, end;
    params_of(w, i, &begin, &end);
    if (!is_own(w, i)) note_share(w, FM_PARAMETERS, (end - begin) * w->ops[i].n_out);
    if (begin < end) w->plan->kernels->run[w->ops[i].opcode](&w->ops[i], step, begin, end);
}

/* One worker, and a batch it carries through the step as a whole: the ops in a row. Small networks live here. */
static void run_alone(const struct worker *w, fm_step *step, double *loss)
{
    const fm_plan *plan = w->plan;
    fm_kernel *const *run = plan->kernels->run;
    const int first = step->at && !w->ops->odd ? 1 : w->first_op; /* a gather that has nothing to do */
    const fm_op *op = w->ops + first, *const end = w->ops + w->last_op;
    const int64_t *span = plan->span + first, rows = step->rows;
    if (step->at && !step->index) find_next(w, step, 0, 0, rows, rows);
    for (; op < end; op++, span++) run[op->opcode](op, step, 0, *span ? *span : rows);
    if (loss) *loss = mean_loss(plan->row_loss, step);
}

static void run_together(struct worker *w, fm_step *step, double *loss)
{
    const fm_plan *plan = w->plan;
    /* Where no barrier parts the steps, a worker must keep to the same buffer rows in all of them. */
    const int64_t rows = w->barriers != FM_BARRIERS_NONE ? step->rows : plan->capacity;
    const int64_t begin = share_begin(w, FM_BATCH, rows, w->me), share = share_begin(w, FM_BATCH, rows, w->me + 1);
    const int64_t end = share < step->rows ? share : step->rows;

    for (int i = w->first_op, next; i < w->last_op; i = next) {
        next = i + 1;
        if (w->sync[i]) meet(w, step);
        if (splits_params(&w->ops[i])) {
            run_params(w, step, i);
            continue;
        }
        if (w->ops[i].partial && w->ops[i].opcode == FM_linear) {
            run_part(w, step, i);
            continue;
        }
        const int own = is_own(w, i);
        while (next < w->last_op && !splits_params(&w->ops[next]) && !w->sync[next] && is_own(w, next) == own) next++;
        if (!own) note_share(w, FM_BATCH, end - begin);
        run_rows(w, step, i, next, own ? 0 : begin, own ? step->rows : end);
    }
    if (!loss) return;
    /* Behind an op on parameters all rows are done; else wait, and let nobody begin the next step before the sum is made. */
    const int wait = !splits_params(&w->ops[w->last_op - 1]);
    if (wait) meet(w, step);
    if (w->me == 0) *loss = mean_loss(plan->row_loss, step);
    if (wait) meet(w, step);
}

/* Where the batch's rows of X lie, from row `first` on. The first op is their gather, which has then nothing to do. */
static void find_rows(const fm_op *gather, const fm_step *step, int64_t first, const void **at)
{
    for (int64_t r = first; r < step->rows; r++)
        at[r] = gather->data + (step->index ? step->index[r] : step->first + r) * gather->data_row;
    const void *const last = step->rows > 0 ? at[step->rows - 1] : 0;
    for (int r = 0; r < FM_ROWS_AHEAD; r++) at[step->rows + r] = last;
}

/* Whether workers take rows as they come, however these are cut into steps: nothing is left of a row but what a scatter has
 * written elsewhere. So whoever starts late, or shares its core with somebody else, takes fewer. */
static int are_taken(const fm_plan *plan, const fm_run_args *args, int n)
{
    const fm_sharing *sharing = fm_sharing_of(plan, args, n);
    if (n == 1 || sharing->barriers != FM_BARRIERS_NONE || !fm_is_whole(plan, args) || args->order || plan->capacity < n) return 0;
    for (int i = 0; i < plan->n_ops; i++) {
        const int opcode = sharing->ops[i].opcode; /* a mask depends on where in a batch a row stands */
        if (opcode != FM_gather && opcode != FM_linear && opcode != FM_activate && opcode != FM_scatter) return 0;
    }
    return sharing->ops[plan->n_ops - 1].opcode == FM_scatter;
}

#define TAKEN_LEAST 48         /* rows: fewer read the weights too often */
#define TAKEN_NEAR (512 << 10) /* bytes of weights that a core keeps; of more it is a block at least */

static int64_t parts_of(int64_t n, int64_t most) { return (n + most - 1) / most; }

/* How many rows at least a worker takes: an even part of its fair share. */
static int64_t taken_least(const struct worker *w, int64_t all)
{
    const fm_plan *plan = w->plan;
    int64_t least = TAKEN_LEAST;
    for (int i = 0; i < plan->n_ops; i++) {
        const fm_op *op = &w->ops[i];
        if (op->opcode == FM_linear && op->n_in * op->w.ld * plan->kernels->real_bytes > TAKEN_NEAR) least = plan->row_block;
    }
    const int64_t fair = parts_of(all, w->n), parts = fair > least ? fair / least : 1, tile = plan->kernels->tile_rows;
    return parts_of(parts_of(fair, parts), tile) * tile;
}

/* In buffer rows that are the worker's own. at: where rows of the data are to be read in place, else null. */
static void run_taken(const struct worker *w, fm_step *step, int64_t first, const void **at)
{
    const fm_plan *plan = w->plan;
    const int64_t home = plan->capacity * w->me / w->n, room = plan->capacity * (w->me + 1) / w->n - home;
    const int64_t block = room < plan->row_block ? room : plan->row_block, all = w->all_rows - first, least = taken_least(w, all);
    for (int64_t begin, end; (begin = fm_take(w->team, all, least, &end)) < end;)
        for (int64_t r = begin, rows; r < end; r += rows) {
            rows = parts_of(end - r, parts_of(end - r, block));
            step->first = first + r - home, step->rows = home + rows;
            if (at) {
                find_rows(w->ops, step, home, at);
                step->at = at;
                find_next(w, step, (w->n - 1) * (end - begin), home, home + rows, home + end - r); /* the others take as many */
            }
            for (int i = 0; i < plan->n_ops; i++)
                plan->kernels->run[w->ops[i].opcode](&w->ops[i], step, home, home + rows);
        }
}

#define FETCHED_LEAST 256 /* bytes of a row: the cache has smaller ones anyway */
#define FETCHED_APART 8   /* bytes at most from one column to the next: else a row is many lines for few numbers */

/* Finds the op that reads the batch last, and what this worker is to fetch of the next batch meanwhile. */
static void find_fetching(struct worker *w)
{
    for (int i = 0; i < w->plan->n_ops; i++) {
        const fm_op *op = &w->ops[i];
        if (!splits_params(op) || !op->data || op->data_column > FETCHED_APART) continue;
        int64_t begin = 0, end = op->n_in;
        if (op->partial) params_of(w, i, &begin, &end); /* its own inputs only, but of all rows */
        if (end > op->n_in) end = op->n_in;
        if ((end - begin) * op->data_column < FETCHED_LEAST) continue;
        w->fetching = op, w->fetch_begin = begin, w->fetch_end = end;
    }
}

/* This worker's share of the batch behind step s. */
static fm_fetch fetch_behind(const struct worker *w, const fm_run_args *args, int64_t s)
{
    const fm_op *op = w->fetching;
    if (s + 1 >= args->n_steps) return (fm_fetch){0};
    const int64_t rows = args->offsets[s + 2] - args->offsets[s + 1];
    const int64_t begin = op->partial ? 0 : share_begin(w, FM_BATCH, rows, w->me);
    const int64_t end = op->partial ? rows : share_begin(w, FM_BATCH, rows, w->me + 1);
    const int64_t *row = args->order + args->offsets[s + 1];
    fm_fetch f = {
        .data = op->data + w->fetch_begin * op->data_column, .data_row = op->data_row,
        .bytes = (w->fetch_end - w->fetch_begin) * op->data_column, .row = row + begin, .last = row + end,
    };
    fm_fetch_row(&f);
    return f;
}

/* For the sake of stores past the caches. */
static int are_far_apart(const fm_run_args *args, fm_team *team, int me)
{
    if (args->apart != FM_APART_MEASURED) return args->apart == FM_APART_FAR;
    return fm_cpu_streams_well() && fm_far_apart(team, me);
}

static void run_steps(void *context, fm_team *team, int me, int n)
{
    const struct job *job = context;
    const fm_run_args *args = job->args;
    struct worker w = worker_of(job, team, me, n);
    const int direct = job->plan->last_direct && args->first_op == 0 && args->last_op >= job->plan->last_direct;
    const void *at[FM_DIRECT_ROWS + FM_ROWS_AHEAD];
    fm_fetch coming = {0};
    /* Once: clearing it takes as long as a layer of a tiny network. */
    fm_step step = {.weight = args->weight, .coming = &coming, .me = me, .n_workers = n};
    step.far_apart = n > 1 && w.barriers == FM_BARRIERS_BY_SYNC && are_far_apart(args, team, me);
    if (w.balance) w.left = fm_ticks();
    if (args->order) find_fetching(&w); /* else one row follows another, as the processor guesses */
    if (job->taken && n > 1 && w.barriers == FM_BARRIERS_NONE) {
        run_taken(&w, &step, args->offsets[0], direct ? at : 0);
        return;
    }
    for (int64_t s = 0; s < args->n_steps; s++) {
        const int64_t first = args->offsets[s];
        step.rows = args->offsets[s + 1] - first, step.first = first, step.number = args->first_number + s;
        step.index = args->order ? args->order + first : 0;
        step.lr = args->lr ? args->lr[s] : 0;
        if (direct) {
            find_rows(w.ops, &step, 0, at);
            step.at = at;
        }
        if (w.fetching) coming = fetch_behind(&w, args, s);
        step.inverse_weight = inverse_weight(&step);
        if (job->plan->adam) {
            step.unbias1 = 1 - whole_power(job->plan->adam->beta1, step.number + 1);
            step.root2 = sqrt(1 - whole_power(job->plan->adam->beta2, step.number + 1));
        }
        double *loss = args->losses ? &args->losses[s] : 0;
        if (n == 1 && step.rows <= job->plan->row_block) run_alone(&w, &step, loss);
        else run_together(&w, &step, loss);
    }
    for (int what = 0; w.balance && what < FM_N_SHARED; what++)
        args->balance->busy[what][me] = w.busy[what], args->balance->given[what][me] = w.given[what];
}

double fm_work_of(const fm_plan *plan, const fm_run_args *args)
{
    return plan->work * (double)(args->offsets[args->n_steps] - args->offsets[0]) / (double)plan->capacity;
}

void fm_run_by(const fm_plan *plan, const fm_run_args *args, int n_threads)
{
    struct job job = {plan, args, are_taken(plan, args, n_threads)};
    if (plan->n_workers) fm_share_inputs(plan, args->balance);
    const int64_t patience = job.taken ? FM_WHENEVER : (int64_t)(fm_work_of(plan, args) * PATIENCE);
    const int n = fm_team_run(n_threads, patience, run_steps, &job);
    const int met = fm_sharing_of(plan, args, n)->barriers == FM_BARRIERS_BY_SYNC;
    if (n > 1 && fm_is_whole(plan, args) && args->balance && met) fm_rebalance(args->balance, n);
}
