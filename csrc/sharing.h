/* Sharing: which ops each worker of a team runs, and which inputs it has, where each has some of them. */
#ifndef FASTMLP_SHARING_H
#define FASTMLP_SHARING_H

#include "fastmlp.h"

/* That of so many workers. What the first op copies, the others read. */
const fm_sharing *fm_sharing_of(const fm_plan *plan, const fm_run_args *args, int n);

/* Workers that have some of the inputs each have as many as is their share of parameters, which is what they move of them; and at
 * least one, since sums begin with the first worker's and end with the last one's. */
void fm_share_inputs(const fm_plan *plan, const fm_balance *balance);

#endif
