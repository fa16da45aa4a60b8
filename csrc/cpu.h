/* What this CPU and its operating system support, and what pays on it. */
#ifndef FASTMLP_CPU_H
#define FASTMLP_CPU_H

int fm_cpu_has_avx512(void);
int fm_cpu_has_avx2(void);
int fm_cpu_has_neon(void);
int fm_cpu_is_any(void);

/* Whether a non-temporal store is faster than writing to a line that another core, which shares no cache, has read: on AMD it
 * is. On an Intel server, whose cores all share a cache, a step of 784-128-10 took 185 us with such stores and 128 without. */
int fm_cpu_streams_well(void);

/* Whether products from the L2 cache are as fast as from L1: on AMD they are. There an update of 1024 x 1024 weights by 1024
 * rows took 1.13 times as long in runs of 128 rows; on an Intel server, updates by 384 rows and more took 1.1 to 1.5 times as
 * long without such runs. */
int fm_cpu_takes_long_runs(void);

#endif
