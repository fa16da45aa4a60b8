/* What this CPU and its operating system support, and what is worth while on it. */
#ifndef FASTMLP_CPU_H
#define FASTMLP_CPU_H

int fm_cpu_has_avx512(void);
int fm_cpu_has_avx2(void);
int fm_cpu_has_neon(void);
int fm_cpu_is_any(void);

/* Whether a store past the caches costs less than to take a line back that another core has read, where the two share no
 * cache: so on AMD's. On a server of Intel's, where all cores share one, a step of 784-128-10 took 185 us with such stores and
 * 128 without. */
int fm_cpu_streams_well(void);

/* Whether products from the second-level cache are as fast as from the first: so on AMD's. There an update of 1024 x 1024
 * weights by 1024 rows took 1.13 times as long in runs of 128 rows; on a server of Intel's, updates by 384 rows and more took
 * 1.1 to 1.5 times as long without. */
int fm_cpu_takes_long_runs(void);

#endif
