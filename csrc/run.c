/* Chooses the number of workers: one where more cannot pay, else what was faster lately. */
#include "float_state.h"
#include "helpers.h"
#include "plan.h"
#include "stack.h"
#include "threads.h"

#include <sched.h>

#define SERIAL_STEP 4e5 /* floating-point operations of a step, ~10 us on one core: below, a barrier costs more */
#define SERIAL_RUN 16e6 /* of a run, ~150 us: below, waking a helper gained little or cost more, ... */
#define SERIAL_ROWS 5e6 /* ... but of a run without barriers: above, two workers took half the time */
#define ROW_OF_OP 300   /* cost of a row of an op beside its products, in operations: reading, writing, activation */
#define READING_ROWS 4  /* rows whose products take as long as reading weights from beyond the L2 cache */
#define LARGE 5e8       /* of a step, ~5 ms on one core: above, no other choice is tried */
#define TRIAL 32        /* a part of a trial has 1 / TRIAL of a run's steps, or enough to pay */

static int workers_worth_waking(const fm_plan *plan, const fm_run_args *args)
{
    const double work = fm_work_of(plan, args);
    if (plan->any.barriers) return plan->work < SERIAL_STEP || work < SERIAL_RUN ? 1 : args->n_threads;
    const double rows = (double)(args->offsets[args->n_steps] - args->offsets[0]), least = (double)args->n_steps * READING_ROWS;
    const double products = plan->work / (double)plan->capacity * (rows > least ? rows : least);
    return products + rows * plan->n_ops * ROW_OF_OP < SERIAL_ROWS ? 1 : args->n_threads;
}

/* Steps of a part of a trial: a small part of the run, but enough for all workers to pay. */
static int64_t trial_steps(const fm_plan *plan, const fm_run_args *args)
{
    const int64_t least = 1 + (int64_t)(SERIAL_RUN / plan->work), some = args->n_steps / TRIAL;
    return some > least ? some : least;
}

static void skip(fm_run_args *args, int64_t steps)
{
    args->offsets += steps, args->first_number += steps;
    if (args->lr) args->lr += steps;
    if (args->losses) args->losses += steps;
}

static void run_and_learn(const fm_plan *plan, const fm_run_args *args, fm_choice *choice)
{
    fm_run_args part = *args;
    for (int64_t left = args->n_steps; left > 0; left -= part.n_steps) {
        part.n_steps = fm_choice_is_trial(choice) ? trial_steps(plan, args) : left;
        if (part.n_steps > left) part.n_steps = left;
        const int64_t start = fm_ticks();
        fm_run_by(plan, &part, fm_choice_is_all(choice) ? args->n_threads : 1);
        fm_choice_took(choice, fm_work_of(plan, &part), (double)(fm_ticks() - start));
        skip(&part, part.n_steps);
    }
}

static void run(const fm_plan *plan, const fm_run_args *args)
{
    const int n = workers_worth_waking(plan, args);
    const int known = n == 1 || plan->work > LARGE || !fm_is_whole(plan, args) || fm_team_insists();
    if (known || !args->choice) fm_run_by(plan, args, n);
    else run_and_learn(plan, args, args->choice);
}

struct call {
    const fm_plan *plan;
    const fm_run_args *args;
};

static void run_called(void *argument)
{
    const struct call *call = argument;
    run(call->plan, call->args);
}

void fm_run(const fm_plan *plan, const fm_run_args *args)
{
    struct call call = {plan, args};
    fm_helper *helper = fm_stack_suffices() ? 0 : fm_helper_take(1); /* a helper's stack does */
    if (!helper) {
        const fm_float_state before = fm_float_state_begin();
        run(plan, args);
        fm_float_state_end(before);
        return;
    }
    fm_helper_call(helper, run_called, &call);
    while (!fm_helper_has_begun(helper)) sched_yield();
    fm_helper_release(helper);
}
