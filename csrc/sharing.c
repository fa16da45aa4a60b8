/* Sharing, see sharing.h. */
#include "sharing.h"

const fm_sharing *fm_sharing_of(const fm_plan *plan, const fm_run_args *args, int n)
{
    return n == plan->n_workers && args->first_op == 0 ? &plan->team : &plan->any;
}

/* Sets the inputs of `op`, a part of `whole`, to begin .. end - 1. */
static void give_inputs(fm_op *op, const fm_op *whole, int64_t begin, int64_t end, int real_bytes)
{
    const int64_t weights = op->opcode == FM_gather ? begin : begin * whole->w.ld; /* a gather's are shift and scale */
    op->first_in = begin;
    if (op->opcode == FM_linear_update) return; /* its parameters follow from first_in */
    op->n_in = end - begin, op->x.p = (char *)whole->x.p + begin * real_bytes;
    if (whole->w.p) op->w.p = (char *)whole->w.p + weights * real_bytes;
}

void fm_share_inputs(const fm_plan *plan, const fm_balance *balance)
{
    for (int i = 0; i < plan->n_ops; i++) {
        const fm_op *whole = &plan->any.ops[i];
        if (!plan->team.ops[i].partial) continue;
        for (int64_t me = 0, begin = 0, end; me < plan->n_workers; me++, begin = end) {
            const int64_t most = whole->n_in - (plan->n_workers - me - 1);
            end = fm_share_begin(balance, FM_PARAMETERS, whole->n_in + 1, (int)me + 1, plan->n_workers);
            end = end > most ? most : end > begin ? end : begin + 1;
            give_inputs(&plan->team.ops[me * plan->n_ops + i], whole, begin, end, plan->kernels->real_bytes);
        }
    }
}
