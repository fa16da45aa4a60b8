/* Prediction of one row by two threads: the caller, and a partner that stays while rows follow one another quickly. */
#ifndef FASTMLP_PARTNER_H
#define FASTMLP_PARTNER_H

#include "fastmlp.h"

typedef struct fm_partner fm_partner;

enum fm_partner_did {
    FM_PARTNER_ROW,  /* both computed the row */
    FM_PARTNER_NONE, /* nothing: the caller must compute the row alone, in other buffers */
    FM_PARTNER_WANTED /* nothing; but fm_partner_invite would pay, if another thread may be used */
};

/* For a plan for one row and a team of two that reads no row in place. Null if memory is exhausted. The plan and its buffers must
 * outlive the partner. */
fm_partner *fm_partner_new(const fm_plan *plan);

/* Computes the row that the plan's first op gathers, if the partner is present and does its part in time. */
enum fm_partner_did fm_partner_row(fm_partner *partner);

/* Records that the caller, after FM_PARTNER_NONE or FM_PARTNER_WANTED, computed a row alone from `start`, in ticks, until now. */
void fm_partner_was_alone(fm_partner *partner, int64_t start);

/* Has a helper become the partner. */
void fm_partner_invite(fm_partner *partner);

/* Keeps a partner from now on, however rare rows are, and however late or slow it is. For tests, on busy machines. */
void fm_partner_insist(fm_partner *partner);

/* Ends the partner's work, at its next wait for the caller. */
void fm_partner_dismiss(fm_partner *partner);

/* The same; then waits until the partner uses its memory no more, and frees it. */
void fm_partner_free(fm_partner *partner);

#endif
