/* What a product does meanwhile. Multiply-adds keep two units of a core busy and leave the others idle; so a tile stops
 * every few terms of its sums to look after something else for a moment. */

#define TERMS (FM_BYTES > 16 ? 2 : 1) /* at a time: two hyper-threads share a core's four to six instructions a cycle */

/* From one look to the next, of k terms in each of so many products that together have to look so many times. */
static inline int64_t look_every(int64_t k, int64_t products, int64_t looks)
{
    return looks <= products ? k : larger_of(k * products / looks / TERMS * TERMS, TERMS);
}

/* ---- ahead: rows that will be used soon --------------------------------------------------------------------- */

/* As wide as the panel at hand. They come from the outer caches, from memory or from another core's cache, up to a thousand
 * cycles away: asked for one at a time, they hold nobody up. */
struct ahead {
    const char *at, *last; /* the next row, and the one to stop at */
    int64_t ld;            /* bytes from one to the next */
};

static inline struct ahead ahead_of(const void *at, int64_t ld, int64_t rows)
{
    ld *= (int64_t)sizeof(real);
    return (struct ahead){at, (const char *)at + (rows > 0 ? rows - 1 : 0) * ld, ld};
}

/* Without a branch that is hard to foresee: the multiply-adds would run dry. take: the rows out of other caches, in order to
 * write them; a constant. */
INLINE void look_ahead(struct ahead *ahead, int n_ahead, int bytes, int take)
{
    for (; n_ahead > 0; n_ahead--, ahead++) {
        const char *at = ahead->at;
        UNROLL for (int i = 0; i < bytes; i += LINE) take ? __builtin_prefetch(at + i, 1) : __builtin_prefetch(at + i, 0);
        ahead->at = at == ahead->last ? at : at + ahead->ld;
    }
}

/* ---- behind: parameters of the tile before ------------------------------------------------------------------ */

/* Those that a tile's sums are the gradient of. */
struct parameters {
    const struct updater *updater;
    real *w, *s1, *s2; /* the next row to be moved, and its states */
    int64_t ld;        /* elements from one to the next */
    const real *g;     /* its gradient, complete, in scratch; the others' follow at that of the widest that are moved this way */
    int64_t rows;      /* left */
    int vectors;       /* of each row */
};

#define MOVED_VECTORS (FM_BYTES == 64 ? 3 : 2) /* at most, of a tile whose weights the next one moves; at least two */

static inline int64_t tile_ld(int64_t wide) { return (wide == 2 ? MOVED_VECTORS : wide) * LANES; }

/* Rows i .. i + rows - 1 of the weights, from column j on. */
static inline void aim_at(struct parameters *b, const fm_op *op, int64_t i, int64_t j, int64_t rows, int vectors, const real *g)
{
    const int64_t at = i * op->w.ld + j;
    b->w = (real *)op->w.p + at, b->ld = op->w.ld;
    b->s1 = op->s1.p ? (real *)op->s1.p + at : b->w, b->s2 = op->s2.p ? (real *)op->s2.p + at : b->w;
    b->g = g, b->rows = rows, b->vectors = vectors;
}

/* Moves the next row that is left, of two or three vectors, if there is one; kind and momentum are constants of the caller. */
INLINE void move_behind(struct parameters *b, int kind, int momentum)
{
    const int third = 2 * LANES;
    const struct updater *at = b->updater;
    if (b->rows <= 0) return;
    ONE_REGISTER(at) /* the sums need those that its constants would be kept in */
    struct updater updater = *at;
    updater.nesterov = 0; /* its branch would be in the way */
    update_block_as(&updater, kind, momentum, 1, b->w, b->s1, b->s2, 0, b->g, 0, 1, 2);
    if (b->vectors > 2)
        update_block_as(&updater, kind, momentum, 1, b->w + third, b->s1 + third, b->s2 + third, 0, b->g + third, 0, 1, 1);
    b->w += b->ld, b->s1 += b->ld, b->g += MOVED_VECTORS * LANES, b->rows--;
    if (kind == FM_OPT_adam) b->s2 += b->ld;
}

/* Asks for a row of the parameters of the tile to come, laid out as those behind; null: they are near. */
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

/* All that are left. */
static inline void catch_up(struct parameters *b, const fm_op *op)
{
    if (b->rows) update_block(b->updater, op, b->w - (real *)op->w.p, b->g, tile_ld(b->vectors), b->rows, b->vectors);
    b->rows = 0;
}

/* ---- fetch: rows of the next batch, see fetch.h -------------------------------------------------------------- */

/* Lines for each of so many tiles. */
static inline int64_t fetch_pace(const fm_op *op, const fm_step *step, int64_t tiles)
{
    return op->data ? fm_parts_of(fm_fetch_lines(step->coming), tiles) : 0;
}
