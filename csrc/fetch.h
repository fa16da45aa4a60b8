/* Fetch: the rows of the next batch lie in random order in memory, where the processor cannot guess them; asked for all at
 * once they would keep everything else waiting. So they are asked for line by line, by whoever has time: a worker that waits
 * for another one, and each tile of the first layer's weights. */
#ifndef FASTMLP_FETCH_H
#define FASTMLP_FETCH_H

#include <stdint.h>

#define FM_LINE 64 /* bytes of a cache line */

/* What is still to be asked for. All zeros: nothing. */
typedef struct fm_fetch {
    const char *data;          /* where what is read of the data's first row begins */
    int64_t data_row, bytes;   /* from one row to the next, and of each */
    const int64_t *row, *last; /* the row at hand, and the end */
    const char *line, *end;    /* of that row: the next line, and the end */
} fm_fetch;

/* To the row at hand, if there is one. */
static inline void fm_fetch_row(fm_fetch *f)
{
    if (f->row != f->last) f->line = f->data + *f->row * f->data_row, f->end = f->line + f->bytes;
}

/* Lines of all rows that are not done. */
static inline int64_t fm_fetch_lines(const fm_fetch *f) { return (f->last - f->row) * ((f->bytes + FM_LINE - 1) / FM_LINE); }

/* Ask for so many lines, if there are as many; four at a time, or counting them costs more than asking. */
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
