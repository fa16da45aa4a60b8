/* This machine's limits: multiply-adds per second, and bytes per second by the size of the memory read.
 *
 * Compiled by roofline.py, with -ffp-contract=fast so that a * m + c becomes one FMA. Vectors are as wide as the CPU's
 * (chosen at run time on x86), accumulators enough to hide the latency of an FMA: 12 where there are 16 registers. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#define MAX_THREADS 256
#define PASTE(a, b) a##b
#define NAME(a, b) PASTE(a, b)

typedef struct job job;
typedef void loop(const job *, int me);
struct job {
    loop *run;
    int64_t repeats;
    char *memory; /* bandwidth: `bytes` for each thread */
    int64_t bytes;
    atomic_int ready, gate;
};

static volatile double sink;

/* FMA: `repeats` times 12 or 24 vectors. Every accumulator stays near 1, so none overflows or becomes subnormal. */
#define FMA_LOOP(name, type, bytes, attributes, EACH)                                                                  \
    attributes static void name(const job *j, int me)                                                                  \
    {                                                                                                                  \
        typedef type vec __attribute__((vector_size(bytes)));                                                          \
        const vec m = (vec){0} + (type)0.5, c = (vec){0} + (type)(0.5 + me * 1e-3);                                    \
        EACH(START)                                                                                                    \
        for (int64_t i = 0; i < j->repeats; i++) { EACH(MORE) }                                                        \
        vec sum = {0};                                                                                                 \
        EACH(ADD)                                                                                                      \
        sink = (double)sum[0];                                                                                         \
    }
#define START(n) vec a##n = m + (vec){0} + (float)(n);
#define MORE(n) a##n = a##n * m + c;
#define ADD(n) sum += a##n;
#define TWELVE(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define TWENTY_FOUR(DO)                                                                                                \
    TWELVE(DO) DO(12) DO(13) DO(14) DO(15) DO(16) DO(17) DO(18) DO(19) DO(20) DO(21) DO(22) DO(23)

/* Bandwidth: read sums all words; triad is a = b + s c, on three thirds of the memory. */
#define MEMORY_LOOPS(suffix, width, attributes)                                                                        \
    attributes static void NAME(read_, suffix)(const job *j, int me)                                                   \
    {                                                                                                                  \
        typedef double vec __attribute__((vector_size(width)));                                                        \
        const vec *p = (const vec *)(j->memory + me * j->bytes);                                                       \
        const int64_t n = j->bytes / width / 8 * 8;                                                                    \
        vec sum[8] = {0};                                                                                              \
        for (int64_t r = 0; r < j->repeats; r++)                                                                       \
            for (int64_t i = 0; i < n; i += 8) {                                                                       \
                _Pragma("GCC unroll 8") for (int k = 0; k < 8; k++) sum[k] += p[i + k];                                \
            }                                                                                                          \
        for (int k = 1; k < 8; k++) sum[0] += sum[k];                                                                  \
        sink = sum[0][0];                                                                                              \
    }                                                                                                                  \
    attributes static void NAME(triad_, suffix)(const job *j, int me)                                                  \
    {                                                                                                                  \
        typedef double vec __attribute__((vector_size(width)));                                                        \
        const int64_t n = j->bytes / width / 3;                                                                        \
        vec *a = (vec *)(j->memory + me * j->bytes), *b = a + n, *c = b + n;                                           \
        for (int64_t r = 0; r < j->repeats; r++)                                                                       \
            for (int64_t i = 0; i < n; i++) a[i] = b[i] + c[i] * 0.5;                                                  \
    }

#if defined(__x86_64__)
FMA_LOOP(fma_f32_avx512, float, 64, __attribute__((target("avx512f"))), TWENTY_FOUR)
FMA_LOOP(fma_f64_avx512, double, 64, __attribute__((target("avx512f"))), TWENTY_FOUR)
FMA_LOOP(fma_f32_avx2, float, 32, __attribute__((target("avx2,fma"))), TWELVE)
FMA_LOOP(fma_f64_avx2, double, 32, __attribute__((target("avx2,fma"))), TWELVE)
MEMORY_LOOPS(avx512, 64, __attribute__((target("avx512f"))))
MEMORY_LOOPS(avx2, 32, __attribute__((target("avx2,fma"))))
#endif
FMA_LOOP(fma_f32_base, float, 16, , TWELVE)
FMA_LOOP(fma_f64_base, double, 16, , TWELVE)
MEMORY_LOOPS(base, 16, )

enum { BASE, AVX2, AVX512 };

static int level(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#endif
    return BASE;
}

struct seat {
    job *j;
    int me;
};

static void *worker(void *argument)
{
    struct seat *seat = argument;
    atomic_fetch_add(&seat->j->ready, 1);
    while (!atomic_load(&seat->j->gate)) sched_yield();
    seat->j->run(seat->j, seat->me);
    return 0;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* Seconds that `threads` threads take for the job, from when all are running until the last one ends; -1 if not all started. */
static double timed(job *j, int threads)
{
    pthread_t id[MAX_THREADS];
    struct seat seats[MAX_THREADS];
    int n = 1;
    for (; n < threads && n < MAX_THREADS; n++) {
        seats[n] = (struct seat){j, n};
        if (pthread_create(&id[n], 0, worker, &seats[n])) break;
    }
    while (atomic_load(&j->ready) < n - 1) sched_yield();
    const double start = now();
    atomic_store(&j->gate, 1);
    j->run(j, 0);
    for (int i = 1; i < n; i++) pthread_join(id[i], 0);
    return n < threads ? -1 : now() - start;
}

/* Floating-point operations per second (in 1e9; a multiply-add counts as two). */
double gflops(int f64, int threads, int64_t repeats)
{
    loop *run[3][2] = {{fma_f32_base, fma_f64_base}};
    double per_repeat[3] = {12 * 16, 12 * 32, 24 * 64};
#if defined(__x86_64__)
    run[AVX2][0] = fma_f32_avx2, run[AVX2][1] = fma_f64_avx2;
    run[AVX512][0] = fma_f32_avx512, run[AVX512][1] = fma_f64_avx512;
#endif
    job j = {.run = run[level()][f64], .repeats = repeats};
    return 2 * per_repeat[level()] / (f64 ? 8 : 4) * repeats * threads / timed(&j, threads) * 1e-9;
}

/* Bytes per second (in 1e9) between the cores and `bytes` of memory for each thread. */
double gbytes(int triad, int threads, char *memory, int64_t bytes, int64_t repeats)
{
    loop *run[3][2] = {{read_base, triad_base}};
#if defined(__x86_64__)
    run[AVX2][0] = read_avx2, run[AVX2][1] = triad_avx2;
    run[AVX512][0] = read_avx512, run[AVX512][1] = triad_avx512;
#endif
    job j = {.run = run[level()][triad], .repeats = repeats, .memory = memory, .bytes = bytes};
    return (double)bytes * repeats * threads / timed(&j, threads) * 1e-9;
}

const char *isa(void)
{
    static const char *const names[] = {"baseline", "AVX2", "AVX-512"};
    return names[level()];
}
