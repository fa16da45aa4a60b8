/* Addresses of the rows of the data: those that a step reads, and those to prefetch. */
#ifndef FASTMLP_DATA_ROWS_H
#define FASTMLP_DATA_ROWS_H

#include "worker.h"

/* Writes the addresses of the batch's rows of X, from row `first` on, to at[rows + FM_ROWS_AHEAD]. Their gather, the first op,
 * then copies nothing. */
void fm_find_rows(const fm_op *gather, const fm_step *step, int64_t first, const void **at);

/* Sets step->next, the part of the data read after rows begin .. end - 1 of the batch, of which this worker has rows
 * mine .. my_end - 1. For rows that are read in place and in order; next_bytes is 0 if they are far apart. */
void fm_find_next(const fm_worker *w, fm_step *step, int64_t mine, int64_t begin, int64_t end, int64_t my_end);

/* Finds the op that reads the batch last, during which this worker prefetches its columns of the next batch. */
void fm_find_fetching(fm_worker *w);

/* This worker's share of the batch of step s + 1. */
fm_fetch fm_fetch_behind(const fm_worker *w, const fm_run_args *args, int64_t s);

#endif
