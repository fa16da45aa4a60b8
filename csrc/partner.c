/* Prediction of one row by two threads, see partner.h.
 *
 * Most of a row's time is spent reading weights, which two cores do twice as fast. But a row takes only some microseconds, too
 * few for locks, wake-ups or work queues: so the two exchange nothing but how far each is, in a cache line of its own. Each
 * computes some columns of the large layers' results; the caller does the rest.
 *
 * The caller never depends on the partner: if that does not answer in time, because its core runs another process, the caller
 * computes the row alone, in other buffers, and works alone until it has a partner again. */
#include "partner.h"
#include "float_state.h"
#include "helpers.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CLOSE 4               /* durations of a row alone: after a shorter pause, a row counts as quick */
#define PATIENCE_ROWS 16      /* quick rows before a partner is invited; after one that did not pay ... */
#define MOST_PATIENCE_ROWS 4096 /* ... twice as many, up to this number; until ... */
#define SETTLED 512           /* ... this many rows were computed together */
#define TRIED 64              /* rows together, whose shortest time is compared with a row alone: ... */
#define FASTER 0.9            /* ... it may take at most this fraction of that */
#define ROW_POLLS 2000        /* for the next row, ~30 us, before the partner leaves */
#define FIRST_ROW_POLLS 40000 /* for the first: a virtual machine stopped the caller for 160 us to wake the partner's core */
#define DEADLINE_POLLS 4000   /* ~60 us, in which it must answer: its first weights may come from memory */

enum presence { AWAY, INVITED, HERE };

/* 1 + fm_helper_forks() of the process that has a partner, or 0. At most one: two would take turns on the caller's second
 * core. */
static atomic_int taken;

struct fm_partner {
    const fm_plan *plan;
    fm_step step;
    int last_own;  /* last op that is the partner's own */
    int meetings;  /* number of points in a row where the two synchronise */
    _Alignas(128) atomic_long caller_at; /* number of the last meeting that the caller has reached, over all rows */
    atomic_int dismissed;
    _Alignas(128) atomic_long partner_at;
    atomic_int presence;
    _Alignas(128) int invited; /* the caller's alone: whether it has invited a partner and not yet seen it leave; ... */
    int forks, insists;            /* ... number of forks before; whether to keep the partner in any case */
    long rows, quick, patience;    /* rows together since the invitation; successive quick rows alone; how many to wait for */
    int64_t left, alone, together; /* ticks: end of the last row; shortest row alone and together */
};

static const fm_op *ops_of(const fm_partner *p, int me) { return p->plan->team.ops + me * p->plan->n_ops; }

static long at(const atomic_long *who) { return atomic_load_explicit(who, memory_order_acquire); }

static void run_op(const fm_partner *p, int me, int i)
{
    const fm_op *op = ops_of(p, me) + i;
    p->plan->kernels->run[op->opcode](op, &p->step, 0, 1);
}

/* ---- the partner --------------------------------------------------------------------------------------------- */

/* Waits until the caller reaches a meeting; returns 0 if dismissed, or after `polls` polls (0: no limit). */
static int caller_comes(const fm_partner *p, long meeting, int polls)
{
    for (int i = 0; at(&p->caller_at) < meeting; i++) {
        if (atomic_load_explicit(&p->dismissed, memory_order_relaxed) || (polls && i >= polls)) return 0;
        if (polls || i < ROW_POLLS) fm_relax();
        else sched_yield();
    }
    return 1;
}

/* The partner's part of a row, after its first meeting, number `meeting`. */
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
    atomic_store_explicit(&p->presence, AWAY, memory_order_release); /* from here on, p may be freed */
}

/* ---- the caller ---------------------------------------------------------------------------------------------- */

static int presence_of(const fm_partner *p) { return atomic_load_explicit(&p->presence, memory_order_acquire); }

/* Waits until the partner reaches a meeting; returns 0 if it has left or takes too long. */
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

/* Dismisses a partner that did not pay. */
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
    int awaited = 0; /* the partner has work before the next meeting */
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

/* After a row together, finished or not: keeps the partner only if rows are faster with it. */
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

/* Notices that the partner has left, for lack of rows. */
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
    const fm_float_state before = fm_float_state_begin();
    const int finished = caller_row(p);
    fm_float_state_end(before);
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
    if (!atomic_compare_exchange_strong(&p->presence, &presence, INVITED)) return; /* another thread has invited it */
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

/* ---- creation and destruction -------------------------------------------------------------------------------- */

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
