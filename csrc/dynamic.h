/* Dynamic scheduling (OpenMP's guided): each worker repeatedly takes the next rows of a prediction, large pieces first. So a
 * worker that starts late, or shares its core with another process, takes fewer. */
#ifndef FASTMLP_DYNAMIC_H
#define FASTMLP_DYNAMIC_H

#include "worker.h"

/* Whether the rows of this run can be scheduled dynamically over n workers. */
int fm_is_dynamic(const fm_plan *plan, const fm_run_args *args, int n);

/* One worker's part of the run, in its own buffer rows; data are read from row `first` on. at: scratch for the addresses of rows
 * that are read in place; null: rows are gathered. */
void fm_run_dynamic(const fm_worker *w, fm_step *step, int64_t first, const void **at);

#endif
