/* Balance: how much each worker of a team is given. Cores differ, and other programs or another hyper-thread may slow one of
 * them down for seconds; where all get the same, the others then wait at every barrier. So shares move from run to run
 * towards equal times. No bit of a result depends on them. */
#ifndef FASTMLP_BALANCE_H
#define FASTMLP_BALANCE_H

#include "threads.h"

/* What is shared: the rows of a batch, and those of an op's parameters. Barriers part them, so each has shares of its own. */
enum fm_shared { FM_BATCH, FM_PARAMETERS, FM_N_SHARED };

/* All zeros: nothing is known yet. */
typedef struct fm_balance {
    int n;                                   /* workers that these are the shares of; of any other number, all are given the same */
    double share[FM_N_SHARED][FM_MAX_WORKERS]; /* of the whole: they add up to 1 */
    double given[FM_N_SHARED][FM_MAX_WORKERS]; /* the work each got in the last run, in whole rows, which shares need not be */
    double busy[FM_N_SHARED][FM_MAX_WORKERS];  /* ticks between barriers, in the last run */
} fm_balance;

/* Now, in a unit of about a nanosecond, which differs from machine to machine. */
int64_t fm_ticks(void);

/* Where the share of worker `me` begins, of so many rows; that of worker n is the end. */
int64_t fm_share_begin(const fm_balance *balance, enum fm_shared what, int64_t all, int me, int n);

/* After a run of n workers that have set `given` and `busy`: the shares of the next. */
void fm_rebalance(fm_balance *balance, int n);

#endif
