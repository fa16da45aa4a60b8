/* Threads that wait for work, and stay alive when it is done. */
#ifndef FASTMLP_HELPERS_H
#define FASTMLP_HELPERS_H

typedef struct fm_helper fm_helper;

/* A helper reserved for the caller, or null if no thread can be started. n_threads: number of threads that will be busy at
 * once, including the caller's. */
fm_helper *fm_helper_take(int n_threads);

/* Starts work(argument) on the helper and returns immediately. */
void fm_helper_call(fm_helper *helper, void (*work)(void *), void *argument);

/* Whether the helper has begun its work. */
int fm_helper_has_begun(const fm_helper *helper);

/* If the helper has not begun: cancels the call, returns the helper to the pool, and returns 1. Else returns 0. */
int fm_helper_withdraw(fm_helper *helper);

/* Waits for the end of the helper's work, which must have begun, and returns the helper to the pool. */
void fm_helper_release(fm_helper *helper);

/* Starts work(argument) on the helper, which then returns itself to the pool: the caller need not wait for it. */
void fm_helper_send(fm_helper *helper, void (*work)(void *), void *argument);

/* Number of forks between the process that loaded this library and the calling one: helpers do not survive a fork. */
int fm_helper_forks(void);

/* A thread that waits for another polls FM_SPINS times, ~15 us: about as long as evenly loaded workers wait. Then it polls
 * FM_YIELDS times, yielding its core in between; and then it sleeps. */
#define FM_SPINS 1000
#define FM_YIELDS 200

/* Between two polls. */
static inline void fm_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
