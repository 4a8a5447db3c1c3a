/* How an op over independent rows is cut into tasks. */
#ifndef GO_ROWS_H
#define GO_ROWS_H

#include "split.h"

enum {
    GO_CLAIM_ELEMENTS = 128,  /* of an elementwise op with a few passes cost as much as a claim */
    GO_TASK_ELEMENTS = 32768, /* no more are needed for a claim to be free */
};

/* Rows per task, a multiple of `unit`, of `lines` lines of `rows` rows each, such that the
 * threads end at nearly the same time. */
GO_INLINE size_t go_task_rows_of(size_t lines, size_t rows, size_t row_elements, size_t unit,
                                 unsigned threads) {
    const size_t elements = row_elements * unit + 1;
    return unit * go_cut_lines(threads, lines, go_ceil_div(rows, unit),
                               GO_TASK_ELEMENTS / elements + 1, 16 * GO_CLAIM_ELEMENTS / elements)
                      .step;
}

GO_INLINE size_t go_task_rows(size_t rows, size_t row_elements, size_t unit, unsigned threads) {
    return go_task_rows_of(1, rows, row_elements, unit, threads);
}

#endif
