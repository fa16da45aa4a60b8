/* Whether a caller's numbers are finite: a large array is looked through by several workers. */
#include "finite.h"
#include "threads.h"

#include <string.h>

#define PATIENCE 50000 /* nanoseconds to wait for the others */
#define FOR_ONE (8 << 20) /* bytes: ~0.1 ms from memory, below which one thread is fast enough */

struct search {
    const fm_kernels *kernels;
    const char *x;
    int64_t n, itemsize;
    uint8_t odd[FM_MAX_WORKERS];
};

static void look(void *context, fm_team *team, int me, int n)
{
    struct search *search = context;
    (void)team;
    const int64_t begin = search->n * me / n, end = search->n * (me + 1) / n;
    search->odd[me] = !search->kernels->all_finite(search->x + begin * search->itemsize, end - begin);
}

int fm_all_finite(const fm_kernels *kernels, const void *x, int64_t n, int64_t itemsize, int n_threads)
{
    struct search search = {.kernels = kernels, .x = x, .n = n, .itemsize = itemsize};
    fm_team_run(n * itemsize < FOR_ONE ? 1 : n_threads, PATIENCE, look, &search);
    return !memchr(search.odd, 1, sizeof search.odd);
}
