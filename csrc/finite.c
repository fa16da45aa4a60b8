/* Whether numbers are finite: a float is where its exponent is not all ones. Compilers turn these loops into vector code. */
#include "finite.h"
#include "threads.h"

#include <string.h>

#define FOR_ONE (4 << 20) /* bytes: ~0.3 ms from memory, below which starting a worker costs more than it saves */

#define ALL_FINITE(bits, exponent)                                                                                     \
    static int all_finite_##bits(const char *x, int64_t n)                                                             \
    {                                                                                                                  \
        uint##bits##_t odd = 0, word;                                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            memcpy(&word, x + i * (int64_t)sizeof word, sizeof word);                                                  \
            odd |= (word & exponent) == exponent;                                                                      \
        }                                                                                                              \
        return !odd;                                                                                                   \
    }
ALL_FINITE(32, 0x7f800000u)
ALL_FINITE(64, 0x7ff0000000000000u)

struct search {
    const char *x;
    int64_t n, itemsize;
    uint8_t odd[FM_MAX_WORKERS];
};

static int part_is_finite(const struct search *search, int64_t begin, int64_t end)
{
    const char *x = search->x + begin * search->itemsize;
    return search->itemsize == sizeof(float) ? all_finite_32(x, end - begin) : all_finite_64(x, end - begin);
}

static void look(void *context, fm_team *team, int me, int n)
{
    struct search *search = context;
    (void)team;
    search->odd[me] = !part_is_finite(search, search->n * me / n, search->n * (me + 1) / n);
}

int fm_all_finite(const void *x, int64_t n, int64_t itemsize, int n_threads)
{
    struct search search = {.x = x, .n = n, .itemsize = itemsize};
    if (n * itemsize < FOR_ONE) return part_is_finite(&search, 0, n);
    fm_team_run(n_threads, look, &search);
    return !memchr(search.odd, 1, sizeof search.odd);
}
