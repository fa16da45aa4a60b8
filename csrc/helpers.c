/* Threads that wait for work, see helpers.h.
 *
 * Starting and joining a thread takes 50 to 300 us; waking a sleeping one, 10; one that is polling for work begins at once.
 * So a helper that has done its work polls for more for a while, and then sleeps until it is called. Before a fork, helpers
 * in the pool are ended. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* before any header: affinity is not in POSIX */
#endif
#include "helpers.h"
#include "float_state.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#define STACK_BYTES (4 << 20) /* for the kernels' scratch, and all libraries' thread-local storage; musl's default is 128 KiB */
#define IDLE_POLLS 8000       /* for more work, ~120 us: somewhat longer than Python takes between two steps of a loop */

#if defined(__linux__) && defined(__GLIBC__)
#define CHOOSES_CPUS 1
#else
#define CHOOSES_CPUS 0
#endif

/* Signals of a thread's own faults: blocked, they would end the process without calling its handlers, such as faulthandler's. */
static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGTRAP, SIGABRT};

enum state {
    IDLE,   /* polls for work */
    ASLEEP, /* sleeps until it is called */
    CALLED, /* has work, which may still be withdrawn */
    BUSY,   /* has begun its work */
    AWAITED /* has begun its work, and the caller sleeps until its end */
};

struct fm_helper {
    _Alignas(128) atomic_int state;
    void (*work)(void *); /* null: end the thread */
    void *argument;
    int sent;         /* by fm_helper_send: no caller waits for it */
    atomic_int polls; /* polls for work before it sleeps */
    fm_helper *next;  /* in the pool */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t woken;
#if CHOOSES_CPUS
    cpu_set_t cpus; /* it may run on these */
#endif
};

static fm_helper *spare; /* the pool, last in, first out: the last may still be awake */
static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t forks_watched = PTHREAD_ONCE_INIT;
static int forks;

static void set_state(fm_helper *h, int state, int asleep)
{
    if (atomic_exchange(&h->state, state) != asleep) return;
    pthread_mutex_lock(&h->lock);
    pthread_cond_signal(&h->woken);
    pthread_mutex_unlock(&h->lock);
}

static int is_now(const fm_helper *h, int state) { return atomic_load_explicit(&h->state, memory_order_acquire) == state; }

/* Changes `state`, if that is still the helper's, to `asleep` and sleeps until that has changed. */
static void sleep_in(fm_helper *h, int state, int asleep)
{
    pthread_mutex_lock(&h->lock);
    if (atomic_compare_exchange_strong(&h->state, &state, asleep))
        while (is_now(h, asleep)) pthread_cond_wait(&h->woken, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

static void wait_for_call(fm_helper *h)
{
    for (int i = 0; i < atomic_load_explicit(&h->polls, memory_order_relaxed); i++, fm_relax())
        if (is_now(h, CALLED)) return;
    sleep_in(h, IDLE, ASLEEP);
}

static void wait_for_end(fm_helper *h)
{
    for (int i = 0; i < FM_SPINS; i++, fm_relax())
        if (is_now(h, IDLE)) return;
    for (int i = 0; i < FM_YIELDS; i++, sched_yield())
        if (is_now(h, IDLE)) return;
    sleep_in(h, BUSY, AWAITED);
}

/* Changes CALLED to another state; returns whether it was CALLED. */
static int leaves_call(fm_helper *h, int state)
{
    int called = CALLED;
    return atomic_compare_exchange_strong(&h->state, &called, state);
}

static void give_back(fm_helper *h)
{
    pthread_mutex_lock(&spare_lock);
    h->next = spare, spare = h;
    pthread_mutex_unlock(&spare_lock);
}

static void *help(void *argument)
{
    fm_helper *h = argument;
    fm_float_state_begin(); /* for good */
    for (;;) {
        wait_for_call(h);
        if (!leaves_call(h, BUSY)) continue; /* withdrawn */
        if (!h->work) return 0;
        const int sent = h->sent; /* once idle, it may belong to another caller */
        h->work(h->argument);
        set_state(h, IDLE, AWAITED);
        if (sent) give_back(h);
    }
}

/* ---- processors ---------------------------------------------------------------------------------------------- */

#if CHOOSES_CPUS
/* Linux often wakes a thread on its caller's processor and leaves it there for milliseconds while another idles: the two then
 * take turns at every barrier. So helpers run on the caller's other processors, if there are enough. Returns whether there are. */
static int find_cpus(int n_threads, cpu_set_t *cpus)
{
    const int here = sched_getcpu();
    if (sched_getaffinity(0, sizeof *cpus, cpus)) CPU_ZERO(cpus);
    const int enough = here >= 0 && CPU_COUNT(cpus) > 1 && CPU_COUNT(cpus) >= n_threads;
    if (enough) CPU_CLR((size_t)here, cpus);
    return enough;
}

/* Again, since the caller may have moved, or may be another one. */
static int keep_elsewhere(fm_helper *h, int n_threads)
{
    cpu_set_t cpus;
    const int enough = find_cpus(n_threads, &cpus);
    if (CPU_COUNT(&cpus) && !CPU_EQUAL(&cpus, &h->cpus)) {
        h->cpus = cpus;
        pthread_setaffinity_np(h->thread, sizeof cpus, &cpus);
    }
    return enough;
}
#else
static int keep_elsewhere(fm_helper *h, int n_threads) { return (void)h, (void)n_threads, 1; }
#endif

/* ---- creation and destruction -------------------------------------------------------------------------------- */

static int start(fm_helper *h, int n_threads)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
#if CHOOSES_CPUS
    find_cpus(n_threads, &h->cpus);
    if (CPU_COUNT(&h->cpus)) pthread_attr_setaffinity_np(&attributes, sizeof h->cpus, &h->cpus);
#else
    (void)n_threads;
#endif
    sigfillset(&all);
    for (int i = 0; i < (int)(sizeof faults / sizeof *faults); i++) sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* inherited: signals are for the caller's threads */
    const int failed = pthread_create(&h->thread, &attributes, help, h);
    pthread_sigmask(SIG_SETMASK, &before, 0);
    pthread_attr_destroy(&attributes);
    return !failed;
}

static void clear_away(fm_helper *h)
{
    pthread_cond_destroy(&h->woken);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static fm_helper *new_helper(int n_threads)
{
    void *memory = 0;
    if (posix_memalign(&memory, _Alignof(fm_helper), sizeof(fm_helper))) return 0;
    fm_helper *h = memory;
    *h = (fm_helper){.state = IDLE, .polls = IDLE_POLLS};
    pthread_mutex_init(&h->lock, 0);
    pthread_cond_init(&h->woken, 0);
    if (start(h, n_threads)) return h;
    clear_away(h);
    return 0;
}

/* Before a fork: a child would have the helpers' memory without the threads, and Python warns about forks with threads. */
static void end_spare(void)
{
    pthread_mutex_lock(&spare_lock);
    for (fm_helper *h = spare, *next; h; h = next) {
        next = h->next;
        fm_helper_call(h, 0, 0);
        pthread_join(h->thread, 0);
        clear_away(h);
    }
    spare = 0;
}

static void go_on(void) { pthread_mutex_unlock(&spare_lock); }

static void begin_again(void)
{
    forks++;
    go_on();
}

static void watch_forks(void) { pthread_atfork(end_spare, go_on, begin_again); }

/* ---- for callers --------------------------------------------------------------------------------------------- */

fm_helper *fm_helper_take(int n_threads)
{
    pthread_once(&forks_watched, watch_forks);
    pthread_mutex_lock(&spare_lock);
    fm_helper *h = spare;
    if (h) spare = h->next;
    pthread_mutex_unlock(&spare_lock);
    if (!h) h = new_helper(n_threads);
    if (!h) return 0;
    const int enough = keep_elsewhere(h, n_threads); /* processors; if not, it should not poll on one that another thread needs */
    atomic_store_explicit(&h->polls, enough ? IDLE_POLLS : 1, memory_order_relaxed);
    return h;
}

static void call(fm_helper *h, void (*work)(void *), void *argument, int sent)
{
    h->work = work, h->argument = argument, h->sent = sent;
    set_state(h, CALLED, ASLEEP);
}

void fm_helper_call(fm_helper *h, void (*work)(void *), void *argument) { call(h, work, argument, 0); }

void fm_helper_send(fm_helper *h, void (*work)(void *), void *argument) { call(h, work, argument, 1); }

int fm_helper_has_begun(const fm_helper *h) { return !is_now(h, CALLED); }

int fm_helper_withdraw(fm_helper *h)
{
    const int withdrawn = leaves_call(h, IDLE);
    if (withdrawn) give_back(h);
    return withdrawn;
}

void fm_helper_release(fm_helper *h)
{
    wait_for_end(h);
    give_back(h);
}

int fm_helper_forks(void) { return forks; }
