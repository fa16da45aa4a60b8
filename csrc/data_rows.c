/* Addresses of the rows of the data, see data_rows.h. */
#include "data_rows.h"

void fm_find_rows(const fm_op *gather, const fm_step *step, int64_t first, const void **at)
{
    for (int64_t r = first; r < step->rows; r++)
        at[r] = gather->data + fm_data_row(step, r) * gather->data_row;
    const void *const last = step->rows > 0 ? at[step->rows - 1] : 0;
    for (int r = 0; r < FM_ROWS_AHEAD; r++) at[step->rows + r] = last;
}

void fm_find_next(const fm_worker *w, fm_step *step, int64_t mine, int64_t begin, int64_t end, int64_t my_end)
{
    const fm_op *gather = w->ops;
    const int64_t first = step->first + (end < my_end ? end : step->rows + mine), left = w->all_rows - first;
    const int64_t most = end < my_end && my_end - end < end - begin ? my_end - end : end - begin, rows = left < most ? left : most;
    const int64_t bytes = gather->n_in * gather->data_column;
    const int close = gather->data_row >= bytes && gather->data_row <= 2 * bytes;
    step->next = gather->data + first * gather->data_row;
    step->next_bytes = close && rows > 0 ? (rows - 1) * gather->data_row + bytes : 0;
}

#define FETCHED_LEAST 256 /* bytes of a row: smaller ones are in the cache anyway */
#define FETCHED_APART 8   /* bytes from one column to the next, at most: else a row is many cache lines with few numbers each */

void fm_find_fetching(fm_worker *w)
{
    for (int i = 0; i < w->plan->n_ops; i++) {
        const fm_op *op = &w->ops[i];
        if (!splits_params(op) || !op->data || op->data_column > FETCHED_APART) continue;
        int64_t begin = 0, end = op->n_in;
        if (op->partial) params_of(w, i, &begin, &end); /* only its own inputs, but of all rows */
        if (end > op->n_in) end = op->n_in;
        if ((end - begin) * op->data_column < FETCHED_LEAST) continue;
        w->fetching = op, w->fetch_begin = begin, w->fetch_end = end;
    }
}

fm_fetch fm_fetch_behind(const fm_worker *w, const fm_run_args *args, int64_t s)
{
    const fm_op *op = w->fetching;
    if (s + 1 >= args->n_steps) return (fm_fetch){0};
    const int64_t rows = args->offsets[s + 2] - args->offsets[s + 1];
    const int64_t begin = op->partial ? 0 : share_begin(w, FM_BATCH, rows, w->me);
    const int64_t end = op->partial ? rows : share_begin(w, FM_BATCH, rows, w->me + 1);
    const int64_t *row = args->order + args->offsets[s + 1];
    fm_fetch f = {
        .data = op->data + w->fetch_begin * op->data_column, .data_row = op->data_row,
        .bytes = (w->fetch_end - w->fetch_begin) * op->data_column, .row = row + begin, .last = row + end,
    };
    fm_fetch_row(&f);
    return f;
}
