/* The space left on a thread's stack, see stack.h. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* before any header: pthread_getattr_np is not in POSIX */
#endif
#include "stack.h"

#include <pthread.h>
#include <stdint.h>

#define KERNELS_NEED (640 << 10) /* bytes: kernels have up to 420 KiB of scratch, with AVX-512 580 */

/* The lowest address of the calling thread's stack; 0 if it is unknown. */
static uintptr_t find_end(void)
{
#if defined(__linux__)
    pthread_attr_t attributes;
    void *end = 0;
    size_t size = 0;
    if (pthread_getattr_np(pthread_self(), &attributes)) return 0;
    if (pthread_attr_getstack(&attributes, &end, &size)) end = 0;
    pthread_attr_destroy(&attributes);
    return (uintptr_t)end;
#elif defined(__APPLE__)
    return (uintptr_t)pthread_get_stackaddr_np(pthread_self()) - pthread_get_stacksize_np(pthread_self());
#else
    return 0;
#endif
}

int fm_stack_suffices(void)
{
    static _Thread_local uintptr_t end; /* found once: for the first thread, glibc reads /proc/self/maps */
    static _Thread_local int is_known;
    const char here = 0;
    if (!is_known) end = find_end(), is_known = 1;
    return (uintptr_t)&here - end > KERNELS_NEED;
}
