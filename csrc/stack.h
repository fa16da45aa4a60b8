/* Room for what the kernels keep on the stack. */
#ifndef FASTMLP_STACK_H
#define FASTMLP_STACK_H

/* Whether the calling thread's stack has room for any kernel: Python's threads have what the system gives them, 128 KiB with musl,
 * or what threading.stack_size asks for. */
int fm_stack_suffices(void);

#endif
