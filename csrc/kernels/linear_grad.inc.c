/* The gradient of a dense layer with respect to its weights, and the update fused into it: a tile of that gradient exists only
 * in scratch or registers. */

#define NEAR (512 << 10) /* bytes of weights that, updated with their state, stay in the L2 cache */
#define SHARED (192 << 10) /* the same if other workers have read them */
#define PACKED ((256 << 10) / (int64_t)sizeof(real)) /* numbers of dy, packed: a quarter of an L2 cache of 1 MB */
#define PACKED_SPAN 64   /* least number of rows of w for which packing pays */
#define PACKED_LEAST (8 << 10) /* bytes of a panel of dy above which packing pays */
#define WALKED (2 << 20) /* bytes of weights above which it pays to update them in the order of their rows */
#define WHOLE (512 << 10) /* bytes of dy that stay in the L2 cache unpacked */
#define NEAR_PANEL (32 << 10) /* bytes of a panel of dy that stays in the L1 cache */
#define NEAR_COLUMNS (FM_BYTES == 64 ? 0 : 16 << 10) /* bytes of columns of x that stay there together with a panel of dy */
#define COPIED (2 * NEAR_COLUMNS / (int)sizeof(real) + 1) /* room for a copy of them, in whole vectors */
#define LEAST_TILES 4    /* tiles in a block: fewer save less than reading the panel of dy again costs */
#define COPIED_LEAST 4   /* panels that read them, for which a copy pays if rows lie anywhere, each on a page of its own */
#define COPIED_APART 16  /* the same if rows are far apart */
#define NARROW 4         /* times as many lanes as columns: vectors across the columns would be too empty */
#define RUN_ROWS (FM_BYTES == 64 ? 128 : 256) /* rows of the batch: a tile's columns of x and a panel of dy stay in the L1 cache */
#define LONG_ROWS 256    /* rows of the batch above which it is split into runs */
#define LONG_RUN 1024    /* both, if the L2 cache is as good */
#define SUMMED_ROWS 1024 /* rows of the batch in one chain; sums of more are added up: rounding errors grow with a chain's length */
#define PART_OF_ROWS 128 /* the part of the weights whose gradient a long batch adds up at a time */
#define PART_OF_COLUMNS ((int)(1024 / sizeof(real)))

/* g_b[j] = sum of dy[r, j] over rows, in increasing r. The bias is the weight of an input that is always 1. */
static void bias_gradient(const real *dy, int64_t ldy, int64_t rows, int64_t vectors, real *g)
{
    static const real one = 1;
    struct product p = {.k = rows, .a = &one, .ldb = ldy, .init = zeros};
    for (int64_t v = 0, wide; v < vectors; v += wide) {
        wide = panel_vectors(1, vectors - v);
        p.b = dy + v * LANES, p.c = g + v * LANES;
        tiles[TN][wide][1](&p);
    }
}

/* t[rows, width] = m[rows, width], contiguous. */
static void pack(const real *m, int64_t ldm, int64_t rows, real *t, int64_t width)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < width; c += LANES) vf_store(t + r * width + c, vf_load(m + r * ldm + c));
}

/* Packs a block of columns of dy, panel by panel: each is read once for every tile of its columns of the weights. */
static void pack_panels(const real *dy, int64_t ldy, int64_t rows, int64_t span, int64_t vectors, real *t)
{
    for (int64_t v = 0, wide; v < vectors; v += wide) {
        const int64_t width = (wide = panel_vectors(span, vectors - v)) * LANES;
        pack(dy + v * LANES, ldy, rows, t, width);
        t += rows * width;
    }
}

/* Whether dy is packed first. A panel that stays in the L1 cache gains nothing by that, unless another core has written half of
 * it, which is read faster in sequence than between multiply-adds. */
static int is_packed(const fm_step *step, int64_t rows, int64_t span, int64_t vectors)
{
    const int64_t panel = rows * panel_vectors(span, vectors) * LANES;
    const int pays = step->far_apart || panel * (int64_t)sizeof(real) > PACKED_LEAST;
    return pays && span >= PACKED_SPAN && vectors > 2 && panel <= PACKED;
}

/* A gradient being computed: into g, optionally added to it; or, with an updater, into a tile of scratch, or from registers
 * straight into the weights. If each tile updates the previous one's weights, two scratch tiles alternate: one is used for the
 * update while the other is filled. */
struct gradient {
    const fm_op *op;
    const struct updater *updater;
    const real *x;         /* the first row of the batch */
    int64_t ld;            /* row stride of g, or of the weights */
    int go_on, far;        /* start from g; the parameters are not near (see NEAR) */
    fm_fetch *coming;      /* rows of the next batch to prefetch */
    int64_t pace;          /* lines of those per tile */
    int form;              /* form of the tiles */
    tile_table *moving;    /* tiles that update weights, or null */
    struct product product;
    struct parameters moved; /* updated by such a tile */
    struct ahead ahead[3];
    real *tile, *other;
};

/* Sets the prefetches of what a tile writes, the gradient or the parameters, from element `at` on. */
static void look_at_parameters(struct gradient *s, int64_t at, int64_t rows)
{
    const fm_op *op = s->op;
    const fm_mat none = {0}, of[3] = {s->updater ? op->w : op->g, s->updater ? op->s1 : none, s->updater ? op->s2 : none};
    s->product.n_ahead = 0;
    for (int m = 0; m < 3; m++)
        if (of[m].p) s->ahead[s->product.n_ahead++] = ahead_of((const real *)of[m].p + at, of[m].ld, rows);
}

/* A tile that updates the previous tile's weights, if those have a suitable width; the weights at `next` are updated two tiles
 * later. */
INLINE void tile_moving_behind(struct gradient *s, int64_t i, int64_t j, int64_t rows, int wide, int64_t next)
{
    struct product *p = &s->product;
    const int wide_enough = s->moved.vectors >= 2 && s->moved.vectors <= MOVED_VECTORS;
    tile_fn *const moving = wide_enough ? (*s->moving)[wide][rows] : 0;
    p->c = s->tile, p->ldc = tile_ld(wide);
    p->look = s->far || moving ? look_every(p->k, 1, rows) : 0;
    if (s->far && moving) p->coming = (const char *)((const real *)s->op->w.p + next);
    else if (s->far) look_at_parameters(s, next, rows);
    (moving ? moving : tile_for(s->form, wide, rows))(p);
    catch_up(&s->moved, s->op);
    aim_at(&s->moved, s->op, i, j, rows, wide, s->tile);
    real *swap = s->tile;
    s->tile = s->other, s->other = swap;
}

/* The tile of rows i .. i + rows - 1 from column j on, `wide` vectors. next: the first parameter of the next tile. */
INLINE void gradient_tile(struct gradient *s, int64_t i, int64_t j, int64_t rows, int wide, int64_t next)
{
    struct product *p = &s->product;
    if (MOVES_BEHIND && s->moving) {
        tile_moving_behind(s, i, j, rows, wide, next);
        return;
    }
    p->look = s->far ? look_every(p->k, 1, rows) : 0;
    if (s->far) look_at_parameters(s, next, rows);
    tile_fn *const moving = s->moving ? (*s->moving)[wide][rows] : 0;
    if (moving) {
        aim_at(&s->moved, s->op, i, j, rows, wide, 0);
        moving(p);
        return;
    }
    p->c = s->updater ? s->tile : (real *)s->op->g.p + i * s->op->g.ld + j;
    p->ldc = s->updater ? tile_ld(wide) : s->op->g.ld;
    if (s->go_on) p->init = p->c;
    tile_for(s->form, wide, rows)(p);
    if (s->updater) update_block(s->updater, s->op, i * s->op->w.ld + j, s->tile, p->ldc, rows, wide);
}

/* The tiles of a panel, one below the other. next: the first parameter of the tile after the panel. */
static void down_panel(struct gradient *s, int64_t begin, int64_t end, int64_t v, int wide, int64_t next)
{
    for (int64_t i = begin, left = grad_tiles_in(end - begin, wide), m; i < end; i += m, left--) {
        m = (end - i) / left; /* later ones are taller, and have a look for every row of the previous one */
        s->product.a = s->x + i, s->product.skip = i;
        fm_fetch_some(s->coming, s->pace);
        gradient_tile(s, i, v * LANES, m, wide, i + m < end ? (i + m) * s->ld + v * LANES : next);
    }
}

/* Vectors of dy (0: one panel at a time) and rows of w that are done together; and whether their columns of x are copied. */
struct block {
    int64_t vectors, rows;
    int copied;
};

/* With many weights, or if a panel of dy does not stay in the L1 cache, a block is one tile high, and tiles follow one another
 * along the rows of w. So too for few rows of the batch, which need no packing: most of the time is spent reading and writing
 * the weights, best in order. (On an Intel, updates of 4096 x 4096 by 4 to 32 rows took 2.1 times as long down the panels, of
 * 1024 x 1024 1.0 to 1.3 times.) Else a block is as high as the L1 cache has room for columns of x beside a panel of dy, so that
 * they are read into it once and not for every panel; beside three vectors of 64 bytes it has none. */
static struct block block_of(int64_t bytes, int64_t rows, int64_t span, int64_t vectors, int far, int packs, int form)
{
    const int widest = panel_vectors(span, vectors), tile = tile_rows[widest];
    const int64_t packed = packs ? PACKED / rows / (widest * LANES) * widest : vectors, panel = rows * widest * FM_BYTES;
    if (far && packs && (bytes > WALKED || panel > NEAR_PANEL)) return (struct block){packed, tile, 0};
    const int few = !packs && panel <= PACKED_LEAST && (NEAR_COLUMNS == 0 || bytes > DISTANT);
    if (far && few) return (struct block){larger_of(WHOLE / (rows * FM_BYTES), widest) / widest * widest, tile, 0};
    const int64_t tiles = NEAR_COLUMNS / (rows * tile * (int64_t)sizeof(real)), panels = at_most(packed, vectors) / widest;
    if (tiles < LEAST_TILES) return (struct block){0, span, 0};
    return (struct block){packed, tiles * tile, form == TI ? panels >= COPIED_LEAST : form == TF && panels >= COPIED_APART};
}

/* t[rows, width] = columns i .. i + width - 1 of x. */
static void copy_columns(const fm_op *op, const real *const *at, int64_t first, int64_t rows, int64_t i, int64_t width, real *t,
                         int64_t ldt)
{
    for (int64_t r = 0; r < rows; r++, t += ldt) {
        const real *x = (at ? at[r] : (const real *)op->x.p + (first + r) * op->x.ld) + i;
        for (int64_t c = 0; c + LANES <= width; c += LANES) vf_store(t + c, vf_load(x + c));
        if (width >= LANES) vf_store(t + width - LANES, vf_load(x + width - LANES));
        else
            for (int64_t c = 0; c < width; c++) t[c] = x[c];
    }
}

/* Block by block: first down the rows of the weights, then the next columns, whose dy is packed in turn. go_on: start from the
 * sums in g (without an updater only). */
static void weight_gradient(const fm_op *op, const fm_step *step, int64_t begin, int64_t end, int64_t first, int64_t rows,
                            int go_on, const struct updater *updater)
{
    const int64_t span = end - begin, vectors = vectors_of(op->n_out), ldy = op->dy.ld;
    const real *dy = (const real *)op->dy.p + first * ldy, *const *at = rows_in_place(op, step, first);
    const int packs = is_packed(step, rows, span, vectors);
    const int64_t ld = updater ? op->w.ld : op->g.ld, bytes = updater ? weight_bytes(op) : span * ld * (int64_t)sizeof(real);
    const int far = bytes > (updater && is_shared(op, begin, end) ? SHARED : NEAR), widest = panel_vectors(span, vectors);
    const int as_it_lies = at ? TI : op->x.ld * (int64_t)sizeof(real) < GUESSED ? TN : TF;
    const struct block block = block_of(bytes, rows, span, vectors, far, packs, as_it_lies);
    const int form = block.copied ? TN : as_it_lies;
    const int64_t ldx = block.copied ? vectors_of(block.rows) * LANES : op->x.ld;
    real packed[PACKED] __attribute__((aligned(64))), scratch[2][TALLEST_TILE * PANEL_VECTORS * LANES] __attribute__((aligned(64)));
    real columns[COPIED] __attribute__((aligned(64)));
    struct gradient s = {
        .op = op, .updater = updater, .x = (const real *)op->x.p + first * op->x.ld, .ld = ld, .go_on = go_on, .far = far,
        .coming = step->coming, .pace = fetch_pace(op, step, grad_tiles_in(span, widest) * fm_parts_of(vectors, widest)),
        .form = form, .moving = moving_tiles_for(op, updater, rows, form), .moved.updater = updater,
        .product = {.k = rows, .lda = ldx, .at = at, .ldb = ldy, .init = zeros, .ldi = go_on ? op->g.ld : 0},
        .tile = scratch[0], .other = scratch[1],
    };
    s.product.ahead = s.ahead, s.product.moved = &s.moved;

    for (int64_t v0 = 0, v1; v0 < vectors; v0 = v1) {
        v1 = block.vectors ? at_most(vectors, v0 + block.vectors) : v0 + panel_vectors(span, vectors - v0);
        if (packs) pack_panels(dy + v0 * LANES, ldy, rows, span, v1 - v0, packed);
        for (int64_t i = begin, low; i < end; i = low) {
            const real *b = packed;
            low = at_most(end, i + block.rows);
            if (block.copied) copy_columns(op, at, first, rows, i, low - i, columns, ldx), s.x = columns - i;
            for (int64_t v = v0, wide; v < v1; v += wide) {
                wide = panel_vectors(span, v1 - v);
                s.product.b = packs ? b : dy + v * LANES;
                if (packs) s.product.ldb = wide * LANES, b += rows * wide * LANES;
                const int64_t beside = v + wide < v1, row = beside ? i : low < end ? low : begin;
                down_panel(&s, i, low, v, (int)wide, row * ld + (beside || low == end ? v + wide : v0) * LANES);
            }
        }
    }
    if (MOVES_BEHIND) catch_up(&s.moved, op);
}

/* Whether w has so few columns and so many rows that lanes should run along its rows instead. */
static int is_narrow(const fm_op *op, const fm_step *step)
{
    const int in_place = rows_in_place(op, step, 0) != 0; /* vectors of x would extend beyond the end of a row */
    return NARROW * op->n_out <= LANES && op->n_in >= NARROW * LANES && !in_place;
}

/* The same as g^T = dy^T x, transposed before the update: the same chains, without empty lanes. */
static void narrow_gradient(const fm_op *op, const fm_step *step, int64_t begin, int64_t end, int64_t first, int64_t rows,
                            int go_on, const struct updater *updater)
{
    const int64_t n = op->n_out, ldx = op->x.ld, ldg = op->g.ld, start = begin / LANES * LANES;
    real across[PANEL_VECTORS * LANES * LANES / NARROW] __attribute__((aligned(64)));
    real tile[PANEL_VECTORS * LANES * LANES] __attribute__((aligned(64)));
    const int64_t pace = fetch_pace(op, step, (vectors_of(end - start) + PANEL_VECTORS - 1) / PANEL_VECTORS);

    memset(tile, 0, sizeof tile);
    for (int64_t i = start, width; i < end; i += width) {
        const int wide = panel_vectors(n, vectors_of(end - i));
        width = wide * LANES;
        const int64_t from = begin > i ? begin - i : 0, to = at_most(width, end - i);
        real *g = (real *)op->g.p + i * ldg;
        fm_fetch_some(step->coming, pace);
        if (go_on)
            for (int64_t c = 0; c < width; c++)
                for (int64_t j = 0; j < n; j++) across[j * width + c] = c >= from && c < to ? g[c * ldg + j] : 0;
        const struct product p = {
            .k = rows, .a = (const real *)op->dy.p + first * op->dy.ld, .lda = op->dy.ld,
            .b = (const real *)op->x.p + first * ldx + i, .ldb = ldx, .c = across,
            .ldc = width, .init = go_on ? across : zeros, .ldi = go_on ? width : 0,
        };
        tiles[TN][wide][n](&p);
        for (int64_t c = from; c < to; c++)
            for (int64_t j = 0; j < n; j++) tile[c * LANES + j] = across[j * width + c];
        if (updater) update_block(updater, op, (i + from) * op->w.ld, tile + from * LANES, LANES, to - from, 1);
        else
            for (int64_t c = from; c < to; c++) vf_store(g + c * ldg, vf_load(tile + c * LANES));
    }
}

/* Rows of the weights, either way; not the bias. */
static void gradient(const fm_op *op, const fm_step *step, int64_t begin, int64_t end, int64_t first, int64_t rows, int go_on,
                     const struct updater *updater)
{
    (is_narrow(op, step) ? narrow_gradient : weight_gradient)(op, step, begin, end, first, rows, go_on, updater);
}

/* Into g, run by run of the batch: the same chains. */
static void gradient_in_runs(const fm_op *op, const fm_step *step, int64_t begin, int64_t end, int64_t first, int64_t rows)
{
    const int64_t longest = fm_cpu_takes_long_runs() ? LONG_RUN : RUN_ROWS;
    for (int64_t k = 0, run; k < rows; k += run) {
        run = at_most(rows - k, longest);
        gradient(op, step, begin, end, first + k, run, k > 0, 0);
    }
}

/* m[rows, vectors] += t. */
static void add_to(real *m, int64_t ldm, const real *t, int64_t ldt, int64_t rows, int64_t vectors)
{
    for (int64_t r = 0; r < rows; r++, m += ldm, t += ldt)
        for (int64_t c = 0; c < vectors * LANES; c += LANES) vf_store(m + c, vf_load(m + c) + vf_load(t + c));
}

/* One part of the weights after the other: its gradient is summed in scratch, before it updates them or, without an updater, is
 * added to g. */
static void gradient_in_parts(const fm_op *op, const fm_step *step, int64_t begin, int64_t end, int64_t first, int64_t rows,
                              const struct updater *updater)
{
    real g[PART_OF_ROWS * PART_OF_COLUMNS] __attribute__((aligned(64)));
    for (int64_t i = begin, last; i < end; i = last) {
        last = at_most(end, i / PART_OF_ROWS * PART_OF_ROWS + PART_OF_ROWS);
        for (int64_t j = 0; j < op->n_out; j += PART_OF_COLUMNS) {
            fm_op part = *op;
            part.n_out = at_most(op->n_out - j, PART_OF_COLUMNS), part.dy.p = (real *)op->dy.p + j;
            part.g.ld = vectors_of(part.n_out) * LANES, part.g.p = g - i / PART_OF_ROWS * PART_OF_ROWS * part.g.ld;
            part.data = i == begin && j == 0 ? op->data : 0; /* only the first prefetches the next batch */
            gradient_in_runs(&part, step, i, last, first, rows);
            const real *const sums = (const real *)part.g.p + i * part.g.ld;
            if (updater) update_block(updater, op, i * op->w.ld + j, sums, part.g.ld, last - i, vectors_of(part.n_out));
            else add_to((real *)op->g.p + i * op->g.ld + j, op->g.ld, sums, part.g.ld, last - i, vectors_of(part.n_out));
        }
    }
}

/* g_b += the bias gradient of these rows. */
static void add_bias_gradient(const fm_op *op, int64_t first, int64_t rows)
{
    real g[PANEL_VECTORS * LANES] __attribute__((aligned(64)));
    for (int64_t v = 0, n; v < vectors_of(op->n_out); v += n) {
        n = at_most(PANEL_VECTORS, vectors_of(op->n_out) - v);
        bias_gradient((const real *)op->dy.p + first * op->dy.ld + v * LANES, op->dy.ld, rows, n, g);
        add_to((real *)op->g.p + op->n_in * op->g.ld + v * LANES, 0, g, 0, 1, n);
    }
}

/* Not for weights from memory: they are updated tile by tile in any case, while the next tile's are prefetched. */
static int goes_in_parts(const fm_op *op, const fm_step *step)
{
    return step->rows > (fm_cpu_takes_long_runs() ? LONG_RUN : LONG_ROWS) && !is_distant(op) && !is_narrow(op, step);
}

static void linear_grad(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const int64_t last = at_most(end, op->n_in);
    const int bias = op->bias && end > op->n_in;
    for (int64_t k = 0, rows; k < step->rows; k += rows) {
        rows = at_most(step->rows - k, SUMMED_ROWS);
        const int add = k || op->accumulate;
        if (begin < last && add) gradient_in_parts(op, step, begin, last, k, rows, 0);
        else if (begin < last) gradient_in_runs(op, step, begin, last, k, rows);
        if (bias && add) add_bias_gradient(op, k, rows);
        else if (bias)
            bias_gradient(op->dy.p, op->dy.ld, rows, vectors_of(op->n_out), (real *)op->g.p + op->n_in * op->g.ld);
    }
}

NOINLINE void wide_update(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const int64_t last = at_most(end, op->n_in), ldy = op->dy.ld, ldw = op->w.ld;
    struct updater updater = updater_of(op, step, 0);
    updater.stream = is_streamed(op, step, is_shared(op, begin, end));
    if (begin < last && goes_in_parts(op, step)) gradient_in_parts(op, step, begin, last, 0, step->rows, &updater);
    else if (begin < last) gradient(op, step, begin, last, 0, step->rows, 0, &updater);
    if (updater.stream) vf_streamed();
    updater.stream = 0;
    if (!op->bias || end <= op->n_in) return;
    const struct updater bias_updater = bias_differs(op) ? updater_of(op, step, 1) : updater;
    real g[PANEL_VECTORS * LANES] __attribute__((aligned(64)));
    for (int64_t v = 0, n; v < vectors_of(op->n_out); v += n) {
        n = at_most(PANEL_VECTORS, vectors_of(op->n_out) - v);
        bias_gradient((const real *)op->dy.p + v * LANES, ldy, step->rows, n, g);
        update_block(&bias_updater, op, op->n_in * ldw + v * LANES, g, n * LANES, 1, n);
    }
}

static inline void update_from(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    (is_small(op, step->rows) ? small_update : wide_update)(op, step, begin, end);
}

NOINLINE void update_and_clear(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    update_from(op, step, begin, end);
    clear_faded(op, begin, end);
}

/* In two functions: a tiny update needs no frame of its own unless something follows it. */
static void linear_update(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    if (is_time_to_clear(step)) update_and_clear(op, step, begin, end);
    else update_from(op, step, begin, end);
}
