/* The one matrix product: a register tile acc[rows][vectors] held for a whole run of k, and the panels made of it.
 *
 * Every element of a result is one FMA chain in rising k, whatever the tile, the panel or the place in the batch; a
 * chain cut into runs of k goes on from the stored value, which changes no bit. A tile starts from `init`: the bias (row
 * stride 0), zeros, or the chain so far.
 *
 *   nn  c[r, j] = init[r, j] + sum_k a[r * lda + k] b[k, j]       forward, and backward on a transposed panel
 *   tn  c[r, j] = init[r, j] + sum_k a[k * lda + r] b[k, j]       weight gradient: x as it lies, summed over the batch
 *   ti  c[r, j] = init[r, j] + sum_k at[k][r] b[k, j]             the same on rows of the data, in place */

#define RUN_K 512         /* of k at a time: a panel of b this long comes from the second-level cache for every tile */
#define NEAR_K 256        /* of k: a panel of b this long stays in the first-level cache */
#define PANEL_VECTORS 8   /* the widest panel */

/* The tallest tile of each panel width (1, 2, 4, 8 vectors): enough accumulators to hide the FMA latency, few enough to
 * stay in registers, as the addresses of the rows must too. Without fused instructions the product needs a register. */
#if FM_BYTES == 64
static const int tile_rows[4] = {10, 10, 6, 1};
#elif FM_BYTES == 32
static const int tile_rows[4] = {10, 6, 3, 1};
#elif defined(__aarch64__)
static const int tile_rows[4] = {10, 8, 4, 1};
#else
static const int tile_rows[4] = {8, 4, 2, 1};
#endif

/* In a loop too short for vectors. */
#define NOT_VECTORISED __asm__ volatile("")

/* ---- tiles ------------------------------------------------------------------------------------------------------ */

/* What a product reads and writes, and how its elements end before they are stored. */
struct product {
    int64_t k;
    const real *a, *b, *init;
    const real *const *at; /* rows of the data instead of a: row r of it (nn) or row k (ti) begins `skip` behind at[r] or at[k] */
    int64_t skip;
    real *c;
    int64_t lda, ldb, ldi, ldc;
    int64_t look; /* of k from one look to the next; 0: never */
    struct ahead *ahead;
    int n_ahead;
    struct behind *behind; /* those that move: parameters of the tile before */
    const char *coming;    /* those that move: parameters of the tile after this, or null where they are near */
    int relu;              /* a common end that costs nothing here */
};
typedef void tile_fn(const struct product *p);

#define EACH_ACC(rows, nv)                                                                                             \
    UNROLL for (int r = 0; r < rows; r++)                                                                              \
        UNROLL for (int v = 0; v < nv; v++)
#define TILE(form, rows, nv, ROWS, AT, A, BEFORE, LOOK, AFTER)                                                         \
    static void tile_##form##_##rows##x##nv(const struct product *p)                                                   \
    {                                                                                                                  \
        vf acc[rows][nv];                                                                                              \
        const char *b = (const char *)p->b;                                                                            \
        int64_t step = p->ldb * (int64_t)sizeof(real);                                                                 \
        const int64_t k = p->k, ldc = p->ldc;                                                                          \
        real *c = p->c;                                                                                                \
        ROWS BEFORE                                                                                                    \
        EACH_ACC(rows, nv) acc[r][v] = vf_load(p->init + r * p->ldi + v * LANES);                                      \
        for (int64_t i = 0; i < k;) {                                                                                  \
            const int64_t stop = nv > 2 || !p->look || k - i < p->look ? k : i + p->look; /* wider: too few rows */    \
            if (nv <= 2) {                                                                                             \
                LOOK                                                                                                   \
            }                                                                                                          \
            for (; i < stop; i++, b += step) {                                                                         \
                vf bv[nv];                                                                                             \
                AT                                                                                                     \
                UNROLL for (int v = 0; v < nv; v++) bv[v] = vf_load((const real *)b + v * LANES);                      \
                UNROLL for (int r = 0; r < rows; r++) {                                                                \
                    const vf ar = vf_set1(A);                                                                          \
                    UNROLL for (int v = 0; v < nv; v++) acc[r][v] = vf_fma(ar, bv[v], acc[r][v]);                      \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        AFTER                                                                                                          \
        if (p->relu) {                                                                                                 \
            EACH_ACC(rows, nv) acc[r][v] = relu(acc[r][v]);                                                            \
        }                                                                                                              \
        EACH_ACC(rows, nv) vf_store(c + r * ldc + v * LANES, acc[r][v]);                                               \
    }

#define NN_ROWS(rows)                                                                                                  \
    const real *row[rows];                                                                                             \
    UNROLL for (int r = 0; r < rows; r++) row[r] = p->at ? p->at[r] + p->skip : p->a + r * p->lda;
/* One row reads every line of b once, as fast as it comes. Narrower vectors have no time left to ask for it. */
#define ROWS_AHEAD 12
#define NN_LINE(nv)                                                                                                    \
    if (nv == PANEL_VECTORS && FM_BYTES == LINE) {                                                                     \
        UNROLL for (int v = 0; v < nv; v++) __builtin_prefetch(b + ROWS_AHEAD * step + v * FM_BYTES);                   \
    }
#define ONE_REGISTER(value) __asm__("" : "+r"(value)); /* or gcc keeps what follows from it in others, one for every use */
/* A panel that does not stay in the first-level cache: its rows are a stride apart, and come late even from the second. */
#define LINES_AHEAD 8 /* a factor that addresses can have */
#define NF_LINE(nv)                                                                                                    \
    UNROLL for (int l = 0; l < nv * FM_BYTES; l += LINE) {                                                             \
        ONE_REGISTER(step)                                                                                             \
        __builtin_prefetch(b + LINES_AHEAD * step + l);                                                                \
    }
#define PAGE 4096 /* bytes: where rows of x are as far apart, the processor does not guess the next */
#define TN_ROWS                                                                                                        \
    const real *a = p->a;                                                                                              \
    const int64_t lda = p->lda, ahead = lda * (int64_t)sizeof(real) < PAGE ? 0 : LINES_AHEAD * lda;
#define TN_LINE                                                                                                        \
    const real *line = a;                                                                                              \
    __builtin_prefetch(a + ahead);                                                                                     \
    a += lda;
#define TI_ROWS                                                                                                        \
    const real *const *at = p->at;                                                                                     \
    const int64_t skip = p->skip;
#define TI_LINE const real *line = at[i] + skip; ONE_REGISTER(line)

/* Those whose results move weights take the lines out of other caches. */
#define LOOK_AHEAD(nv, take) look_ahead(p->ahead, p->n_ahead, nv * FM_BYTES, take);
#define TILES(rows, nv)                                                                                                \
    TILE(nn, rows, nv, NN_ROWS(rows), NN_LINE(nv), row[r][i], , LOOK_AHEAD(nv, 0), )                                   \
    TILE(tn, rows, nv, TN_ROWS, TN_LINE, line[r], , LOOK_AHEAD(nv, 1), )                                               \
    TILE(ti, rows, nv, TI_ROWS, TI_LINE, line[r], , LOOK_AHEAD(nv, 1), )
TILES(1, 1) TILES(2, 1) TILES(3, 1) TILES(4, 1) TILES(5, 1) TILES(6, 1) TILES(7, 1) TILES(8, 1)
TILES(1, 2) TILES(2, 2) TILES(3, 2) TILES(4, 2)
TILES(1, 4) TILES(2, 4) TILES(1, 8)
#if FM_BYTES > 16 || defined(__aarch64__)
TILES(9, 1) TILES(10, 1) TILES(5, 2) TILES(6, 2) TILES(3, 4)
#define TALL(form, rows, nv) tile_##form##_##rows##x##nv
#else
#define TALL(form, rows, nv) 0
#endif
#if FM_BYTES == 64 || defined(__aarch64__)
TILES(7, 2) TILES(8, 2) TILES(4, 4)
#define TALLER(form, rows, nv) tile_##form##_##rows##x##nv
#else
#define TALLER(form, rows, nv) 0
#endif
#if FM_BYTES == 64
TILES(9, 2) TILES(10, 2) TILES(5, 4) TILES(6, 4)
#define TALLEST(form, rows, nv) tile_##form##_##rows##x##nv
#else
#define TALLEST(form, rows, nv) 0
#endif

#define TILE_TABLE(form)                                                                                               \
    {{tile_##form##_1x1, tile_##form##_2x1, tile_##form##_3x1, tile_##form##_4x1, tile_##form##_5x1,                   \
      tile_##form##_6x1, tile_##form##_7x1, tile_##form##_8x1, TALL(form, 9, 1), TALL(form, 10, 1)},                   \
     {tile_##form##_1x2, tile_##form##_2x2, tile_##form##_3x2, tile_##form##_4x2, TALL(form, 5, 2), TALL(form, 6, 2),  \
      TALLER(form, 7, 2), TALLER(form, 8, 2), TALLEST(form, 9, 2), TALLEST(form, 10, 2)},                              \
     {tile_##form##_1x4, tile_##form##_2x4, TALL(form, 3, 4), TALLER(form, 4, 4), TALLEST(form, 5, 4),                 \
      TALLEST(form, 6, 4)},                                                                                            \
     {tile_##form##_1x8}}

enum { NN, TN, TI };
#define TALLEST_TILE 10
static tile_fn *const tiles[3][4][TALLEST_TILE] = {TILE_TABLE(nn), TILE_TABLE(tn), TILE_TABLE(ti)};

/* ---- tiles that ask for the panel they read ----------------------------------------------------------------- */

/* Of two vectors, at the heights that tiles have where there are several. */
#if FM_BYTES == 64
#define HEIGHTS(AS, form) AS(form, 5) AS(form, 6) AS(form, 7) AS(form, 8) AS(form, 9) AS(form, 10)
#elif FM_BYTES == 32
#define HEIGHTS(AS, form) AS(form, 3) AS(form, 4) AS(form, 5) AS(form, 6)
#else
#define HEIGHTS(AS, form)
#endif
#define BY_HEIGHT(form, rows) [rows] = tile_##form##_##rows##x2,

#define FAR_TILE(form, rows) TILE(form, rows, 2, NN_ROWS(rows), NF_LINE(2), row[r][i], , LOOK_AHEAD(2, 0), )
HEIGHTS(FAR_TILE, nf)
static tile_fn *const far_tiles[TALLEST_TILE + 1] = {HEIGHTS(BY_HEIGHT, nf)};

/* By height, null where there is none; or null. */
static tile_fn *const *far_tiles_for(const struct product *p, int log2)
{
    return log2 == 1 && p->ldb > 2 * LANES && p->k > NEAR_K ? far_tiles : 0;
}

/* ---- tiles that move the weights of the tile before --------------------------------------------------------- */

/* By the rules most used. A row of the tile makes a look, and a look moves a row. */
#define MOVING_TERMS 64 /* fewer are over before it pays */

#define BEHIND                                                                                                         \
    struct behind behind = *p->behind; /* copies that no store can reach: they stay in registers */                   \
    struct mover mover = *behind.mover;                                                                                \
    const char *coming = p->coming;                                                                                    \
    mover.nesterov = mover.stream = 0; /* their branches would be in the way */
#define LOOK_BEHIND(kind, momentum)                                                                                    \
    coming = look_at_coming(coming, &behind, kind, momentum, 2 * FM_BYTES);                                            \
    move_behind(&behind, &mover, kind, momentum, 2);
#define MOVING_TILE(rule, kind, momentum, rows)                                                                        \
    TILE(tn_##rule, rows, 2, TN_ROWS, TN_LINE, line[r], BEHIND, LOOK_BEHIND(kind, momentum), *p->behind = behind;)     \
    TILE(ti_##rule, rows, 2, TI_ROWS, TI_LINE, line[r], BEHIND, LOOK_BEHIND(kind, momentum), *p->behind = behind;)
#define MOVING_TILES(form, rows)                                                                                       \
    MOVING_TILE(sgd, FM_OPT_sgd, 0, rows)                                                                              \
    MOVING_TILE(momentum, FM_OPT_sgd, 1, rows)                                                                         \
    MOVING_TILE(adam, FM_OPT_adam, 0, rows)
HEIGHTS(MOVING_TILES, )

#define MOVING_TABLE(form)                                                                                             \
    {{HEIGHTS(BY_HEIGHT, form##_sgd)}, {HEIGHTS(BY_HEIGHT, form##_momentum)}, {HEIGHTS(BY_HEIGHT, form##_adam)}}
static tile_fn *const moving_tiles[2][3][TALLEST_TILE + 1] = {MOVING_TABLE(tn), MOVING_TABLE(ti)};

/* By height, null where there is none; or null. k: terms of each sum. */
static tile_fn *const *moving_tiles_for(const fm_op *op, const struct mover *mover, int64_t k, int in_place)
{
    if (!mover || !mover->plain || mover->nesterov || mover->stream || k < MOVING_TERMS) return 0;
    if (op->kind == FM_OPT_adam) return moving_tiles[in_place][2];
    return op->kind == FM_OPT_sgd ? moving_tiles[in_place][op->s1.p != 0] : 0;
}

/* ---- panels --------------------------------------------------------------------------------------------------- */

/* How wide (as a power of two of vectors) the next panel should be: two vectors reuse each broadcast twice; fewer rows
 * than that tile has leave accumulators for a wider panel. */
static inline int panel_log2(int64_t rows, int64_t vectors)
{
    if (vectors < 2) return 0;
    if (vectors >= 8 && rows <= tile_rows[3]) return 3;
    return vectors >= 4 && rows <= tile_rows[2] ? 2 : 1;
}

/* Tiles in so many rows of a panel. */
static inline int64_t tiles_in(int64_t rows, int log2) { return parts_of(rows, tile_rows[log2]); }

/* Rows of x from row `first` of the batch on, where they are to be read in place; else null. */
static inline const real *const *rows_in_place(const fm_op *op, const fm_step *step, int64_t first)
{
    return op->direct && step->at ? (const real *const *)step->at + first : 0;
}

/* One panel of nn, c[rows, 1 << log2 vectors]: the rows in tiles as even as they come (32 is 6+6+5+5+5+5, not
 * 6+6+6+6+6+2). p is moved along. */
static void panel(struct product *p, int64_t rows, int log2)
{
    tile_fn *const *far = far_tiles_for(p, log2);
    for (int64_t left = tiles_in(rows, log2), m; left > 1; left--, rows -= m) {
        m = (rows + left - 1) / left;
        (far && far[m] ? far[m] : tiles[NN][log2][m - 1])(p);
        if (p->at) p->at += m;
        else p->a += m * p->lda;
        p->init += m * p->ldi, p->c += m * p->ldc;
    }
    (far && far[rows] ? far[rows] : tiles[NN][log2][rows - 1])(p);
}

static const real zeros[PANEL_VECTORS * 64 / sizeof(real)] __attribute__((aligned(64)));
