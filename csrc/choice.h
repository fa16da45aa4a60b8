/* Choice: all workers, or one alone where that is faster. How fast two cores exchange their results was seen to change fivefold
 * within minutes on a shared machine; and where something else keeps one of them busy, a team waits for it at every barrier. So
 * the other choice is tried now and then, on a short part of a run. No bit of a result depends on it. */
#ifndef FASTMLP_CHOICE_H
#define FASTMLP_CHOICE_H

#include <stdint.h>

#define FM_LATEST 3 /* parts by which a choice is judged */

/* All zeros: nothing is known yet. */
typedef struct fm_choice {
    int warm;                    /* the very first part, which does not count, is behind */
    int trial;                   /* parts left of a trial: one to warm up, one that counts */
    double done, due;            /* work so far; and when there is to be another trial */
    double tried, period;        /* work of the last trial; of how many such the next period is */
    int64_t n[2];                /* parts that were measured, of one worker and of all */
    double latest[2][FM_LATEST]; /* ticks for a unit of work */
} fm_choice;

/* Whether the next part is for all workers; and whether it is of a trial, to be kept short. */
int fm_choice_is_all(const fm_choice *choice);
int fm_choice_is_trial(const fm_choice *choice);

/* Records that a part of the run, of so much work, took so many ticks. */
void fm_choice_took(fm_choice *choice, double work, double ticks);

#endif
