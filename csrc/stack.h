/* Stack space for the kernels' scratch. */
#ifndef FASTMLP_STACK_H
#define FASTMLP_STACK_H

/* Whether the calling thread's stack has room for any kernel. A Python thread's stack has the system's default size,
 * 128 KiB with musl, or that of threading.stack_size. */
int fm_stack_suffices(void);

#endif
