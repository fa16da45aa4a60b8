/* Sharing: which ops each worker of a team runs, and on which inputs. */
#ifndef FASTMLP_SHARING_H
#define FASTMLP_SHARING_H

#include "fastmlp.h"

/* The sharing for n workers: the team's only if the run includes the first op, whose copies the others read. */
const fm_sharing *fm_sharing_of(const fm_plan *plan, const fm_run_args *args, int n);

/* Divides the inputs of ops with partial sums by the workers' shares of parameters, so that each updates the weights of its own
 * inputs; at least one each, since sums begin with the first worker's and end with the last worker's. */
void fm_share_inputs(const fm_plan *plan, const fm_balance *balance);

#endif
