/* The processor's floating-point state, on which results depend: rounding to nearest, subnormal numbers kept, no traps.
 *
 * A caller may have another one: PyTorch's set_flush_denormal sets it, and so does loading a library linked with -ffast-math. A
 * helper inherits that of the thread which started it. Workers with different states would give results that depend on which of
 * them computed what. */
#ifndef FASTMLP_FLOAT_STATE_H
#define FASTMLP_FLOAT_STATE_H

#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
typedef unsigned fm_float_state;
#define FM_DEFAULT_STATE 0x1f80u
#define FM_STATE_FLAGS 0x3fu /* what operations report */
static inline fm_float_state fm_float_state_now(void) { return _mm_getcsr(); }
static inline void fm_float_state_set(fm_float_state state) { _mm_setcsr(state); }
#elif defined(__aarch64__)
typedef unsigned long fm_float_state;
#define FM_DEFAULT_STATE 0ul
#define FM_STATE_FLAGS 0ul
static inline fm_float_state fm_float_state_now(void)
{
    fm_float_state state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    return state;
}
static inline void fm_float_state_set(fm_float_state state) { __asm__ volatile("msr fpcr, %0" : : "r"(state)); }
#else
typedef int fm_float_state;
#define FM_DEFAULT_STATE 0
#define FM_STATE_FLAGS 0
static inline fm_float_state fm_float_state_now(void) { return 0; }
static inline void fm_float_state_set(fm_float_state state) { (void)state; }
#endif

/* Sets the default state; returns the one before. */
static inline fm_float_state fm_float_state_begin(void)
{
    const fm_float_state before = fm_float_state_now();
    if ((before & ~FM_STATE_FLAGS) != FM_DEFAULT_STATE) fm_float_state_set(FM_DEFAULT_STATE);
    return before;
}

/* Puts the caller's state back. */
static inline void fm_float_state_end(fm_float_state before)
{
    if ((before & ~FM_STATE_FLAGS) != FM_DEFAULT_STATE) fm_float_state_set(before);
}

#endif
