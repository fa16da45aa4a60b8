/* What run.c asks of a plan. */
#ifndef FASTMLP_PLAN_H
#define FASTMLP_PLAN_H

#include "fastmlp.h"

/* Whether all ops of the plan are to run, not one for a check or one half of them. */
static inline int fm_is_whole(const fm_plan *plan, const fm_run_args *args)
{
    return args->first_op == 0 && args->last_op == plan->n_ops;
}

/* Floating-point operations of a run. */
double fm_work_of(const fm_plan *plan, const fm_run_args *args);

/* Run it by so many workers, or as many of them as begin in time. */
void fm_run_by(const fm_plan *plan, const fm_run_args *args, int n_threads);

#endif
