/* What this CPU and its operating system support. Compiled for the baseline: it runs before a target is chosen.
 *
 * __builtin_cpu_supports reads cpuid and also XCR0, which tells whether the system saves the wide registers. */
#include "cpu.h"

#if defined(__x86_64__)
int fm_cpu_has_avx512(void)
{
    return fm_cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}

int fm_cpu_has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

static int is_amd(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_is("amd");
#else
    return 0;
#endif
}

int fm_cpu_streams_well(void) { return is_amd(); }
int fm_cpu_takes_long_runs(void) { return is_amd(); }

#if defined(__aarch64__)
int fm_cpu_has_neon(void) { return 1; } /* part of the ARM64 baseline */
#endif

int fm_cpu_is_any(void) { return 1; }
