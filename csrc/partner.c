/* Two threads on one row, see partner.h.
 *
 * Reading its weights is what takes a row's time, and two cores read twice as fast. But a row takes only some microseconds, of
 * which no lock, no sleeper and no list of who does what must take any: so all that passes between the two is how far each is,
 * in a cache line of its own. Each has columns of the large layers' results; the caller does the rest.
 *
 * The caller never depends on the partner: when that does not answer in time, since its core was given to somebody else, the
 * caller computes the row alone, in other buffers, and does without until the partner has been heard of. */
#include "partner.h"
#include "helpers.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CLOSE 4         /* durations of a row alone: rows with shorter pauses come quickly */
#define PATIENCE_ROWS 16     /* rows that come quickly before a partner is invited; and after a disappointment ... */
#define MOST_PATIENCE_ROWS 4096 /* ... twice as many each time, up to these; until ... */
#define SETTLED 512     /* ... so many rows were computed together */
#define TRIED 64        /* rows together, by the shortest of which it is judged whether that is faster than alone: ... */
#define FASTER 0.9      /* ... takes no more of its time than this */
#define ROW_POLLS 2000      /* for the next row, ~30 us, before the partner leaves */
#define FIRST_ROW_POLLS 40000 /* for the first: a virtual machine was seen to stop its caller for 160 us, to wake the partner's core */
#define DEADLINE_POLLS 4000   /* polls, ~60 us, by when it must have answered: its first row may come from memory */

enum presence { AWAY, INVITED, HERE };

/* One partner in the process, or two of them would take turns on the caller's second core: 1 + fm_helper_forks() of the process
 * that has it. */
static atomic_int taken;

struct fm_partner {
    const fm_plan *plan;
    fm_step step;
    int last_own;  /* op of the partner's */
    int meetings;  /* points of a row where the two synchronise: before the n-th, both have done all that comes before it */
    _Alignas(128) atomic_long caller_at; /* the number of the last meeting the caller has come to, over all rows */
    atomic_int dismissed;
    _Alignas(128) atomic_long partner_at;
    atomic_int presence;
    _Alignas(128) int invited; /* what only the caller knows: whether it has asked for a partner, and not yet seen it leave; ... */
    int forks, insists;            /* ... how many forks there had been; whether the partner is to be there in any case */
    long rows, quick, patience;    /* since it was invited, together; alone, one close behind the other; of which are enough */
    int64_t left, alone, together; /* ticks: when the last row ended, the shortest row alone and together */
};

static const fm_op *ops_of(const fm_partner *p, int me) { return p->plan->team.ops + me * p->plan->n_ops; }

static long at(const atomic_long *who) { return atomic_load_explicit(who, memory_order_acquire); }

static void run_op(const fm_partner *p, int me, int i)
{
    const fm_op *op = ops_of(p, me) + i;
    p->plan->kernels->run[op->opcode](op, &p->step, 0, 1);
}

/* ---- the partner --------------------------------------------------------------------------------------------- */

/* Waits until the caller has come to a meeting: returns 0 if it will not, or has not after so many polls (0: any number). */
static int caller_comes(const fm_partner *p, long meeting, int polls)
{
    for (int i = 0; at(&p->caller_at) < meeting; i++) {
        if (atomic_load_explicit(&p->dismissed, memory_order_relaxed) || (polls && i >= polls)) return 0;
        if (polls || i < ROW_POLLS) fm_relax();
        else sched_yield();
    }
    return 1;
}

/* Its part of a row, whose first meeting is number `meeting`; but for the wait for that. */
static int partner_row(fm_partner *p, long meeting)
{
    const fm_sharing *team = &p->plan->team;
    for (int i = 1, met = 0; i <= p->last_own; i++) {
        if (team->sync[i] && met++) {
            atomic_store_explicit(&p->partner_at, ++meeting, memory_order_release);
            if (!caller_comes(p, meeting, 0)) return 0;
        }
        if (team->own[i]) run_op(p, 1, i);
    }
    return 1;
}

static void be_partner(void *argument)
{
    fm_partner *p = argument;
    long done = at(&p->caller_at);
    atomic_store_explicit(&p->presence, HERE, memory_order_release);
    for (int polls = FIRST_ROW_POLLS; caller_comes(p, done + 1, polls) && partner_row(p, done + 1); polls = ROW_POLLS) {
        done += p->meetings;
        atomic_store_explicit(&p->partner_at, done, memory_order_release);
    }
    atomic_store_explicit(&taken, 0, memory_order_release);
    atomic_store_explicit(&p->presence, AWAY, memory_order_release); /* from now on, p may be gone */
}

/* ---- the caller ---------------------------------------------------------------------------------------------- */

static int presence_of(const fm_partner *p) { return atomic_load_explicit(&p->presence, memory_order_acquire); }

/* Waits until the partner has come to a meeting: returns 0 if it has left, or takes too long. */
static int partner_comes(const fm_partner *p, long meeting)
{
    for (int i = 0; i < DEADLINE_POLLS || p->insists; i++) {
        if (at(&p->partner_at) >= meeting) return 1;
        if (presence_of(p) != HERE) return at(&p->partner_at) >= meeting;
        if (i < DEADLINE_POLLS) fm_relax();
        else sched_yield(), i = DEADLINE_POLLS;
    }
    return 0;
}

void fm_partner_dismiss(fm_partner *p)
{
    atomic_store_explicit(&p->dismissed, 1, memory_order_release);
    p->quick = p->invited = 0;
}

/* It was no help. */
static void part_with(fm_partner *p)
{
    if (p->insists) return;
    fm_partner_dismiss(p);
    p->patience = p->patience < MOST_PATIENCE_ROWS ? 2 * p->patience : p->patience;
}

static int caller_row(fm_partner *p)
{
    const fm_sharing *team = &p->plan->team;
    long meeting = at(&p->caller_at);
    int awaited = 0; /* the partner does something before the next meeting */
    run_op(p, 0, 0);
    for (int i = 1; i < p->plan->n_ops; i++) {
        if (team->sync[i]) {
            atomic_store_explicit(&p->caller_at, ++meeting, memory_order_release);
            if (awaited && !partner_comes(p, meeting)) return 0;
            awaited = 0;
        }
        awaited |= team->own[i];
        run_op(p, 0, i);
    }
    return 1;
}

/* How long a row took that both did, or did not finish. Together they go on if that is faster than alone. */
static void judge(fm_partner *p, int64_t start, int finished)
{
    const int64_t now = fm_ticks();
    p->left = now;
    if (!finished) {
        part_with(p);
        return;
    }
    if (!p->together || now - start < p->together) p->together = now - start;
    if (++p->rows == TRIED && (double)p->together > FASTER * (double)p->alone) part_with(p);
    else if (p->rows == SETTLED) p->patience = PATIENCE_ROWS;
}

/* It has left, for want of rows. */
static void notice(fm_partner *p)
{
    if (p->invited && p->rows < TRIED) part_with(p);
    p->invited = 0;
}

enum fm_partner_did fm_partner_row(fm_partner *p)
{
    if (p->forks != fm_helper_forks()) atomic_store(&p->presence, AWAY), p->forks = fm_helper_forks();
    const int presence = presence_of(p);
    if (presence == AWAY) {
        notice(p);
        return p->quick < p->patience && !p->insists ? FM_PARTNER_NONE : FM_PARTNER_WANTED;
    }
    if (presence == INVITED || atomic_load_explicit(&p->dismissed, memory_order_relaxed)) return FM_PARTNER_NONE;
    const int64_t start = fm_ticks();
    const int finished = caller_row(p);
    judge(p, start, finished);
    return finished ? FM_PARTNER_ROW : FM_PARTNER_NONE;
}

void fm_partner_was_alone(fm_partner *p, int64_t start)
{
    const int64_t now = fm_ticks();
    if (p->quick == 0 || now - start < p->alone) p->alone = now - start;
    p->quick = start - p->left < CLOSE * p->alone ? p->quick + 1 : 0;
    p->left = now;
}

void fm_partner_invite(fm_partner *p)
{
    int before = atomic_load(&taken), presence = AWAY;
    const int mine = 1 + p->forks;
    p->quick = 0;
    if (!atomic_compare_exchange_strong(&p->presence, &presence, INVITED)) return; /* another thread has asked meanwhile */
    if (before == mine || !atomic_compare_exchange_strong(&taken, &before, mine)) {
        atomic_store(&p->presence, AWAY);
        return;
    }
    fm_helper *helper = fm_helper_take(2);
    if (!helper) {
        atomic_store(&taken, 0), atomic_store(&p->presence, AWAY);
        return;
    }
    const long caller = at(&p->caller_at), partner = at(&p->partner_at);
    atomic_store(&p->caller_at, caller > partner ? caller : partner); /* where the last row, perhaps unfinished, left them */
    atomic_store(&p->dismissed, 0);
    p->rows = 0, p->together = 0, p->invited = 1;
    fm_helper_send(helper, be_partner, p);
}

void fm_partner_insist(fm_partner *p) { p->insists = 1; }

/* ---- its life ------------------------------------------------------------------------------------------------ */

fm_partner *fm_partner_new(const fm_plan *plan)
{
    void *memory = 0;
    if (posix_memalign(&memory, _Alignof(fm_partner), sizeof(fm_partner))) return 0;
    fm_partner *p = memset(memory, 0, sizeof(fm_partner));
    p->plan = plan, p->patience = PATIENCE_ROWS, p->forks = fm_helper_forks();
    p->step = (fm_step){.rows = 1, .inverse_weight = 1, .n_workers = 2};
    for (int i = 1; i < plan->n_ops; i++) {
        p->meetings += plan->team.sync[i];
        if (plan->team.own[i]) p->last_own = i;
    }
    return p;
}

void fm_partner_free(fm_partner *p)
{
    if (!p) return;
    fm_partner_dismiss(p);
    while (p->forks == fm_helper_forks() && presence_of(p) != AWAY) sched_yield();
    free(p);
}
