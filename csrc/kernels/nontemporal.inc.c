/* Non-temporal stores, for workers whose cores share no cache, to lines that other workers have read.
 *
 * Writing to such a line takes 7 ns if the two cores share a cache and 30 if not, however many are requested at once (on a
 * Zen 4). A non-temporal store takes 5, but then all workers read from memory. */

#define STREAMED_LEAST (32 << 10) /* bytes of weights */
#define DISTANT (8 << 20)         /* bytes of weights above which they come from memory each time */
#define HANDED_OUT 512            /* bytes of a row, from which non-temporal stores, by way of scratch, pay */
#define HANDED_ROWS 128           /* rows of the batch at a time, at most */

static int64_t weight_bytes(const fm_op *op) { return op->n_in * op->w.ld * (int64_t)sizeof(real); }

static inline int is_distant(const fm_op *op) { return weight_bytes(op) > DISTANT; }

/* Whether the weights are shared. A worker with only some of the rows shares them all: the others have its rows in their caches. */
static inline int is_shared(const fm_op *op, int64_t begin, int64_t end) { return end - begin < op->n_in; }

/* Whether a matrix is aligned for non-temporal stores of vectors. */
static inline int can_stream(fm_mat m)
{
    return FM_STREAMS && (uintptr_t)m.p % LINE == 0 && m.ld * (int64_t)sizeof(real) % LINE == 0;
}

/* Whether weights are stored non-temporally. The largest have left the caches anyway. shared: other workers read them, too. */
static int is_streamed(const fm_op *op, const fm_step *step, int shared)
{
    return step->far_apart && shared && can_stream(op->w) && weight_bytes(op) >= STREAMED_LEAST && !is_distant(op);
}

/* Whether rows of the batch that other workers will read are stored non-temporally. */
static int is_handed_out(const fm_step *step, fm_mat m)
{
    return step->far_apart && can_stream(m) && m.ld * (int64_t)sizeof(real) >= HANDED_OUT;
}

static void stream_block(const real *from, int64_t ld_from, real *to, int64_t ld_to, int64_t rows, int64_t vectors)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t v = 0; v < vectors * LANES; v += LANES) vf_stream(to + r * ld_to + v, vf_load(from + r * ld_from + v));
}

/* The bounds of this worker's part of rows or columns that all share about equally. Of a row of activations, each worker reads
 * only the columns whose weights it updates. */
static inline int64_t my_begin(const fm_step *step, int64_t all) { return all * step->me / step->n_workers; }
static inline int64_t my_end(const fm_step *step, int64_t all) { return all * (step->me + 1) / step->n_workers; }
