/* Ahead: where the rows of data lie that a step reads, and those that will be read next. */
#ifndef FASTMLP_DATA_ROWS_H
#define FASTMLP_DATA_ROWS_H

#include "worker.h"

/* Where the batch's rows of X lie, from row `first` on: at[rows + FM_ROWS_AHEAD]. The first op is their gather, which has then
 * nothing to do. */
void fm_find_rows(const fm_op *gather, const fm_step *step, int64_t first, const void **at);

/* Finds what of the data is read behind rows begin .. end - 1 of the batch, of which this worker has mine .. my_end - 1; where
 * rows are read in place and in order, and lie close to one another. */
void fm_find_next(const fm_worker *w, fm_step *step, int64_t mine, int64_t begin, int64_t end, int64_t my_end);

/* Finds the op that reads the batch last, and what this worker is to fetch of the next batch meanwhile. */
void fm_find_fetching(fm_worker *w);

/* This worker's share of the batch behind step s. */
fm_fetch fm_fetch_behind(const fm_worker *w, const fm_run_args *args, int64_t s);

#endif
