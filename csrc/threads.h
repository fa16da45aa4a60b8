/* A team of workers and its barrier. */
#ifndef FASTMLP_THREADS_H
#define FASTMLP_THREADS_H

#include "fetch.h"

typedef struct fm_team fm_team;
typedef void fm_work(void *context, fm_team *team, int me, int n);

#define FM_MAX_WORKERS 256

/* patience: nanoseconds that the caller waits for the others to begin, before it runs without those that have not. FM_WHENEVER:
 * no wait; late workers may join at any time, for work that is taken piece by piece, without barriers. */
#define FM_WHENEVER (-1)

/* Runs work(context, team, me, n) on n workers, the caller being worker 0, waits for all, and returns n: the number of workers
 * that could be started and began in time, from 1 to n_threads and FM_MAX_WORKERS. */
int fm_team_run(int n_threads, int64_t patience, fm_work *work, void *context);

/* From now on, wait for all workers, however long it takes. For tests, on busy machines. */
void fm_team_insist(int insist);
int fm_team_insists(void);

/* Waits until all workers of the team have arrived; prefetches `meanwhile`, if it is not null. */
void fm_barrier(fm_team *team, fm_fetch *meanwhile);

/* A counter from worker 0 to worker 1, which waits until there have been more hand-overs than take-overs. */
void fm_hand_over(fm_team *team);
void fm_take_over(fm_team *team, fm_fetch *meanwhile);

/* Takes the next of `all` pieces of work, from the returned one to *end: a part of a worker's fair share of what is left, a
 * multiple of `least`, or the rest; or none. */
int64_t fm_take(fm_team *team, int64_t all, int64_t least, int64_t *end);

/* Whether messages between the cores of workers 0 and 1 take so long that these share no cache. All workers must call it; takes
 * a few microseconds, unless it was measured just before. */
int fm_far_apart(fm_team *team, int me);

#endif
