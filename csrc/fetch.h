/* Fetch: prefetches of the next batch. Its rows lie in random order in memory, which the hardware cannot predict; prefetched all
 * at once they would delay everything else. So they are prefetched line by line, by a worker while it waits for another, and
 * before each tile of the first layer's weights. */
#ifndef FASTMLP_FETCH_H
#define FASTMLP_FETCH_H

#include <stdint.h>

#define FM_LINE 64 /* bytes of a cache line */

/* What remains to be prefetched. All zeros: nothing. */
typedef struct fm_fetch {
    const char *data;          /* the part read of the data's first row */
    int64_t data_row, bytes;   /* stride of rows, and bytes read of each */
    const int64_t *row, *last; /* number of the current row, and the end of the numbers */
    const char *line, *end;    /* the next line of that row, and its end */
} fm_fetch;

/* Starts the current row, if there is one. */
static inline void fm_fetch_row(fm_fetch *f)
{
    if (f->row != f->last) f->line = f->data + *f->row * f->data_row, f->end = f->line + f->bytes;
}

/* Number of lines of the remaining rows. */
static inline int64_t fm_fetch_lines(const fm_fetch *f) { return (f->last - f->row) * ((f->bytes + FM_LINE - 1) / FM_LINE); }

/* Prefetches up to this many lines; four at a time, or counting them would cost more than the prefetch. */
static inline void fm_fetch_some(fm_fetch *f, int64_t lines)
{
    while (lines > 0 && f->row != f->last) {
        const int64_t left = (f->end - f->line + FM_LINE - 1) / FM_LINE;
        const char *line = f->line, *const stop = line + (lines < left ? lines : left) * FM_LINE;
        lines -= left;
        for (; stop - line >= 4 * FM_LINE; line += 4 * FM_LINE) {
            __builtin_prefetch(line, 0, 2), __builtin_prefetch(line + FM_LINE, 0, 2);
            __builtin_prefetch(line + 2 * FM_LINE, 0, 2), __builtin_prefetch(line + 3 * FM_LINE, 0, 2);
        }
        for (; line != stop; line += FM_LINE) __builtin_prefetch(line, 0, 2);
        f->line = line;
        if (line >= f->end) f->row++, fm_fetch_row(f);
    }
}

#endif
