/* The choice between all workers and one, see choice.h. */
#include "choice.h"

#define SOON 8.0   /* period between trials, in the work of a trial, after the choice has changed; ... */
#define LATE 256.0 /* ... doubled after each trial that changes nothing, up to this: trials then cost less than a percent */

/* The median of the latest parts: a single disturbed or lucky one has no effect. */
static double lately(const fm_choice *c, int all)
{
    const double *t = c->latest[all];
    const double low = t[0] < t[1] ? t[0] : t[1], high = t[0] < t[1] ? t[1] : t[0];
    if (c->n[all] < FM_LATEST) return c->n[all] == 1 ? t[0] : low;
    return t[2] < low ? low : t[2] > high ? high : t[2];
}

/* Which was faster; all workers until both have been tried. */
static int is_all_best(const fm_choice *c) { return !c->n[0] || !c->n[1] || lately(c, 1) <= lately(c, 0); }

int fm_choice_is_trial(const fm_choice *c) { return c->trial > 0; }

int fm_choice_is_all(const fm_choice *c) { return is_all_best(c) != fm_choice_is_trial(c); }

static void end_trial(fm_choice *c, int changed)
{
    c->period = changed || c->period == 0 ? SOON : c->period < LATE ? 2 * c->period : LATE;
    c->due = c->done + c->period * c->tried;
    c->trial = 0;
}

void fm_choice_took(fm_choice *c, double work, double ticks)
{
    const int all = fm_choice_is_all(c), best = is_all_best(c), trial = c->trial;
    c->done += work;
    if (trial) c->tried = trial == 2 ? work : c->tried + work;
    if (!c->warm || trial == 2) { /* a warm-up */
        c->trial = c->warm, c->warm = 1;
        return;
    }
    c->latest[all][c->n[all]++ % FM_LATEST] = ticks / work;
    const int changed = is_all_best(c) != best;
    if (trial || changed) end_trial(c, changed);
    else if (c->done >= c->due) c->trial = 2;
}
