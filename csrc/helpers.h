/* Threads that wait for work, and stay when it is done. */
#ifndef FASTMLP_HELPERS_H
#define FASTMLP_HELPERS_H

typedef struct fm_helper fm_helper;

/* A helper for the caller alone, or null where no thread can be started. n_threads: how many threads will be busy at once,
 * the caller's among them. */
fm_helper *fm_helper_take(int n_threads);

/* Starts work(argument) on the helper and returns immediately. */
void fm_helper_call(fm_helper *helper, void (*work)(void *), void *argument);

/* Whether it has begun to. */
int fm_helper_has_begun(const fm_helper *helper);

/* Takes the call back and gives the helper back, if it has not begun; returns whether that is so. */
int fm_helper_withdraw(fm_helper *helper);

/* Waits until the helper, who has begun, has done its work, and gives it back: others may take it. */
void fm_helper_release(fm_helper *helper);

/* Starts work(argument) on the helper, which then gives itself back: nobody waits for it. */
void fm_helper_send(fm_helper *helper, void (*work)(void *), void *argument);

/* Number of forks between the process that loaded this library and the calling one: helpers do not survive a fork. */
int fm_helper_forks(void);

/* A thread that waits for another looks at what is to change so often, ~15 us: about as long as evenly loaded workers wait. Then
 * it offers its core to whoever else wants it, so often; and then it sleeps. */
#define FM_SPINS 1000
#define FM_YIELDS 200

/* Between two looks. */
static inline void fm_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
