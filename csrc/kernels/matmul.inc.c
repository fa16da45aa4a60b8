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

static inline int64_t vectors_of(int64_t columns) { return (columns + LANES - 1) / LANES; }
static inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger_of(int64_t a, int64_t b) { return a > b ? a : b; }

/* How many parts of at most so many; in small networks most things are one part, and a division takes as long as a tile. */
static inline int64_t parts_of(int64_t whole, int64_t most) { return whole <= most ? 1 : (whole + most - 1) / most; }

/* ---- looking ahead -------------------------------------------------------------------------------------------- */

#define LINE 64 /* bytes */

/* Rows that will be used soon, as wide as the panel at hand. They come from the outer caches, from memory or from another
 * core's cache, up to a thousand cycles away: asked for one at a time while a product runs, they hold nobody up. */
struct ahead {
    const char *at, *last; /* the next row, and the one to stop at */
    int64_t ld;            /* bytes from one to the next */
};

static inline struct ahead ahead_of(const void *at, int64_t ld, int64_t rows)
{
    ld *= (int64_t)sizeof(real);
    return (struct ahead){at, (const char *)at + (rows > 0 ? rows - 1 : 0) * ld, ld};
}

/* Of k between two looks, if so many products have to ask for so many rows. */
static inline int64_t look_every(int64_t k, int64_t products, int64_t rows)
{
    return rows <= products ? k : larger_of(k * products / rows, 1);
}

/* gcc keeps acc in memory, ten times slower, unless the constant loops are unrolled by name. */
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Which products ask for rows in order to write them, and take them out of other caches: those whose results move weights. */
#define TAKES_nn 0
#define TAKES_tn 1
#define TAKES_ti 1

/* Without a branch that is hard to foresee: the multiply-adds would run dry. take: a constant. */
INLINE void look_ahead(struct ahead *ahead, int n_ahead, int bytes, int take)
{
    for (; n_ahead > 0; n_ahead--, ahead++) {
        const char *at = ahead->at;
        UNROLL for (int i = 0; i < bytes; i += LINE) take ? __builtin_prefetch(at + i, 1) : __builtin_prefetch(at + i, 0);
        ahead->at = at == ahead->last ? at : at + ahead->ld;
    }
}

/* ---- tiles ------------------------------------------------------------------------------------------------------ */

/* What a product reads and writes, and how its elements end before they are stored. */
struct product {
    int64_t k;
    const real *a, *b, *init;
    const real *const *at; /* rows of the data instead of a: row r of it (nn) or row k (ti) begins `skip` behind at[r] or at[k] */
    int64_t skip;
    real *c;
    int64_t lda, ldb, ldi, ldc;
    struct ahead *ahead;
    int n_ahead;
    int64_t look; /* of k from one look to the next */
    int relu; /* a common end that costs nothing here */
};
typedef void tile_fn(const struct product *p);

#define EACH_ACC(rows, nv)                                                                                             \
    UNROLL for (int r = 0; r < rows; r++)                                                                              \
        UNROLL for (int v = 0; v < nv; v++)
#define TILE(form, rows, nv, ROWS, AT, A)                                                                              \
    static void tile_##form##_##rows##x##nv(const struct product *p)                                                   \
    {                                                                                                                  \
        vf acc[rows][nv];                                                                                              \
        const real *a = p->a, *b = p->b;                                                                               \
        const int64_t k = p->k, lda = p->lda, ldb = p->ldb, ldc = p->ldc;                                              \
        real *c = p->c;                                                                                                \
        ROWS                                                                                                           \
        EACH_ACC(rows, nv) acc[r][v] = vf_load(p->init + r * p->ldi + v * LANES);                                      \
        for (int64_t i = 0; i < k;) {                                                                                  \
            const int64_t stop = nv > 2 || !p->n_ahead || k - i < p->look ? k : i + p->look;                           \
            if (nv <= 2) look_ahead(p->ahead, p->n_ahead, nv * FM_BYTES, TAKES_##form); /* wider: too few rows */      \
            for (; i < stop; i++, b += ldb) {                                                                          \
                vf bv[nv];                                                                                             \
                AT                                                                                                     \
                UNROLL for (int v = 0; v < nv; v++) bv[v] = vf_load(b + v * LANES);                                    \
                UNROLL for (int r = 0; r < rows; r++) {                                                                \
                    const vf ar = vf_set1(A);                                                                          \
                    UNROLL for (int v = 0; v < nv; v++) acc[r][v] = vf_fma(ar, bv[v], acc[r][v]);                      \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        if (p->relu) {                                                                                                 \
            EACH_ACC(rows, nv) acc[r][v] = relu(acc[r][v]);                                                            \
        }                                                                                                              \
        EACH_ACC(rows, nv) vf_store(c + r * ldc + v * LANES, acc[r][v]);                                               \
    }

#define NN_ROWS(rows)                                                                                                  \
    const real *row[rows];                                                                                             \
    UNROLL for (int r = 0; r < rows; r++) row[r] = p->at ? p->at[r] + p->skip : a + r * lda;
#define ONE_REGISTER(pointer) __asm__("" : "+r"(pointer)); /* or gcc keeps one offset for every r */
#define TI_ROWS                                                                                                        \
    const real *const *at = p->at;                                                                                     \
    const int64_t skip = p->skip;
#define TILES(rows, nv)                                                                                                \
    TILE(nn, rows, nv, NN_ROWS(rows), , row[r][i])                                                                     \
    TILE(tn, rows, nv, , , a[i * lda + r])                                                                             \
    TILE(ti, rows, nv, TI_ROWS, const real *line = at[i] + skip; ONE_REGISTER(line), line[r])
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
    for (int64_t left = tiles_in(rows, log2), m; left > 1; left--, rows -= m) {
        m = (rows + left - 1) / left;
        tiles[NN][log2][m - 1](p);
        if (p->at) p->at += m;
        else p->a += m * p->lda;
        p->init += m * p->ldi, p->c += m * p->ldc;
    }
    tiles[NN][log2][rows - 1](p);
}

static const real zeros[PANEL_VECTORS * 64 / sizeof(real)] __attribute__((aligned(64)));
