/* Balance: each worker's share of the work. Cores differ, and other programs or another hyper-thread may slow one down for
 * seconds; with equal shares the others then wait at every barrier. So shares are adjusted from run to run towards equal
 * times. The results do not depend on them. */
#ifndef FASTMLP_BALANCE_H
#define FASTMLP_BALANCE_H

#include "threads.h"

/* What is shared: the rows of a batch, and those of an op's parameters. They are separated by barriers: each has its shares. */
enum fm_shared { FM_BATCH, FM_PARAMETERS, FM_N_SHARED };

/* All zeros before the first run. */
typedef struct fm_balance {
    int n;                                   /* number of workers that the shares are for; any other number gets equal shares */
    double share[FM_N_SHARED][FM_MAX_WORKERS]; /* fractions: they add up to 1 */
    double given[FM_N_SHARED][FM_MAX_WORKERS]; /* the work each had in the last run, in whole rows, unlike shares */
    double busy[FM_N_SHARED][FM_MAX_WORKERS];  /* ticks between barriers, in the last run */
} fm_balance;

/* The time, in ticks whose length depends on the machine. */
int64_t fm_ticks(void);

/* The first of `all` rows in the share of worker `me`; `all` for worker n. */
int64_t fm_share_begin(const fm_balance *balance, enum fm_shared what, int64_t all, int me, int n);

/* Adjusts the shares after a run of n workers that have set `given` and `busy`. */
void fm_rebalance(fm_balance *balance, int n);

#endif
