/* A team of workers and its barrier. */
#ifndef FASTMLP_THREADS_H
#define FASTMLP_THREADS_H

#include "fetch.h"

typedef struct fm_team fm_team;
typedef void fm_work(void *context, fm_team *team, int me, int n);

#define FM_MAX_WORKERS 256

/* How long the caller waits for the others to begin, in nanoseconds, before it does without those that have not. FM_WHENEVER:
 * not at all; late workers may join at any time, which is for work that is taken piece by piece, without barriers. */
#define FM_WHENEVER (-1)

/* Run work(context, team, me, n) on n workers, the caller being worker 0, and wait for all. n is at most n_threads and
 * FM_MAX_WORKERS, at least 1; and returned. It is for how many of them could be started and began in time. */
int fm_team_run(int n_threads, int64_t patience, fm_work *work, void *context);

/* From now on: wait for everybody, however long it takes. For tests, on busy machines. */
void fm_team_insist(int insist);
int fm_team_insists(void);

/* Wait until all workers of the team have come here. Meanwhile the next batch is fetched, if that is not null. */
void fm_barrier(fm_team *team, fm_fetch *meanwhile);

/* From worker 0 to worker 1, who waits until it has been handed over once more than it has taken over. */
void fm_hand_over(fm_team *team);
void fm_take_over(fm_team *team, fm_fetch *meanwhile);

/* The next of `all` pieces of work that nobody has taken: from what is returned to *end, a part of a worker's fair share of what is
 * left, a multiple of `least` or the rest; or nothing. */
int64_t fm_take(fm_team *team, int64_t all, int64_t least, int64_t *end);

/* Whether a message takes long from worker 0's core to worker 1's and back: they share no cache. For all workers to call at
 * the same time; takes a few microseconds, unless it was measured just before. */
int fm_far_apart(fm_team *team, int me);

#endif
