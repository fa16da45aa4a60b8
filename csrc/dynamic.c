/* Dynamic scheduling of the rows of a prediction. */
#include "dynamic.h"

#include "data_rows.h"
#include "plan.h"
#include "sharing.h"

/* Only if all that remains of a row is what a scatter has written: then the division of rows into steps does not matter. */
int fm_is_dynamic(const fm_plan *plan, const fm_run_args *args, int n)
{
    const fm_sharing *sharing = fm_sharing_of(plan, args, n);
    if (n == 1 || sharing->barriers != FM_BARRIERS_NONE || !fm_is_whole(plan, args) || args->order || plan->capacity < n) return 0;
    for (int i = 0; i < plan->n_ops; i++) {
        const int opcode = sharing->ops[i].opcode; /* no dropout: a mask depends on a row's place in the batch */
        if (opcode != FM_gather && opcode != FM_linear && opcode != FM_activate && opcode != FM_scatter) return 0;
    }
    return sharing->ops[plan->n_ops - 1].opcode == FM_scatter;
}

#define LEAST_ROWS 48          /* with fewer, the weights are read too often */
#define NEAR_BYTES (512 << 10) /* bytes of weights that stay in a core's cache; for larger ones the least is a block */

/* The least number of rows that a worker takes: its fair share divided evenly, in whole tiles. */
static int64_t least_rows(const fm_worker *w, int64_t all)
{
    const fm_plan *plan = w->plan;
    int64_t least = LEAST_ROWS;
    for (int i = 0; i < plan->n_ops; i++) {
        const fm_op *op = &w->ops[i];
        if (op->opcode == FM_linear && op->n_in * op->w.ld * plan->kernels->real_bytes > NEAR_BYTES) least = plan->row_block;
    }
    const int64_t fair = fm_parts_of(all, w->n), parts = fair > least ? fair / least : 1, tile = plan->kernels->tile_rows;
    return fm_parts_of(fm_parts_of(fair, parts), tile) * tile;
}

void fm_run_dynamic(const fm_worker *w, fm_step *step, int64_t first, const void **at)
{
    const fm_plan *plan = w->plan;
    const int64_t home = plan->capacity * w->me / w->n, room = plan->capacity * (w->me + 1) / w->n - home;
    const int64_t block = room < plan->row_block ? room : plan->row_block, all = w->all_rows - first, least = least_rows(w, all);
    for (int64_t begin, end; (begin = fm_take(w->team, all, least, &end)) < end;)
        for (int64_t r = begin, rows; r < end; r += rows) {
            rows = fm_parts_of(end - r, fm_parts_of(end - r, block));
            step->first = first + r - home, step->rows = home + rows;
            if (at) {
                fm_find_rows(w->ops, step, home, at);
                step->at = at;
                fm_find_next(w, step, (w->n - 1) * (end - begin), home, home + rows, home + end - r); /* others take as many */
            }
            for (int i = 0; i < plan->n_ops; i++)
                plan->kernels->run[w->ops[i].opcode](&w->ops[i], step, home, home + rows);
        }
}
