/* Dynamic scheduling (OpenMP calls it guided): workers take rows of a prediction as they come, large pieces first. So whoever
 * starts late, or shares its core with somebody else, takes fewer. */
#ifndef FASTMLP_DYNAMIC_H
#define FASTMLP_DYNAMIC_H

#include "worker.h"

/* Whether the rows of this run can be taken so, by n workers. */
int fm_is_dynamic(const fm_plan *plan, const fm_run_args *args, int n);

/* One worker's part of the run, in buffer rows that are its own; data are read from row `first` on. at: room to say where rows
 * of the data lie, to be read in place; or null: they are gathered. */
void fm_run_dynamic(const fm_worker *w, fm_step *step, int64_t first, const void **at);

#endif
