/* What a product does meanwhile. Multiply-adds keep two units of a core busy and leave the others idle; so a tile stops
 * every few terms of its sums to look after something else for a moment. */

/* From one look to the next, of k terms in each of so many products that together have to look so many times. */
static inline int64_t look_every(int64_t k, int64_t products, int64_t looks)
{
    return looks <= products ? k : larger_of(k * products / looks, 1);
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

/* Their gradient is complete, and lies in scratch. */
struct behind {
    const struct mover *mover;
    real *w, *s1, *s2; /* the next row to be moved, and its states */
    int64_t ld;        /* elements from one to the next */
    const real *g;     /* its gradient, and the others' at once behind it */
    int64_t rows;      /* left */
    int vectors;       /* of each row */
};

/* Rows i .. i + rows - 1 of the weights, from column j on. */
static inline void fall_behind(struct behind *b, const fm_op *op, int64_t i, int64_t j, int64_t rows, int vectors, const real *g)
{
    const int64_t at = i * op->w.ld + j;
    b->w = (real *)op->w.p + at, b->ld = op->w.ld;
    b->s1 = op->s1.p ? (real *)op->s1.p + at : b->w, b->s2 = op->s2.p ? (real *)op->s2.p + at : b->w;
    b->g = g, b->rows = rows, b->vectors = vectors;
}

/* One row, if there is one left; with a constant rule, and vectors. */
INLINE void move_behind(struct behind *b, const struct mover *mover, int kind, int momentum, int vectors)
{
    if (!b->rows) return;
    move_as(mover, kind, momentum, 1, b->w, b->s1, b->s2, 0, b->g, 0, 1, vectors);
    b->w += b->ld, b->s1 += b->ld, b->s2 += b->ld, b->g += vectors * LANES, b->rows--;
}

/* Asks for a row of the parameters of the tile to come, laid out as those behind; null: they are near. */
INLINE const char *look_at_coming(const char *coming, const struct behind *b, int kind, int momentum, int bytes)
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
static inline void catch_up(struct behind *b, const fm_op *op)
{
    if (b->rows) move(b->mover, op, b->w - (real *)op->w.p, b->g, b->vectors * LANES, b->rows, b->vectors);
    b->rows = 0;
}

/* ---- fetch: rows of the next batch -------------------------------------------------------------------------- */

/* The rows of the next batch lie in random order in memory, where the processor cannot guess them; asked for all at once
 * they would keep everything else waiting. So each tile of the first layer's weights asks for its share. */
struct fetch {
    const char *data;           /* where what is read of the data's first row begins */
    int64_t data_row, bytes;    /* from one row to the next, and of each */
    const int64_t *row, *last;  /* the row at hand, and the end */
    const char *line, *end;     /* of that row: the next line, and the end */
    int64_t pace;               /* lines a tile */
};

/* To the row at hand, if there is one. */
static inline void fetch_row(struct fetch *f)
{
    if (f->row == f->last) f->pace = 0;
    else f->line = f->data + *f->row * f->data_row, f->end = f->line + f->bytes;
}

static inline struct fetch fetch_of(const fm_op *op, const fm_step *step, int64_t begin, int64_t end, int64_t tiles)
{
    const int64_t first = op->partial ? begin : 0, last = op->partial ? end : op->n_in;
    struct fetch f = {.data_row = op->data_row, .bytes = (last - first) * op->data_column};
    if (!op->data || !step->coming || f.bytes < 256 || op->data_column > 8) return f; /* the cache has small ones anyway */
    f.data = op->data + first * op->data_column, f.row = step->coming, f.last = step->coming + step->coming_rows;
    f.pace = parts_of(step->coming_rows * ((f.bytes + LINE - 1) / LINE), tiles);
    fetch_row(&f);
    return f;
}

static inline void fetch_some(struct fetch *f)
{
    for (int64_t n = f->pace; n > 0 && f->pace; n--) {
        __builtin_prefetch(f->line, 0, 2);
        f->line += LINE;
        if (f->line >= f->end) f->row++, fetch_row(f);
    }
}
