/* A team of workers and its barrier, see threads.h. */
#include "threads.h"
#include "helpers.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#define FEW_WORKERS 4         /* at most this many can poll the phase in the waiting counter's line without slowing arrivals */
#define PARTS 2               /* of a fair share of what is left: late or slow workers take fewer */
#define TRIPS 8               /* round trips of the token that are timed together */
#define FAR_APART 150e-9      /* seconds a trip: 50 ns were seen within a core complex, 300 between two */
#define ANSWER_POLLS 20000    /* for the token, ~10 us, before the other worker is assumed not to be running */
#define POLLS_PER_CLOCK_READ 16 /* ~0.2 us */
#define KNOWN 0.02            /* seconds for which a measurement is valid: short runs need not repeat it */

struct fm_team {
    fm_work *work;
    void *context;
    int n;
    _Alignas(128) atomic_int waiting;
    atomic_uint phase_beside; /* in that line, which the last to arrive then owns; or in a line of its own */
    _Alignas(128) atomic_uint phase_apart;
    _Alignas(128) atomic_uint *phase;
    atomic_int sleepers;
    pthread_mutex_t lock;
    pthread_cond_t woken;
    _Alignas(128) atomic_long handed; /* number of hand-overs, by worker 0 */
    _Alignas(128) long handing;       /* the same, worker 0's copy */
    _Alignas(128) long taken;         /* number of take-overs, worker 1's */
    _Alignas(128) atomic_long begun;  /* number of pieces of work taken */
    _Alignas(128) atomic_int token;   /* passed back and forth by two workers to measure latency */
    _Alignas(128) atomic_int far_apart;
    int known; /* far_apart was measured recently enough for this run */
    _Alignas(128) atomic_int open; /* set once the team's members are known */
};

struct seat {
    fm_team *team;
    int me;
};

/* One step of waiting, used to prefetch if anything is left. Returns whether it was idle. */
static inline int pass(fm_fetch *meanwhile)
{
    const int busy = meanwhile && meanwhile->row != meanwhile->last;
    busy ? fm_fetch_some(meanwhile, 1) : fm_relax();
    return !busy;
}

static void wait_for_phase(fm_team *team, unsigned old, fm_fetch *meanwhile)
{
    for (int i = 0; i < FM_SPINS; i += pass(meanwhile))
        if (atomic_load_explicit(team->phase, memory_order_acquire) != old) return;
    for (int i = 0; i < FM_YIELDS; i++, sched_yield())
        if (atomic_load_explicit(team->phase, memory_order_acquire) != old) return;
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(&team->sleepers, 1);
    while (atomic_load(team->phase) == old) pthread_cond_wait(&team->woken, &team->lock);
    atomic_fetch_sub(&team->sleepers, 1);
    pthread_mutex_unlock(&team->lock);
}

void fm_barrier(fm_team *team, fm_fetch *meanwhile)
{
    if (team->n == 1) return;
    const unsigned phase = atomic_load_explicit(team->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->waiting, 1, memory_order_acq_rel) + 1 < team->n) {
        wait_for_phase(team, phase, meanwhile);
        return;
    }
    atomic_store_explicit(&team->waiting, 0, memory_order_relaxed);
    atomic_fetch_add(team->phase, 1); /* not a plain store: QEMU lets the load below overtake one, and a wake-up is lost */
    if (atomic_load(&team->sleepers)) {
        pthread_mutex_lock(&team->lock);
        pthread_cond_broadcast(&team->woken);
        pthread_mutex_unlock(&team->lock);
    }
}

/* A plain store need not wait for the cache line that the other worker polls. */
void fm_hand_over(fm_team *team) { atomic_store_explicit(&team->handed, ++team->handing, memory_order_release); }

/* Without sleeping: worker 0 is computing the same rows. */
void fm_take_over(fm_team *team, fm_fetch *meanwhile)
{
    for (int i = 0; atomic_load_explicit(&team->handed, memory_order_acquire) <= team->taken;)
        if (i < FM_SPINS) i += pass(meanwhile);
        else sched_yield();
    team->taken++;
}

int64_t fm_take(fm_team *team, int64_t all, int64_t least, int64_t *end)
{
    long begin = atomic_load(&team->begun);
    do {
        const int64_t part = (all - begin) / (PARTS * team->n) / least * least, some = part > least ? part : least;
        *end = all - begin < some ? all : begin + some;
    } while (!atomic_compare_exchange_weak(&team->begun, &begin, *end));
    return begin;
}

static int answered(fm_team *team, int token)
{
    for (int i = 0; i < ANSWER_POLLS; i++)
        if (atomic_load_explicit(&team->token, memory_order_acquire) == token) return 1;
    return 0;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds that the trips took; 1 if there was no answer. */
static double ping_pong(fm_team *team, int token, int trips)
{
    const double start = seconds();
    for (int i = 0; i < trips; i++, token += 2) {
        atomic_store_explicit(&team->token, token + 1, memory_order_release);
        if (!answered(team, token + 2)) return 1;
    }
    return seconds() - start;
}

/* The last measurement and its time, by any team: the virtual processors are most likely the same. */
static atomic_int last_far_apart;
static atomic_llong last_measured; /* nanoseconds */

static void recall(fm_team *team)
{
    const double age = seconds() - 1e-9 * (double)atomic_load_explicit(&last_measured, memory_order_acquire);
    team->known = age >= 0 && age < KNOWN;
    if (team->known) atomic_store_explicit(&team->far_apart, atomic_load(&last_far_apart), memory_order_relaxed);
}

static void remember(fm_team *team, int far_apart)
{
    atomic_store(&team->far_apart, far_apart);
    atomic_store(&last_far_apart, far_apart);
    atomic_store_explicit(&last_measured, (long long)(1e9 * seconds()), memory_order_release);
}

int fm_far_apart(fm_team *team, int me)
{
    if (team->n == 1) return 0;
    if (team->known) return atomic_load(&team->far_apart);
    fm_barrier(team, 0);
    if (me == 0) { /* the best of three: the first trips are slower, and disturbances only lengthen others */
        double best = ping_pong(team, 0, TRIPS);
        for (int i = 1; i < 3 && best < 1; i++) {
            const double again = ping_pong(team, 2 * TRIPS * i, TRIPS);
            best = again < best ? again : best;
        }
        remember(team, best < 1 && best > FAR_APART * TRIPS);
    } else if (me == 1)
        for (int i = 0; i < 3 * TRIPS && answered(team, 2 * i + 1); i++)
            atomic_store_explicit(&team->token, 2 * i + 2, memory_order_release);
    fm_barrier(team, 0);
    return atomic_load(&team->far_apart);
}

/* ---- forming the team ---------------------------------------------------------------------------------------- */

static atomic_int insists;

void fm_team_insist(int insist) { atomic_store(&insists, insist); }

int fm_team_insists(void) { return atomic_load(&insists); }

static void take_seat(void *argument)
{
    const struct seat *seat = argument;
    fm_team *team = seat->team;
    for (int i = 0; !atomic_load_explicit(&team->open, memory_order_acquire); i++)
        if (i < FM_SPINS) fm_relax();
        else sched_yield();
    team->work(team->context, team, seat->me, team->n);
}

/* Waits at most `patience` ns for the helpers: a core that runs another process is back only in milliseconds. */
static void wait_for_begin(fm_helper *const *helpers, int n, int64_t patience)
{
    const double end = seconds() + 1e-9 * (double)patience;
    for (int i = 1, polls = 1; i < n; polls++) {
        if (fm_helper_has_begun(helpers[i])) i++;
        else if (polls % FM_SPINS == 0) sched_yield(); /* for a helper that shares this core */
        else if (polls % POLLS_PER_CLOCK_READ == 0 && !fm_team_insists() && seconds() > end) return;
        else fm_relax();
    }
}

/* Withdraws the helpers that have not begun, and renumbers the others. */
static void close_ranks(fm_team *team, fm_helper **helpers, struct seat *seats)
{
    const int called = team->n;
    team->n = 1;
    for (int i = 1; i < called; i++) {
        if (fm_helper_withdraw(helpers[i])) continue;
        seats[i].me = team->n;
        helpers[team->n++] = helpers[i];
    }
}

int fm_team_run(int n_threads, int64_t patience, fm_work *work, void *context)
{
    fm_team team = {.work = work, .context = context, .n = 1};
    const int whenever = patience == FM_WHENEVER && !fm_team_insists();
    team.phase = n_threads <= FEW_WORKERS ? &team.phase_beside : &team.phase_apart;
    if (n_threads <= 1) {
        work(context, &team, 0, 1);
        return 1;
    }
    struct seat seats[FM_MAX_WORKERS];
    fm_helper *helpers[FM_MAX_WORKERS];

    if (n_threads > FM_MAX_WORKERS) n_threads = FM_MAX_WORKERS;
    while (team.n < n_threads && (helpers[team.n] = fm_helper_take(n_threads))) team.n++;
    pthread_mutex_init(&team.lock, 0);
    pthread_cond_init(&team.woken, 0);
    recall(&team);
    atomic_init(&team.open, whenever);
    for (int i = 1; i < team.n; i++) {
        seats[i] = (struct seat){&team, i};
        fm_helper_call(helpers[i], take_seat, &seats[i]);
    }
    if (!whenever) {
        wait_for_begin(helpers, team.n, patience);
        close_ranks(&team, helpers, seats);
        atomic_store_explicit(&team.open, 1, memory_order_release);
    }
    work(context, &team, 0, team.n);
    for (int i = 1; i < team.n; i++)
        if (!fm_helper_withdraw(helpers[i])) fm_helper_release(helpers[i]);
    pthread_cond_destroy(&team.woken);
    pthread_mutex_destroy(&team.lock);
    return team.n;
}
