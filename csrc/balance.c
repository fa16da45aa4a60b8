/* Shares of workers, see balance.h. */
#include "balance.h"

#include <math.h>
#include <time.h>

#define GAIN 0.3  /* of the way to the shares that the last run's times suggest: a worker may have been interrupted */
#define LEAST 0.5 /* limits of a share, in equal shares: ... */
#define MOST 2.0  /* ... beyond them it would be an error of measurement */
#define GRAIN 8.0 /* rows, about a tile: shares differ from equal ones by multiples of it */

int64_t fm_ticks(void)
{
#if defined(__x86_64__)
    return (int64_t)__builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    int64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
#endif
}

int64_t fm_share_begin(const fm_balance *balance, enum fm_shared what, int64_t all, int me, int n)
{
    const int64_t equal = all * me / n;
    if (!balance || balance->n != n || me == 0 || me == n) return equal;
    double end = 0;
    int64_t begin = 0; /* never less than the previous worker's, however it is rounded: no row has two owners */
    for (int i = 1; i <= me; i++) {
        end += balance->share[what][i - 1];
        const double even = (double)(all * i / n), to = even + rint((end * (double)all - even) / GRAIN) * GRAIN;
        if (to > (double)begin) begin = to < (double)all ? (int64_t)to : all;
    }
    return begin;
}

/* Moves shares towards the workers' rates (rows per tick), which do not depend on the shares: so a difference of less than a
 * grain does not accumulate from run to run. Workers without work are assumed to run at the mean rate. */
static void rebalance(double *share, const double *given, const double *busy, int n)
{
    double rates = 0, sum = 0;
    int known = 0;
    for (int i = 0; i < n; i++)
        if (given[i] > 0 && busy[i] > 0) rates += given[i] / busy[i], known++;
    if (!known) return;
    const double mean = rates / known, all = mean * n;
    for (int i = 0; i < n; i++) {
        const double rate = given[i] > 0 && busy[i] > 0 ? given[i] / busy[i] : mean;
        share[i] += GAIN * (rate / all - share[i]);
        share[i] = fmin(fmax(share[i], LEAST / n), MOST / n);
        sum += share[i];
    }
    for (int i = 0; i < n; i++) share[i] /= sum;
}

void fm_rebalance(fm_balance *balance, int n)
{
    for (int what = 0; what < FM_N_SHARED; what++) {
        for (int i = 0; i < n && balance->n != n; i++) balance->share[what][i] = 1.0 / n;
        rebalance(balance->share[what], balance->given[what], balance->busy[what], n);
    }
    balance->n = n;
}
