/* Work interleaved with a product: prefetches, and updates of parameters. Multiply-adds leave most units of a core idle; so every
 * few terms of its sums a tile does a little of that work, which is called a look. */

#define TERMS (FM_BYTES > 16 ? 2 : 1) /* at a time: two hyper-threads share a core's four to six instructions per cycle */

/* The number of terms between two looks, in `products` products of k terms that need `looks` in all. */
static inline int64_t look_every(int64_t k, int64_t products, int64_t looks)
{
    return looks <= products ? k : larger_of(k * products / looks / TERMS * TERMS, TERMS);
}

/* ---- ahead: rows to prefetch ------------------------------------------------------------------------------- */

/* As wide as the current panel. They come from outer caches, memory or another core's cache, which takes up to a thousand cycles:
 * prefetched one at a time, they do not delay the product. */
struct ahead {
    const char *at, *last; /* the next row and the last one */
    int64_t ld;            /* bytes from one row to the next */
};

static inline struct ahead ahead_of(const void *at, int64_t ld, int64_t rows)
{
    ld *= (int64_t)sizeof(real);
    return (struct ahead){at, (const char *)at + (rows > 0 ? rows - 1 : 0) * ld, ld};
}

/* No branch on the number of rows left: a misprediction would stall the multiply-adds. take: prefetch for writing, which takes
 * lines out of other caches; a constant. */
INLINE void look_ahead(struct ahead *ahead, int n_ahead, int bytes, int take)
{
    for (; n_ahead > 0; n_ahead--, ahead++) {
        const char *at = ahead->at;
        UNROLL for (int i = 0; i < bytes; i += LINE) take ? __builtin_prefetch(at + i, 1) : __builtin_prefetch(at + i, 0);
        ahead->at = at == ahead->last ? at : at + ahead->ld;
    }
}

/* ---- behind: parameters of the previous tile ---------------------------------------------------------------- */

/* The parameters whose gradient a tile's sums are. */
struct parameters {
    const struct updater *updater;
    real *w, *s1, *s2; /* the next row to be updated, and its states */
    int64_t ld;        /* elements from one row to the next */
    const real *g;     /* its complete gradient, in scratch; rows there are MOVED_VECTORS vectors apart */
    int64_t rows;      /* rows left */
    int vectors;       /* of each row */
};

#define MOVED_VECTORS (FM_BYTES == 64 ? 3 : 2) /* widest tile whose weights the next one updates; the narrowest has two */

static inline int64_t tile_ld(int64_t wide) { return (wide == 2 ? MOVED_VECTORS : wide) * LANES; }

/* Sets b to rows i .. i + rows - 1 of the weights, from column j on. */
static inline void aim_at(struct parameters *b, const fm_op *op, int64_t i, int64_t j, int64_t rows, int vectors, const real *g)
{
    const int64_t at = i * op->w.ld + j;
    b->w = (real *)op->w.p + at, b->ld = op->w.ld;
    b->s1 = op->s1.p ? (real *)op->s1.p + at : b->w, b->s2 = op->s2.p ? (real *)op->s2.p + at : b->w;
    b->g = g, b->rows = rows, b->vectors = vectors;
}

/* Updates the next row, of two or three vectors, if one is left; kind and momentum are constants. */
INLINE void move_behind(struct parameters *b, int kind, int momentum)
{
    const int third = 2 * LANES;
    const struct updater *at = b->updater;
    if (b->rows <= 0) return;
    ONE_REGISTER(at) /* the sums need the registers in which its constants would be kept */
    struct updater updater = *at;
    updater.nesterov = 0; /* a constant: no branch */
    update_block_as(&updater, kind, momentum, 1, b->w, b->s1, b->s2, 0, b->g, 0, 1, 2);
    if (b->vectors > 2)
        update_block_as(&updater, kind, momentum, 1, b->w + third, b->s1 + third, b->s2 + third, 0, b->g + third, 0, 1, 1);
    b->w += b->ld, b->s1 += b->ld, b->g += MOVED_VECTORS * LANES, b->rows--;
    if (kind == FM_OPT_adam) b->s2 += b->ld;
}

/* Prefetches a row of the next tile's parameters, laid out like those in b; returns the row after it. Null: they are near. */
INLINE const char *look_at_coming(const char *coming, const struct parameters *b, int kind, int momentum, int bytes)
{
    if (!coming) return 0;
    const int64_t to_s1 = (char *)b->s1 - (char *)b->w, to_s2 = (char *)b->s2 - (char *)b->w;
    UNROLL for (int i = 0; i < bytes; i += LINE)
    {
        __builtin_prefetch(coming + i, 1);
        if (kind != FM_OPT_sgd || momentum) __builtin_prefetch(coming + to_s1 + i, 1);
        if (kind == FM_OPT_adam) __builtin_prefetch(coming + to_s2 + i, 1);
    }
    return coming + b->ld * (int64_t)sizeof(real);
}

/* Updates all rows that are left. */
static inline void catch_up(struct parameters *b, const fm_op *op)
{
    if (b->rows) update_block(b->updater, op, b->w - (real *)op->w.p, b->g, tile_ld(b->vectors), b->rows, b->vectors);
    b->rows = 0;
}

/* ---- fetch: rows of the next batch, see fetch.h -------------------------------------------------------------- */

/* Lines to prefetch before each of the tiles. */
static inline int64_t fetch_pace(const fm_op *op, const fm_step *step, int64_t tiles)
{
    return op->data ? fm_parts_of(fm_fetch_lines(step->coming), tiles) : 0;
}
