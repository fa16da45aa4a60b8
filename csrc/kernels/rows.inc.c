/* Ops that move rows: gather from the caller's arrays, scatter into them, and dropout.
 *
 * The caller's data may have any strides and any alignment; it is read element by element through memcpy. */

#define SHORT_ROW 64 /* columns at most of rows that are copied by memcpy, and checked for NaN with their padding, which is 0 */
#define FEW_COLUMNS 4 /* columns, with which a vectorised loop would take longer to set up than to run */

/* Readers for each source type: of rows, converted, into x; of rows of few columns, and of one; and of labels, which have been
 * checked to fit an int32. */
#define READ_ROWS(name, type, COLUMNS)                                                                                 \
    static void name(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)                                 \
    {                                                                                                                  \
        const int64_t n = op->n_in, stride = op->data_column, skip = op->first_in * stride;                            \
        for (int64_t r = begin; r < end; r++) {                                                                        \
            const char *from = op->data + fm_data_row(step, r) * op->data_row + skip;                                     \
            real *to = (real *)op->x.p + r * op->x.ld;                                                                 \
            type value;                                                                                                \
            COLUMNS                                                                                                    \
        }                                                                                                              \
    }
#define READ_COLUMNS(stride)                                                                                           \
    for (int64_t c = 0; c < n; c++) {                                                                                  \
        memcpy(&value, from + c * (stride), sizeof value);                                                             \
        to[c] = (real)value;                                                                                           \
    }
#define IS_REAL(type) (sizeof(type) == sizeof(real) && (type)0.5 > 0)
#define READ_MANY                                                                                                      \
    if (stride != (int64_t)sizeof value) READ_COLUMNS(stride)                                                          \
    else if (IS_REAL(__typeof__(value)) && n <= SHORT_ROW) memcpy(to, from, (size_t)n * sizeof value);                     \
    else READ_COLUMNS((int64_t)sizeof value)
#define READ_FEW                                                                                                       \
    for (int64_t c = 0; c < n; c++, from += stride) {                                                                  \
        NOT_VECTORISED;                                                                                                \
        memcpy(&value, from, sizeof value);                                                                            \
        to[c] = (real)value;                                                                                           \
    }
#define READ_ONE                                                                                                       \
    (void)n, (void)stride;                                                                                             \
    memcpy(&value, from, sizeof value);                                                                                \
    *to = (real)value;
#define X(name, type)                                                                                                  \
    READ_ROWS(read_##name, type, READ_MANY)                                                                            \
    READ_ROWS(read_few_##name, type, READ_FEW)                                                                         \
    READ_ROWS(read_one_##name, type, READ_ONE)                                                                         \
    static void label_##name(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)                         \
    {                                                                                                                  \
        type value;                                                                                                    \
        for (int64_t r = begin; r < end; r++) {                                                                        \
            memcpy(&value, op->data + fm_data_row(step, r) * op->data_row, sizeof value);                                 \
            ((int32_t *)op->t.p)[r] = (int32_t)value;                                                                  \
        }                                                                                                              \
    }
FM_SOURCES(X)
#undef X
enum { MANY, FEW, ONE, LABELS, N_READERS };
#define X(name, type) {[MANY] = read_##name, [FEW] = read_few_##name, [ONE] = read_one_##name, [LABELS] = label_##name},
static fm_kernel *const readers[FM_N_SOURCES][N_READERS] = {FM_SOURCES(X)};
#undef X

static inline fm_kernel *reader_of(const fm_op *op)
{
    return readers[op->kind][op->labels ? LABELS : op->n_in == 1 ? ONE : op->n_in <= FEW_COLUMNS ? FEW : MANY];
}

static void look_for_nonfinite(const fm_op *op, const real *x, int64_t n)
{
    if (!all_finite(x, n)) __atomic_store_n(op->nonfinite, 1, __ATOMIC_RELAXED);
}

#define GATHERED_OUT 2048 /* columns at most: a row is on the stack */

/* Rows that others will read: non-temporal stores, except for the columns that this worker reads of all rows. */
NOINLINE void gather_far_apart(const fm_op *op, const fm_step *step, int64_t begin, int64_t end, fm_kernel *read)
{
    real row[GATHERED_OUT] __attribute__((aligned(64))) = {0};
    const int64_t vectors = op->x.ld / LANES, first = my_begin(step, vectors), last = my_end(step, vectors);
    fm_op to_row = *op;
    to_row.x = (fm_mat){row, 0};
    for (int64_t r = begin; r < end; r++) {
        real *x = (real *)op->x.p + r * op->x.ld;
        read(&to_row, step, r, r + 1);
        stream_block(row, 0, x, 0, 1, first);
        for (int64_t v = first; v < last; v++) vf_store(x + v * LANES, vf_load(row + v * LANES));
        stream_block(row + last * LANES, 0, x + last * LANES, 0, 1, vectors - last);
    }
    vf_streamed();
}

/* Not if each worker has some of the inputs: it reads them itself, and the rest of a row is the other worker's. */
static inline int is_gathered_out(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const int read_by_others = end - begin < step->rows && !op->partial;
    return read_by_others && is_handed_out(step, op->x) && !op->labels && op->x.ld <= GATHERED_OUT;
}

#define CLIP_FIRST ((real)1e15) /* whose square is finite; NaN stays */

static inline vf standardised(vf x, const real *shift, const real *scale, int smooth_clip)
{
    const vf v = (x - vf_load(shift)) * vf_load(scale);
    if (!smooth_clip) return v;
    const vf near = vf_min(vf_set1(CLIP_FIRST), vf_max(vf_set1(-CLIP_FIRST), v)), third = near / vf_set1(3);
    return near / vf_sqrt(vf_fma(third, third, vf_set1(1)));
}

/* Exactly these columns of a row: the next ones may be another worker's. */
static void standardise(const fm_op *op, real *x)
{
    const real *shift = op->w.p, *scale = shift + op->w.ld;
    const int64_t whole = op->n_in / LANES * LANES, bytes = (op->n_in - whole) * (int64_t)sizeof(real);
    real rest[3][LANES] = {{0}};
    for (int64_t c = 0; c < whole; c += LANES)
        vf_store(x + c, standardised(vf_load(x + c), shift + c, scale + c, op->smooth_clip));
    if (!bytes) return;
    memcpy(rest[0], x + whole, bytes), memcpy(rest[1], shift + whole, bytes), memcpy(rest[2], scale + whole, bytes);
    vf_store(rest[0], standardised(vf_load(rest[0]), rest[1], rest[2], op->smooth_clip));
    memcpy(x + whole, rest[0], bytes);
}

static void gather(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    if (op->direct && step->at) {
        if (op->nonfinite)
            for (int64_t r = begin; r < end; r++) look_for_nonfinite(op, step->at[r], op->n_in);
        return;
    }
    fm_kernel *const read = reader_of(op);
    if (!op->w.p && !op->nonfinite) {
        if (is_gathered_out(op, step, begin, end)) gather_far_apart(op, step, begin, end, read);
        else read(op, step, begin, end);
        return;
    }
    const int64_t together = op->x.ld <= SHORT_ROW && !op->partial ? end - begin : 1; /* a part has no padding of its own */
    for (int64_t r = begin; r < end; r += together) {
        real *x = (real *)op->x.p + r * op->x.ld;
        read(op, step, r, r + together);
        if (op->nonfinite) look_for_nonfinite(op, x, together > 1 ? together * op->x.ld : op->n_in);
        for (int64_t i = 0; op->w.p && i < together; i++) standardise(op, x + i * op->x.ld);
    }
}

static void scatter(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    for (int64_t r = begin; r < end; r++) {
        const real *y = (const real *)op->y.p + r * op->y.ld;
        char *to = (char *)op->data + fm_data_row(step, r) * op->data_row;
        if (op->data_column == (int64_t)sizeof(real) && op->n_out > FEW_COLUMNS) memcpy(to, y, (size_t)op->n_out * sizeof(real));
        else
            for (int64_t c = 0; c < op->n_out; c++, to += op->data_column) {
                NOT_VECTORISED;
                memcpy(to, y + c, sizeof(real));
            }
    }
}

/* ---- dropout: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) ---------- */

#define COUNTERS ((int)(2 * FM_BYTES / sizeof(uint64_t))) /* at a time: two vectors, to hide latency */

/* Four random 32-bit words for each of COUNTERS counters, from counter `first` of this row and step on. Stateless, so any worker
 * can draw any element's number. Seen as 32-bit words, words[4 i + l] is word l of counter first + i. */
static void philox(uint32_t first, uint32_t row, uint64_t number, uint64_t key, uint64_t words[2 * COUNTERS])
{
    const vw zero = {0}, low = zero + UINT32_MAX, m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u;
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    static const uint64_t count[] = {0, 1, 2, 3, 4, 5, 6, 7};
    vw counts, c[2][4]; /* 32 bits in each 64-bit lane */
    memcpy(&counts, count, sizeof counts);
    UNROLL for (int v = 0; v < 2; v++) {
        c[v][0] = (counts + (first + (uint64_t)(v * COUNTERS / 2))) & low;
        c[v][1] = zero + row, c[v][2] = zero + (uint32_t)number, c[v][3] = zero + (number >> 32);
    }
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        UNROLL for (int v = 0; v < 2; v++) {
            const vw p0 = vw_multiply(c[v][0], m0), p1 = vw_multiply(c[v][2], m1);
            c[v][0] = (p1 >> 32) ^ c[v][1] ^ (zero + k0);
            c[v][1] = p1 & low;
            c[v][2] = (p0 >> 32) ^ c[v][3] ^ (zero + k1);
            c[v][3] = p0 & low;
        }
    for (int v = 0; v < 2; v++) {
        const vw first_two = c[v][0] | c[v][1] << 32, last_two = c[v][2] | c[v][3] << 32;
        for (int i = 0; i < COUNTERS / 2; i++, words += 2) words[0] = first_two[i], words[1] = last_two[i];
    }
}

static void dropout(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const int32_t threshold = (int32_t)ceil(op->param * 16777216.0); /* kept if the upper 24 bits are at least p */
    const vf scale = vf_set1((real)(1 / (1 - op->param)));
    uint64_t pairs[2 * COUNTERS];
    uint32_t words[4 * COUNTERS];
    ireal kept[4 * COUNTERS] __attribute__((aligned(64)));
    for (int64_t r = begin; r < end; r++)
        for (int64_t c = 0; c < op->n_in; c += 4 * COUNTERS) {
            const real *x = (const real *)op->x.p + r * op->x.ld + c; /* may be y */
            real *y = (real *)op->y.p + r * op->y.ld + c;
            const int64_t n = at_most(4 * COUNTERS, op->n_in - c);
            philox((uint32_t)(c / 4), (uint32_t)r, (uint64_t)step->number, op->seed, pairs);
            memcpy(words, pairs, sizeof words);
            for (int i = 0; i < 4 * COUNTERS; i++) kept[i] = -(ireal)((int32_t)(words[i] >> 8) >= threshold);
            for (int64_t i = n; i < vectors_of(n) * LANES; i++) kept[i] = 0; /* the padding stays zero */
            for (int64_t i = 0; i < n; i += LANES)
                vf_store(y + i, vf_keep((vi)vf_load((const real *)(kept + i)), scale * vf_load(x + i)));
        }
}
