/* How an op over independent rows is cut into tasks. */
#ifndef GO_ROWS_H
#define GO_ROWS_H

#include <stddef.h>

/* Work that outweighs claiming a task by far: some 10 to 20 microseconds of an
 * elementwise op with a few passes. */
enum { GO_TASK_ELEMENTS = 32768 };

/* Rows per task: a multiple of `unit`, enough to make a task worth claiming, and
 * such that few tasks spread evenly over the threads. */
static inline size_t go_task_rows(size_t rows, size_t row_elements, size_t unit, unsigned threads) {
    if (row_elements == 0) row_elements = 1;
    size_t tasks = (rows * row_elements + GO_TASK_ELEMENTS - 1) / GO_TASK_ELEMENTS;
    if (tasks > 1) tasks = (tasks + threads - 1) / threads * threads;
    if (tasks == 0) tasks = 1;
    size_t per_task = (rows + tasks - 1) / tasks;
    per_task = (per_task + unit - 1) / unit * unit;
    return per_task ? per_task : unit;
}

#endif
