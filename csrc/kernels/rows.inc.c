/* Rows in and out: gather from the caller's arrays, scatter into them, and dropout.
 *
 * The caller's data may have any strides and any alignment; it is read element by element through memcpy. */

static inline int64_t data_row(const fm_step *step, int64_t r) { return step->index ? step->index[r] : step->first + r; }

/* One reader for each source type: a row of the data, converted, into x; and one label. Values land where they are used
 * as reals; a label that was checked fits an int32. */
#define X(name, type)                                                                                                  \
    static void read_##name(const char *from, int64_t stride, int64_t n, real *to)                                    \
    {                                                                                                                  \
        type value;                                                                                                    \
        if (stride == (int64_t)sizeof value)                                                                           \
            for (int64_t c = 0; c < n; c++) {                                                                          \
                memcpy(&value, from + c * (int64_t)sizeof value, sizeof value);                                        \
                to[c] = (real)value;                                                                                   \
            }                                                                                                          \
        else                                                                                                           \
            for (int64_t c = 0; c < n; c++) {                                                                          \
                memcpy(&value, from + c * stride, sizeof value);                                                       \
                to[c] = (real)value;                                                                                   \
            }                                                                                                          \
    }                                                                                                                  \
    static int32_t label_##name(const char *from)                                                                      \
    {                                                                                                                  \
        type value;                                                                                                    \
        memcpy(&value, from, sizeof value);                                                                            \
        return (int32_t)value;                                                                                         \
    }
FM_SOURCES(X)
#undef X
#define X(name, type) read_##name,
static void (*const readers[FM_N_SOURCES])(const char *, int64_t, int64_t, real *) = {FM_SOURCES(X)};
#undef X
#define X(name, type) label_##name,
static int32_t (*const label_readers[FM_N_SOURCES])(const char *) = {FM_SOURCES(X)};
#undef X

static void gather(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    if (op->labels) {
        for (int64_t r = begin; r < end; r++)
            ((int32_t *)op->t.p)[r] = label_readers[op->kind](op->data + data_row(step, r) * op->data_row);
        return;
    }
    const vf three = vf_set1(3), one = vf_set1(1);
    const real *shift = op->w.p, *scale = shift + op->w.ld;
    for (int64_t r = begin; r < end; r++) {
        real *x = (real *)op->x.p + r * op->x.ld;
        readers[op->kind](op->data + data_row(step, r) * op->data_row, op->data_column, op->n_in, x);
        if (!shift) continue;
        for (int64_t c = 0; c < op->n_in; c += LANES) {
            vf v = (vf_load(x + c) - vf_load(shift + c)) * vf_load(scale + c);
            if (op->smooth_clip) v = v / vf_sqrt(vf_fma(v / three, v / three, one));
            vf_store(x + c, v);
        }
    }
}

static void scatter(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    for (int64_t r = begin; r < end; r++) {
        const real *y = (const real *)op->y.p + r * op->y.ld;
        char *to = (char *)op->data + data_row(step, r) * op->data_row;
        if (op->data_column == (int64_t)sizeof(real)) memcpy(to, y, (size_t)op->n_out * sizeof(real));
        else
            for (int64_t c = 0; c < op->n_out; c++) memcpy(to + c * op->data_column, y + c, sizeof(real));
    }
}

/* ---- dropout: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) ---------- */

/* Four random words from a counter and a key: no state, so any worker can draw any element's number. */
static inline void philox(uint32_t c[4], uint64_t key)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        const uint32_t c1 = c[1], c3 = c[3];
        c[0] = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c[1] = (uint32_t)p1;
        c[2] = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c[3] = (uint32_t)p0;
    }
}

static void dropout(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const uint32_t threshold = (uint32_t)ceil(op->param * 16777216.0); /* kept: the upper 24 bits are no less than p */
    const real scale = (real)(1 / (1 - op->param));
    for (int64_t r = begin; r < end; r++) {
        const real *x = (const real *)op->x.p + r * op->x.ld;
        real *y = (real *)op->y.p + r * op->y.ld;
        for (int64_t c = 0; c < op->n_in; c += 4) {
            uint32_t words[4] = {(uint32_t)(c / 4), (uint32_t)r, (uint32_t)step->number, (uint32_t)((uint64_t)step->number >> 32)};
            philox(words, op->seed);
            /* Not past n_in: what lies in the padding of dx must stay zero, and x and y may be the same rows. */
            for (int64_t l = 0; l < at_most(4, op->n_in - c); l++) y[c + l] = words[l] >> 8 >= threshold ? x[c + l] * scale : 0;
        }
    }
}
