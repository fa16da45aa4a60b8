/* Choice: all workers, or one where that is faster. The time in which two cores exchange results was seen to change fivefold
 * within minutes on a shared machine; and if another process keeps one of them busy, a team waits for it at every barrier. So
 * the other choice is tried now and then, on a short part of a run. The results do not depend on it. */
#ifndef FASTMLP_CHOICE_H
#define FASTMLP_CHOICE_H

#include <stdint.h>

#define FM_LATEST 3 /* number of latest parts by which a choice is judged */

/* All zeros before the first run. */
typedef struct fm_choice {
    int warm;                    /* the very first part, which does not count, is done */
    int trial;                   /* remaining parts of a trial: one to warm up, one that counts */
    double done, due;            /* work so far, and at the start of the next trial */
    double tried, period;        /* work of the last trial; length of the period after it, in such trials */
    int64_t n[2];                /* number of parts measured, with one worker and with all */
    double latest[2][FM_LATEST]; /* ticks per unit of work */
} fm_choice;

/* Whether the next part is for all workers; and whether it belongs to a trial, and should be short. */
int fm_choice_is_all(const fm_choice *choice);
int fm_choice_is_trial(const fm_choice *choice);

/* Records the ticks that a part of the run with this work took. */
void fm_choice_took(fm_choice *choice, double work, double ticks);

#endif
