/* The matrix product: tiles acc[rows][vectors], kept in registers for a whole run of k, and panels of tiles.
 *
 * Every element of a result is one FMA chain in increasing k, whatever the tile, the panel or the place in the batch; a
 * chain split into runs of k continues from the stored value, which changes no bit. A tile starts from `init`: the bias
 * (row stride 0), zeros, or the chain so far.
 *
 *   nn  c[r, j] = init[r, j] + sum_k a[r * lda + k] b[k, j]       forward, and backward on a transposed panel
 *   tn  c[r, j] = init[r, j] + sum_k a[k * lda + r] b[k, j]       weight gradient: x as it lies, summed over the batch
 *   ti  c[r, j] = init[r, j] + sum_k at[k][r] b[k, j]             the same on rows of the data, in place */

#define RUN_K 512         /* length of a run of k: each tile reads a panel of b of this length from the L2 cache */
#define NEAR_TERMS 512    /* vectors in a panel of b that stays in the L1 cache */
#define PANEL_VECTORS 8   /* the widest panel */

/* The height of the tallest tile by panel width in vectors; 0: no such panel. Enough accumulators to hide the FMA latency, few
 * enough for them and the addresses of the rows to stay in registers. Without fused instructions the product needs one, too. */
#if FM_BYTES == 64
#define MAIN_VECTORS 3   /* width of the panels that hold most columns, ... */
#define MAIN_TILE_ROWS 8 /* ... and height of their tallest tile */
static const int tile_rows[PANEL_VECTORS + 1] = {0, 10, 10, MAIN_TILE_ROWS, 6, 0, 0, 0, 1};
#elif FM_BYTES == 32
#define MAIN_VECTORS 2
#define MAIN_TILE_ROWS 6
static const int tile_rows[PANEL_VECTORS + 1] = {0, 10, MAIN_TILE_ROWS, 0, 3, 0, 0, 0, 1};
#elif defined(__aarch64__)
#define MAIN_VECTORS 2
#define MAIN_TILE_ROWS 8
static const int tile_rows[PANEL_VECTORS + 1] = {0, 10, MAIN_TILE_ROWS, 0, 4, 0, 0, 0, 1};
#else
#define MAIN_VECTORS 2
#define MAIN_TILE_ROWS 4
static const int tile_rows[PANEL_VECTORS + 1] = {0, 8, MAIN_TILE_ROWS, 0, 2, 0, 0, 0, 1};
#endif
/* tn and ti of one vector: their rows are adjacent columns of x, and need only one address. */
#define TALLEST_ALONE (FM_BYTES == 64 ? 24 : tile_rows[1])
#define TALLEST_TILE (FM_BYTES == 64 ? 24 : 10)

#define LOOKING_VECTORS 3 /* wider panels have too few rows */
#define LOW_ROWS 3        /* height of their tallest tile */

/* For loops that are too short to be vectorised. */
#define NOT_VECTORISED __asm__ volatile("")

/* ---- tiles ------------------------------------------------------------------------------------------------------ */

/* What a product reads and writes, and what is applied to its elements before they are stored. */
struct product {
    int64_t k;
    const real *a, *b, *init;
    const real *const *at; /* if not null, rows of the data instead of a: row r (nn) or k (ti) begins at at[.] + skip */
    int64_t skip;
    real *c;
    int64_t lda, ldb, ldi, ldc;
    int64_t look; /* terms between looks, a multiple of TERMS; 0: none */
    struct ahead *ahead;
    int n_ahead;
    struct parameters *moved; /* parameters to be updated: the previous tile's, or its own */
    const char *coming; /* parameters of the next tile, to prefetch; null: they are near */
    int relu;           /* apply relu, which costs nothing here */
};
typedef void tile_fn(const struct product *p);

#define EACH_ACC(rows, nv)                                                                                             \
    UNROLL for (int r = 0; r < rows; r++)                                                                              \
        UNROLL for (int v = 0; v < nv; v++)

/* One term of every sum. The second of two terms is addressed by an offset in its instructions: by default, GCC increments a
 * pointer, or one for each row. */
#define TERM(rows, nv, AT, A, t)                                                                                       \
    {                                                                                                                  \
        AT(nv, t)                                                                                                      \
        if (nv > rows) TERM_BY_VECTORS(rows, nv, A, t)                                                                 \
        else TERM_BY_ROWS(rows, nv, A, t)                                                                              \
    }
#define B_AT(t, v) ({ ONE_REGISTER(step) (const real *)(b + b_waits * t * step) + v * LANES; })
#define TERM_BY_ROWS(rows, nv, A, t)                                                                                   \
    {                                                                                                                  \
        vf bv[nv];                                                                                                     \
        UNROLL for (int v = 0; v < nv; v++) bv[v] = vf_load(B_AT(t, v));                                               \
        UNROLL for (int r = 0; r < rows; r++) {                                                                        \
            if (nv == 1) vf_accumulate_of(&acc[r][0], A(t), bv[0]);                                                    \
            else if (nv == 2) vf_accumulate_two(acc[r], A(t), bv);                                                     \
            else {                                                                                                     \
                const vf ar = vf_set1(*A(t));                                                                          \
                UNROLL for (int v = 0; v < nv; v++) vf_accumulate(&acc[r][v], ar, bv[v]);                              \
            }                                                                                                          \
        }                                                                                                              \
    }
#define TERM_BY_VECTORS(rows, nv, A, t)                                                                                \
    {                                                                                                                  \
        vf ar[rows];                                                                                                   \
        UNROLL for (int r = 0; r < rows; r++) ar[r] = vf_set1(*A(t));                                                  \
        UNROLL for (int v = 0; v < nv; v++) {                                                                          \
            if (rows == 1) vf_accumulate_by(&acc[0][v], ar[0], B_AT(t, v));                                            \
            else {                                                                                                     \
                const vf bv = vf_load(B_AT(t, v));                                                                     \
                UNROLL for (int r = 0; r < rows; r++) vf_accumulate(&acc[r][v], ar[r], bv);                            \
            }                                                                                                          \
        }                                                                                                              \
    }
#define NEXT_OF_B(terms)                                                                                               \
    {                                                                                                                  \
        b += (terms) * step;                                                                                           \
        ONE_REGISTER(b)                                                                                                \
    }
/* Whether multiply-adds have the inputs, or b, as memory operand. On Intel these are fused to one micro-operation only if the
 * address is a register plus a constant; so there each pointer is incremented, instead of a common index. */
#define READS_INPUTS(rows, nv) (FM_BYTES == 64 && nv == 1)
#define READS_B(rows) (rows == 1)
/* i, the position in k, is in bytes. b_waits: b is incremented once for both terms, not before the second. */
#define TILE(form, rows, nv, ROWS, AT, A, NEXT, BEFORE, LOOK, AFTER)                                                   \
    static void tile_##form##_##rows##x##nv(const struct product *p)                                                   \
    {                                                                                                                  \
        enum { reads_inputs = READS_INPUTS(rows, nv), reads_b = READS_B(rows) };                                       \
        vf acc[rows][nv];                                                                                              \
        const char *b = (const char *)p->b;                                                                            \
        int64_t i = 0, step = p->ldb * (int64_t)sizeof(real);                                                          \
        const int64_t one = sizeof(real), k = p->k * one, together = p->k / TERMS * TERMS * one, ldc = p->ldc;         \
        const int64_t look = nv <= LOOKING_VECTORS && p->look ? p->look * one : k;                                     \
        real *c = p->c;                                                                                                \
        ROWS BEFORE                                                                                                    \
        EACH_ACC(rows, nv) acc[r][v] = vf_load(p->init + r * p->ldi + v * LANES);                                      \
        while (i < together) {                                                                                         \
            const int64_t stop = at_most(i + look, together);                                                          \
            if (nv <= LOOKING_VECTORS) {                                                                               \
                LOOK                                                                                                   \
            }                                                                                                          \
            do {                                                                                                       \
                TERM(rows, nv, AT, A, 0)                                                                               \
                if (TERMS == 2) {                                                                                      \
                    if (!b_waits) NEXT_OF_B(1)                                                                         \
                    TERM(rows, nv, AT, A, 1)                                                                           \
                }                                                                                                      \
                NEXT_OF_B(b_waits ? TERMS : 1)                                                                         \
                i += TERMS * one;                                                                                      \
                ONE_REGISTER(i)                                                                                        \
                NEXT                                                                                                   \
            } while (i < stop);                                                                                        \
        }                                                                                                              \
        if (TERMS == 2 && i < k) TERM(rows, nv, AT, A, 0)                                                              \
        AFTER                                                                                                          \
        if (p->relu) {                                                                                                 \
            EACH_ACC(rows, nv) acc[r][v] = relu(acc[r][v]);                                                            \
        }                                                                                                              \
        EACH_ACC(rows, nv) vf_store(c + r * ldc + v * LANES, acc[r][v]);                                               \
    }

#define NONE(...)
/* nn; nf, whose b does not stay in the L1 cache: its rows are a stride apart, and come late even from L2. */
#define LINES_AHEAD 8 /* rows ahead to prefetch; a factor that x86 addresses can have */
#define ROWS_OF_X(rows)                                                                                                \
    const char *row[rows];                                                                                             \
    UNROLL for (int r = 0; r < rows; r++) row[r] = (const char *)(p->at ? p->at[r] + p->skip : p->a + r * p->lda);
#define NN_ROWS(rows) ROWS_OF_X(rows) enum { b_waits = !reads_b };
#define NF_ROWS(rows) ROWS_OF_X(rows) enum { b_waits = 0 };
#define NN_A(t) ((const real *)(reads_inputs ? row[r] : row[r] + i) + t)
#define NN_NEXT(rows)                                                                                                  \
    if (reads_inputs) {                                                                                                \
        UNROLL for (int r = 0; r < rows; r++) {                                                                        \
            row[r] += TERMS * one;                                                                                     \
            ONE_REGISTER(row[r])                                                                                       \
        }                                                                                                              \
    }
#define NF_AT(nv, t)                                                                                                   \
    UNROLL for (int l = 0; l < nv * FM_BYTES; l += LINE) {                                                             \
        ONE_REGISTER(step)                                                                                             \
        __builtin_prefetch(b + LINES_AHEAD * step + l);                                                                \
    }
/* tn; tf, whose rows of x are too far apart for the hardware prefetcher; ti, whose rows lie anywhere. */
#define GUESSED 2048 /* bytes from one row to the next that it can follow */
#define TN_ROWS                                                                                                        \
    const char *a = (const char *)p->a;                                                                                \
    int64_t lda = p->lda * (int64_t)sizeof(real);                                                                      \
    enum { b_waits = !reads_b };
#define TN_A(t) ({ ONE_REGISTER(lda) (const real *)(reads_inputs ? a : a + t * lda) + r; })
#define TN_AT(nv, t)                                                                                                   \
    if (reads_inputs && t) {                                                                                           \
        a += lda;                                                                                                      \
        ONE_REGISTER(a)                                                                                                \
    }
#define TN_NEXT a += (reads_inputs ? 1 : TERMS) * lda; ONE_REGISTER(a)
#define TF_AT(nv, t) __builtin_prefetch(a + t * lda + LINES_AHEAD * lda);
#define TI_ROWS                                                                                                        \
    const char *const *at = (const char *const *)p->at;                                                                \
    int64_t skip = p->skip * (int64_t)sizeof(real);                                                                    \
    enum { b_waits = !reads_b };
#define TI_AT(nv, t)                                                                                                   \
    const char *a = reads_inputs ? at[t] + skip : at[t], *coming = at[t + FM_ROWS_AHEAD];                              \
    ONE_REGISTER(a)                                                                                                    \
    ONE_REGISTER(coming)                                                                                               \
    ONE_REGISTER(skip)                                                                                                 \
    __builtin_prefetch(coming + skip);
#define TI_A(t) ({ ONE_REGISTER(skip) (const real *)(reads_inputs ? a : a + skip) + r; })
#define TI_NEXT at += TERMS; ONE_REGISTER(at)

/* Tiles whose results update weights prefetch for writing. */
#define LOOK_AHEAD(nv, take) look_ahead(p->ahead, p->n_ahead, nv * FM_BYTES, take);
#define TILES(form, rows, nv)                                                                                          \
    TILE(nn, rows, nv, NN_ROWS(rows), NONE, NN_A, NN_NEXT(rows), , LOOK_AHEAD(nv, 0), )                                \
    TILE(tn, rows, nv, TN_ROWS, TN_AT, TN_A, TN_NEXT, , LOOK_AHEAD(nv, 1), )                                           \
    TILE(ti, rows, nv, TI_ROWS, TI_AT, TI_A, TI_NEXT, , LOOK_AHEAD(nv, 1), )
#define FAR_TILES(form, rows, nv)                                                                                      \
    TILE(nf, rows, nv, NF_ROWS(rows), NF_AT, NN_A, , , LOOK_AHEAD(nv, 0), )                                            \
    TILE(tf, rows, nv, TN_ROWS, TF_AT, TN_A, TN_NEXT, , LOOK_AHEAD(nv, 1), )
#define FAR_LOW_TILES(form, rows, nv) TILE(nf, rows, nv, NF_ROWS(rows), NF_AT, NN_A, , , , )

#define ALONE_TILES(form, rows, nv)                                                                                    \
    TILE(tn, rows, nv, TN_ROWS, TN_AT, TN_A, TN_NEXT, , LOOK_AHEAD(nv, 1), )                                           \
    TILE(ti, rows, nv, TI_ROWS, TI_AT, TI_A, TI_NEXT, , LOOK_AHEAD(nv, 1), )

/* All tiles as AS(form, rows, vectors). EACH_OF_SEVERAL: those in panels of several tiles, two or three vectors wide.
 * EACH_LOW_AND_WIDE: those for few rows in all, which have time to prefetch b. */
#define EACH_LOW_AND_WIDE(AS, form) AS(form, 1, 4) AS(form, 2, 4) AS(form, 1, 8) THREE_BY_FOUR(AS, form)
#if FM_BYTES > 16 || defined(__aarch64__) /* else there are too few registers */
#define THREE_BY_FOUR(AS, form) AS(form, 3, 4)
#else
#define THREE_BY_FOUR(AS, form)
#endif
#define LOW(AS, form)                                                                                                  \
    AS(form, 1, 1) AS(form, 2, 1) AS(form, 3, 1) AS(form, 4, 1) AS(form, 5, 1) AS(form, 6, 1) AS(form, 7, 1) AS(form, 8, 1)\
    AS(form, 1, 2) AS(form, 2, 2) AS(form, 3, 2) AS(form, 4, 2) AS(form, 1, 4) AS(form, 2, 4) AS(form, 1, 8)
#if FM_BYTES == 64
#define EACH_TILE(AS, form)                                                                                            \
    LOW(AS, form) AS(form, 9, 1) AS(form, 10, 1) AS(form, 3, 4) AS(form, 4, 4) AS(form, 5, 4) AS(form, 6, 4)           \
    AS(form, 1, 3) AS(form, 2, 3) AS(form, 3, 3) /* for the remainder of a block of rows */                                \
    EACH_OF_SEVERAL(AS, form)
#define EACH_OF_SEVERAL(AS, form)                                                                                      \
    AS(form, 5, 2) AS(form, 6, 2) AS(form, 7, 2) AS(form, 8, 2) AS(form, 9, 2) AS(form, 10, 2)                         \
    AS(form, 4, 3) AS(form, 5, 3) AS(form, 6, 3) AS(form, 7, 3) AS(form, 8, 3)
#define EACH_ALONE(AS, form)                                                                                           \
    AS(form, 11, 1) AS(form, 12, 1) AS(form, 13, 1) AS(form, 14, 1) AS(form, 15, 1) AS(form, 16, 1) AS(form, 17, 1)    \
    AS(form, 18, 1) AS(form, 19, 1) AS(form, 20, 1) AS(form, 21, 1) AS(form, 22, 1) AS(form, 23, 1) AS(form, 24, 1)
#elif FM_BYTES == 32
#define EACH_ALONE(AS, form)
#define EACH_TILE(AS, form) LOW(AS, form) AS(form, 9, 1) AS(form, 10, 1) AS(form, 5, 2) AS(form, 6, 2) AS(form, 3, 4)
#define EACH_OF_SEVERAL(AS, form) AS(form, 3, 2) AS(form, 4, 2) AS(form, 5, 2) AS(form, 6, 2)
#elif defined(__aarch64__)
#define EACH_ALONE(AS, form)
#define EACH_TILE(AS, form)                                                                                            \
    LOW(AS, form) AS(form, 9, 1) AS(form, 10, 1) AS(form, 5, 2) AS(form, 6, 2) AS(form, 7, 2) AS(form, 8, 2)           \
    AS(form, 3, 4) AS(form, 4, 4)
#define EACH_OF_SEVERAL(AS, form)
#else
#define EACH_ALONE(AS, form)
#define EACH_TILE(AS, form) LOW(AS, form)
#define EACH_OF_SEVERAL(AS, form)
#endif
EACH_TILE(TILES, )
EACH_ALONE(ALONE_TILES, )
EACH_OF_SEVERAL(FAR_TILES, )
EACH_LOW_AND_WIDE(FAR_LOW_TILES, )

typedef tile_fn *const tile_table[PANEL_VECTORS + 1][TALLEST_TILE + 1]; /* by vectors and rows; null: no such tile */
#define BY_SIZE(form, rows, nv) [nv][rows] = tile_##form##_##rows##x##nv,
enum { NN, TN, TI, NF, TF };
static tile_table tiles[5] = {
    {EACH_TILE(BY_SIZE, nn)}, {EACH_TILE(BY_SIZE, tn) EACH_ALONE(BY_SIZE, tn)}, {EACH_TILE(BY_SIZE, ti) EACH_ALONE(BY_SIZE, ti)},
    {EACH_OF_SEVERAL(BY_SIZE, nf) EACH_LOW_AND_WIDE(BY_SIZE, nf)}, {EACH_OF_SEVERAL(BY_SIZE, tf)},
};

/* The tile of a form, or of the plain form (nn or tn) if there is none of this size. */
static inline tile_fn *tile_for(int form, int wide, int64_t rows)
{
    tile_fn *const tile = tiles[form][wide][rows];
    return tile ? tile : tiles[form == NF ? NN : TN][wide][rows];
}

/* ---- tiles that update weights ------------------------------------------------------------------------------ */

/* For the most common rules. With 32 registers, a tile updates the previous tile's weights, whose gradient is in scratch: there
 * is a look for each row, and each look updates a row. Of 16 registers the sums leave too few: there a tile updates its own
 * weights at its end, when their gradient is in registers. */
#define MOVES_BEHIND (FM_BYTES == 64)
#define MOVING_TERMS (MOVES_BEHIND ? 64 : 1) /* with fewer it does not pay */

#if MOVES_BEHIND
#define MOVE_BEFORE                                                                                                    \
    struct parameters behind = *p->moved; /* a copy that no store can reach: it stays in registers */                  \
    const char *coming = p->coming;
#define MOVE_LOOK(kind, momentum, nv)                                                                                  \
    coming = look_at_coming(coming, &behind, kind, momentum, nv * FM_BYTES);                                           \
    move_behind(&behind, kind, momentum);
#define MOVE_AFTER(kind, momentum, rows, nv) *p->moved = behind;
#else
#define MOVE_BEFORE
#define MOVE_LOOK(kind, momentum, nv) LOOK_AHEAD(nv, 1)
#define MOVE_AFTER(kind, momentum, rows, nv)                                                                           \
    struct updater updater = *p->moved->updater;                                                                       \
    updater.nesterov = 0;                                                                                              \
    if (updater.stream) MOVE_SUMS(kind, momentum, rows, nv, vf_stream)                                                 \
    else MOVE_SUMS(kind, momentum, rows, nv, vf_store)                                                                 \
    return;
#define MOVE_SUMS(kind, momentum, rows, nv, STORE)                                                                     \
    {                                                                                                                  \
        real *w = p->moved->w, *s1 = p->moved->s1, *s2 = p->moved->s2;                                                 \
        const int64_t ld = p->moved->ld;                                                                               \
        UNROLL for (int r = 0; r < rows; r++) {                                                                        \
            UNROLL for (int c = 0; c < nv * LANES; c += LANES)                                                         \
                STORE(w + c, moved(&updater, kind, momentum, 1, vf_load(w + c), acc[r][c / LANES], s1 + c, s2 + c));   \
            w += ld, s1 += ld;                                                                                         \
            if (kind == FM_OPT_adam) s2 += ld;                                                                         \
        }                                                                                                              \
    }
#endif
#define MOVING_TILE(rule, kind, momentum, rows, nv)                                                                    \
    TILE(tn_##rule, rows, nv, TN_ROWS, NONE, TN_A, TN_NEXT, MOVE_BEFORE, MOVE_LOOK(kind, momentum, nv),                \
         MOVE_AFTER(kind, momentum, rows, nv))                                                                         \
    TILE(ti_##rule, rows, nv, TI_ROWS, TI_AT, TI_A, TI_NEXT, MOVE_BEFORE, MOVE_LOOK(kind, momentum, nv),               \
         MOVE_AFTER(kind, momentum, rows, nv))                                                                         \
    TILE(tf_##rule, rows, nv, TN_ROWS, TF_AT, TN_A, TN_NEXT, MOVE_BEFORE, MOVE_LOOK(kind, momentum, nv),               \
         MOVE_AFTER(kind, momentum, rows, nv))
#define MOVING(form, rows, nv)                                                                                         \
    MOVING_TILE(sgd, FM_OPT_sgd, 0, rows, nv)                                                                          \
    MOVING_TILE(momentum, FM_OPT_sgd, 1, rows, nv)                                                                     \
    MOVING_TILE(adam, FM_OPT_adam, 0, rows, nv)
EACH_OF_SEVERAL(MOVING, )

#define BY_RULE(form)                                                                                                  \
    {{EACH_OF_SEVERAL(BY_SIZE, form##_sgd)}, {EACH_OF_SEVERAL(BY_SIZE, form##_momentum)}, {EACH_OF_SEVERAL(BY_SIZE, form##_adam)}}
static tile_table moving_tiles[5][3] = {[TN] = BY_RULE(tn), [TI] = BY_RULE(ti), [TF] = BY_RULE(tf)};

/* Null if there are none. k: number of terms of each sum. */
static tile_table *moving_tiles_for(const fm_op *op, const struct updater *updater, int64_t k, int form)
{
    if (!updater || !updater->plain || updater->nesterov || k < MOVING_TERMS) return 0;
    if (op->kind == FM_OPT_adam) return &moving_tiles[form][2];
    return op->kind == FM_OPT_sgd ? &moving_tiles[form][op->s1.p != 0] : 0;
}

/* ---- panels --------------------------------------------------------------------------------------------------- */

/* The width of the next panel. Three vectors use each broadcast three times, and avoid that a single one remains; if there are
 * fewer rows than in a tile, there are accumulators for a wider panel. */
static inline int panel_vectors(int64_t rows, int64_t vectors)
{
    if (vectors < 2) return 1;
    if (vectors >= 8 && rows <= tile_rows[8]) return 8;
    if (vectors >= 4 && rows <= tile_rows[4]) return 4;
    return vectors != 2 && vectors != 4 && tile_rows[3] > 0 && rows > tile_rows[3] / 2 ? 3 : 2;
}

/* Number of tiles in a panel's rows: of nn, and of tn or ti. */
static inline int64_t tiles_in(int64_t rows, int wide) { return fm_parts_of(rows, tile_rows[wide]); }
static inline int64_t grad_tiles_in(int64_t rows, int wide)
{
    return fm_parts_of(rows, wide == 1 ? TALLEST_ALONE : tile_rows[wide]);
}

/* Addresses of rows of x from row `first` of the batch on, if they are read in place; else null. */
static inline const real *const *rows_in_place(const fm_op *op, const fm_step *step, int64_t first)
{
    return op->direct && step->at ? (const real *const *)step->at + first : 0;
}

/* Whether a panel of b does not stay in the L1 cache, and is not packed. */
static inline int is_far(const struct product *p, int wide)
{
    return p->ldb > wide * LANES && p->k * wide > NEAR_TERMS;
}

/* One panel of nn, c[rows, wide vectors], its rows divided evenly into tiles (32 is 6+6+5+5+5+5, not 6+6+6+6+6+2). Advances p
 * to the end of the panel. */
static void panel(struct product *p, int64_t rows, int wide)
{
    const int far = is_far(p, wide);
    for (int64_t left = tiles_in(rows, wide), m; rows > 0; left--, rows -= m) {
        m = (rows + left - 1) / left;
        tile_for(far ? NF : NN, wide, m)(p);
        if (p->at) p->at += m;
        else p->a += m * p->lda;
        p->init += m * p->ldi, p->c += m * p->ldc;
    }
}

static const real zeros[PANEL_VECTORS * 64 / sizeof(real)] __attribute__((aligned(64)));
