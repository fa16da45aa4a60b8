/* What workers do whose cores share no cache, where they would write what others have read.
 *
 * To take such a line back takes 7 ns where two cores share a cache and 30 where they do not, however many are asked for at
 * once (on a Zen 4). A store past the caches takes 5, but then everybody reads from memory. */

#define STREAMED_LEAST (32 << 10) /* bytes of weights */
#define DISTANT (8 << 20)         /* bytes of weights that come from memory each time */
#define HANDED_OUT 512            /* bytes of a row, from which writing it past the caches, by way of scratch, pays */
#define HANDED_ROWS 128           /* of the batch at a time, at most */

static int64_t weight_bytes(const fm_op *op) { return op->n_in * op->w.ld * (int64_t)sizeof(real); }

static inline int is_distant(const fm_op *op) { return weight_bytes(op) > DISTANT; }

/* A worker that is given some of the rows shares them all: the others have read its rows and have them in their caches. */
static inline int is_shared(const fm_op *op, int64_t begin, int64_t end) { return end - begin < op->n_in; }

/* Whether a matrix can be stored past the caches, vector by vector. */
static inline int can_stream(fm_mat m)
{
    return FM_STREAMS && (uintptr_t)m.p % LINE == 0 && m.ld * (int64_t)sizeof(real) % LINE == 0;
}

/* Whether weights go past the caches. The largest have left them anyway. shared: other workers read these, too. */
static int is_streamed(const fm_op *op, const fm_step *step, int shared)
{
    return step->far_apart && shared && can_stream(op->w) && weight_bytes(op) >= STREAMED_LEAST && !is_distant(op);
}

/* Whether rows of the batch that other workers will read are stored past the caches. */
static int is_handed_out(const fm_step *step, fm_mat m)
{
    return step->far_apart && can_stream(m) && m.ld * (int64_t)sizeof(real) >= HANDED_OUT;
}

static void stream_block(const real *from, int64_t ld_from, real *to, int64_t ld_to, int64_t rows, int64_t vectors)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t v = 0; v < vectors * LANES; v += LANES) vf_stream(to + r * ld_to + v, vf_load(from + r * ld_from + v));
}

/* Where this worker's part begins, and ends, of what all have about equal parts of. Of a row of activations the others read
 * all but the columns whose weights they do not move. */
static inline int64_t my_begin(const fm_step *step, int64_t all) { return all * step->me / step->n_workers; }
static inline int64_t my_end(const fm_step *step, int64_t all) { return all * (step->me + 1) / step->n_workers; }
