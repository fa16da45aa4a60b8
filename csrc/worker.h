/* Worker: one thread of a team that runs a plan, and its shares of rows and parameters. */
#ifndef FASTMLP_WORKER_H
#define FASTMLP_WORKER_H

#include "balance.h"
#include "fastmlp.h"
#include "threads.h"

/* One worker of a team, throughout a run. */
typedef struct fm_worker {
    const fm_plan *plan;
    const fm_op *ops;
    const uint8_t *sync, *own;
    fm_team *team;
    int barriers; /* fm_barriers */
    int me, n, first_op, last_op;
    int64_t all_rows;               /* end of the rows of the data that the run uses */
    const fm_op *fetching;          /* the op during which the next batch is prefetched; or null */
    int64_t fetch_begin, fetch_end; /* the columns to prefetch */
    const fm_balance *balance;      /* null: shares are equal */
    int shared;                     /* what is shared since the last barrier: fm_shared, or FM_N_SHARED for nothing */
    int64_t left;                   /* time of that barrier, in ticks */
    double given[FM_N_SHARED];      /* amount of work done, by what was shared */
    double busy[FM_N_SHARED + 1];   /* ticks between barriers, by what was shared */
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

/* The first of `all` rows, of the batch or of parameters, in the share of worker `me`; the next worker's first ends it. Saves
 * the division for a single worker. */
static inline int64_t share_begin(const fm_worker *w, enum fm_shared what, int64_t all, int me)
{
    return w->n == 1 ? all * me : fm_share_begin(w->balance, what, all, me, w->n);
}

/* The rows of an op's parameters that this worker updates; those of its inputs if the op is partial. */
static inline void params_of(const fm_worker *w, int i, int64_t *begin, int64_t *end)
{
    const int64_t span = w->plan->span[i], own = is_own(w, i);
    *begin = own ? 0 : share_begin(w, FM_PARAMETERS, span, w->me);
    *end = own ? span : share_begin(w, FM_PARAMETERS, span, w->me + 1);
    if (!w->ops[i].partial) return;
    *begin = w->ops[i].first_in;
    if (w->me + 1 < w->n) *end = w->ops[i + w->plan->n_ops].first_in; /* the next worker's first */
}

#endif
