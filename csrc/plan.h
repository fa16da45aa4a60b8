/* Running a plan, for run.c. */
#ifndef FASTMLP_PLAN_H
#define FASTMLP_PLAN_H

#include "fastmlp.h"

/* Whether all ops of the plan are to run, not only some. */
static inline int fm_is_whole(const fm_plan *plan, const fm_run_args *args)
{
    return args->first_op == 0 && args->last_op == plan->n_ops;
}

/* Floating-point operations of a run. */
double fm_work_of(const fm_plan *plan, const fm_run_args *args);

/* Runs the plan with n_threads workers, or those of them that start in time. */
void fm_run_by(const fm_plan *plan, const fm_run_args *args, int n_threads);

#endif
