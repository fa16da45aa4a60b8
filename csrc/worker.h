/* Worker: one thread of a team at work on a plan, and which rows and parameters are its share. */
#ifndef FASTMLP_WORKER_H
#define FASTMLP_WORKER_H

#include "balance.h"
#include "fastmlp.h"
#include "threads.h"

/* What one worker of a team does in every step. */
typedef struct fm_worker {
    const fm_plan *plan;
    const fm_op *ops;
    const uint8_t *sync, *own;
    fm_team *team;
    int barriers; /* fm_barriers */
    int me, n, first_op, last_op;
    int64_t all_rows;               /* of the data, that the run goes through */
    const fm_op *fetching;          /* the op whose x the next batch will be; or null */
    int64_t fetch_begin, fetch_end; /* which columns of that */
    const fm_balance *balance;      /* of the shares; null: they are equal */
    int shared;                     /* what was shared since the last barrier: fm_shared, or FM_N_SHARED for nothing */
    int64_t left;                   /* that barrier, in ticks */
    double given[FM_N_SHARED];      /* how much of it, in a unit of its own */
    double busy[FM_N_SHARED + 1];   /* ticks from barrier to barrier, by what was shared */
} fm_worker;

static inline int splits_params(const fm_op *op)
{
    static const uint8_t split[FM_N_OPCODES] = {
#define X(name, split) [FM_##name] = FM_##split,
        FM_OPCODES(X)
#undef X
    };
    return split[op->opcode] == FM_PARAMS;
}

static inline int is_own(const fm_worker *w, int i) { return w->own && w->own[i]; }

/* Where a worker's share of so many rows begins, of the batch or of parameters; the next worker's beginning ends it. One
 * worker is spared the division. */
static inline int64_t share_begin(const fm_worker *w, enum fm_shared what, int64_t all, int me)
{
    return w->n == 1 ? all * me : fm_share_begin(w->balance, what, all, me, w->n);
}

/* The rows of an op's parameters that this worker moves: those of its inputs, where it has some of these. */
static inline void params_of(const fm_worker *w, int i, int64_t *begin, int64_t *end)
{
    const int64_t span = w->plan->span[i], own = is_own(w, i);
    *begin = own ? 0 : share_begin(w, FM_PARAMETERS, span, w->me);
    *end = own ? span : share_begin(w, FM_PARAMETERS, span, w->me + 1);
    if (!w->ops[i].partial) return;
    *begin = w->ops[i].first_in;
    if (w->me + 1 < w->n) *end = w->ops[i + w->plan->n_ops].first_in; /* where the next worker's begin */
}

#endif
