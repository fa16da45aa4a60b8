/* What this CPU and its operating system support. */
#ifndef FASTMLP_CPU_H
#define FASTMLP_CPU_H

int fm_cpu_has_avx512(void);
int fm_cpu_has_avx2(void);
int fm_cpu_has_neon(void);
int fm_cpu_is_any(void);

#endif
