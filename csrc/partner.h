/* Two threads on one row: the caller, and a partner that stays as long as rows come quickly. */
#ifndef FASTMLP_PARTNER_H
#define FASTMLP_PARTNER_H

#include "fastmlp.h"

typedef struct fm_partner fm_partner;

enum fm_partner_did {
    FM_PARTNER_ROW,  /* the row, together */
    FM_PARTNER_NONE, /* nothing: the caller is to compute the row alone, in other buffers */
    FM_PARTNER_WANTED /* nothing; but fm_partner_invite would be worth while, if another thread may be used */
};

/* For a plan for one row and a team of two, which reads no row in place; null where there is no memory. Both outlive the
 * partner. */
fm_partner *fm_partner_new(const fm_plan *plan);

/* The row that the plan's first op gathers, if the partner is there and does its part in time; else nothing, soon. */
enum fm_partner_did fm_partner_row(fm_partner *partner);

/* Tells how long the caller took for a row alone, after FM_PARTNER_NONE or FM_PARTNER_WANTED: from `start` until now, in ticks. */
void fm_partner_was_alone(fm_partner *partner, int64_t start);

/* Asks a helper to be the partner from now on. */
void fm_partner_invite(fm_partner *partner);

/* From now on: however rarely rows come, however late the partner is, and even if it is slower. For tests, on busy machines. */
void fm_partner_insist(fm_partner *partner);

/* Sends the partner away, as soon as it has done what it is at. */
void fm_partner_dismiss(fm_partner *partner);

/* The same; waits until it touches nothing any more, and frees. */
void fm_partner_free(fm_partner *partner);

#endif
