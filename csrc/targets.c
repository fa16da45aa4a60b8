/* The targets, best first. The first one that the CPU supports is the default; Python can select any by name. */
#include "fastmlp.h"
#include "cpu.h"

#define TARGET(name) {#name, supported_##name, {&fm_kernels_##name##_f32, &fm_kernels_##name##_f64}},
#define DECLARE(name, probe)                                                                                           \
    extern const fm_kernels fm_kernels_##name##_f32, fm_kernels_##name##_f64;                                          \
    static int supported_##name(void) { return probe(); }

#if defined(__x86_64__)
DECLARE(avx512, fm_cpu_has_avx512)
DECLARE(avx2, fm_cpu_has_avx2)
#endif
#if defined(__aarch64__)
DECLARE(neon, fm_cpu_has_neon)
#endif
DECLARE(generic, fm_cpu_is_any)

const fm_target fm_targets[] = {
#if defined(__x86_64__)
    TARGET(avx512) TARGET(avx2)
#endif
#if defined(__aarch64__)
    TARGET(neon)
#endif
    TARGET(generic) {0, 0, {0, 0}},
};
