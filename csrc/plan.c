/* Runs a plan: the ops of each step, with a barrier where an op depends on all workers.
 *
 * Consecutive ops split by rows run block by block: a worker runs all of them on a block of its rows, so that the block's
 * activations stay in its cache. Ops split by parameters run one after the other on the worker's share. */
#include "plan.h"

#include "data_rows.h"
#include "cpu.h"
#include "dynamic.h"
#include "scalars.h"
#include "sharing.h"
#include "worker.h"

/* The wait for helpers, at most: a quarter of a run's time at 50 floating-point operations a nanosecond. */
#define PATIENCE_NS_PER_OPERATION 0.005

struct job {
    const fm_plan *plan;
    const fm_run_args *args;
    int dynamic; /* see dynamic.h */
};

static fm_worker worker_of(const struct job *job, fm_team *team, int me, int n)
{
    const fm_plan *plan = job->plan;
    const fm_sharing *sharing = fm_sharing_of(plan, job->args, n);
    return (fm_worker){
        .plan = plan, .ops = sharing->ops + (sharing == &plan->team ? me * plan->n_ops : 0), .sync = sharing->sync,
        .own = sharing->own, .barriers = sharing->barriers,
        .team = team, .me = me, .n = n, .first_op = job->args->first_op, .last_op = job->args->last_op,
        .all_rows = job->args->offsets[job->args->n_steps],
        .balance = sharing->barriers == FM_BARRIERS_BY_SYNC && n > 1 ? job->args->balance : 0, .shared = FM_N_SHARED,
    };
}

/* A barrier; adds up the time since the last one. */
static void meet(fm_worker *w, const fm_step *step)
{
    if (!w->balance) {
        fm_barrier(w->team, step->coming);
        return;
    }
    w->busy[w->shared] += (double)(fm_ticks() - w->left);
    fm_barrier(w->team, step->coming);
    w->left = fm_ticks(), w->shared = FM_N_SHARED;
}

/* Records what the worker does now as part of its share. */
static void note_share(fm_worker *w, enum fm_shared what, int64_t work)
{
    w->shared = what;
    w->given[what] += (double)work;
}

static void run_rows(const fm_worker *w, fm_step *step, int first, int last, int64_t begin, int64_t end)
{
    const fm_plan *plan = w->plan;
    for (int64_t r = begin; r < end; r += plan->row_block) {
        const int64_t stop = r + plan->row_block < end ? r + plan->row_block : end;
        if (step->at && !step->index) fm_find_next(w, step, begin, r, stop, end);
        for (int i = first; i < last; i++) plan->kernels->run[w->ops[i].opcode](&w->ops[i], step, r, stop);
    }
}

/* A sum over all inputs, of which two workers each have some: the first hands its sums over tile by tile, and the second
 * continues them. So neither reads weights that the other updates, and both are busy but for the first and the last tile. */
static void run_part(const fm_worker *w, const fm_step *step, int i)
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

static void run_params(fm_worker *w, const fm_step *step, int i)
{
    int64_t begin, end;
    params_of(w, i, &begin, &end);
    if (!is_own(w, i)) note_share(w, FM_PARAMETERS, (end - begin) * w->ops[i].n_out);
    if (begin < end) w->plan->kernels->run[w->ops[i].opcode](&w->ops[i], step, begin, end);
}

/* The ops one after the other on the whole batch, by one worker. The path of small networks. */
static void run_alone(const fm_worker *w, fm_step *step, double *loss)
{
    const fm_plan *plan = w->plan;
    fm_kernel *const *run = plan->kernels->run;
    const int first = step->at && !w->ops->nonfinite ? 1 : w->first_op; /* the gather would copy nothing */
    const fm_op *op = w->ops + first, *const end = w->ops + w->last_op;
    const int64_t *span = plan->span + first, rows = step->rows;
    if (step->at && !step->index) fm_find_next(w, step, 0, 0, rows, rows);
    for (; op < end; op++, span++) run[op->opcode](op, step, 0, *span ? *span : rows);
    if (loss) *loss = mean_loss(plan->row_loss, step);
}

static void run_together(fm_worker *w, fm_step *step, double *loss)
{
    const fm_plan *plan = w->plan;
    /* Without barriers between steps, a worker must use the same buffer rows in all of them. */
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
    /* After an op on parameters all rows are done. Else wait for them, and begin the next step only after the sum. */
    const int wait = !splits_params(&w->ops[w->last_op - 1]);
    if (wait) meet(w, step);
    if (w->me == 0) *loss = mean_loss(plan->row_loss, step);
    if (wait) meet(w, step);
}

/* Matters for non-temporal stores. */
static int are_far_apart(const fm_run_args *args, fm_team *team, int me)
{
    if (args->apart != FM_APART_MEASURED) return args->apart == FM_APART_FAR;
    return fm_cpu_streams_well() && fm_far_apart(team, me);
}

static void run_steps(void *context, fm_team *team, int me, int n)
{
    const struct job *job = context;
    const fm_run_args *args = job->args;
    fm_worker w = worker_of(job, team, me, n);
    const int direct = job->plan->last_direct && args->first_op == 0 && args->last_op >= job->plan->last_direct;
    const void *at[FM_DIRECT_ROWS + FM_ROWS_AHEAD];
    fm_fetch coming = {0};
    /* Cleared once only: that takes as long as a layer of a tiny network. */
    fm_step step = {.weight = args->weight, .coming = &coming, .me = me, .n_workers = n};
    step.far_apart = n > 1 && w.barriers == FM_BARRIERS_BY_SYNC && are_far_apart(args, team, me);
    if (w.balance) w.left = fm_ticks();
    if (args->order) fm_find_fetching(&w); /* else rows are in order, which the hardware predicts */
    if (job->dynamic && n > 1 && w.barriers == FM_BARRIERS_NONE) {
        fm_run_dynamic(&w, &step, args->offsets[0], direct ? at : 0);
        return;
    }
    for (int64_t s = 0; s < args->n_steps; s++) {
        const int64_t first = args->offsets[s];
        step.rows = args->offsets[s + 1] - first, step.first = first, step.number = args->first_number + s;
        step.index = args->order ? args->order + first : 0;
        step.lr = args->lr ? args->lr[s] : 0;
        if (direct) {
            fm_find_rows(w.ops, &step, 0, at);
            step.at = at;
        }
        if (w.fetching) coming = fm_fetch_behind(&w, args, s);
        step.inverse_weight = inverse_weight(&step);
        if (job->plan->adam) set_unbias(&step, job->plan->adam);
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
    struct job job = {plan, args, fm_is_dynamic(plan, args, n_threads)};
    if (plan->n_workers) fm_share_inputs(plan, args->balance);
    const int64_t patience = job.dynamic ? FM_WHENEVER : (int64_t)(fm_work_of(plan, args) * PATIENCE_NS_PER_OPERATION);
    const int n = fm_team_run(n_threads, patience, run_steps, &job);
    const int met = fm_sharing_of(plan, args, n)->barriers == FM_BARRIERS_BY_SYNC;
    if (n > 1 && fm_is_whole(plan, args) && args->balance && met) fm_rebalance(args->balance, n);
}
