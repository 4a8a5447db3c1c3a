/* How an op is cut into tasks. The cut may depend on the size of the team: what a task
 * computes for a row or a column does not depend on where it begins. */
#ifndef GO_SPLIT_H
#define GO_SPLIT_H

#include "go_vec.h"

GO_INLINE size_t go_ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
GO_INLINE size_t go_min_size(size_t a, size_t b) { return a < b ? a : b; }

/* Threads claim tasks until none is left, so that of equal tasks one thread gets
 * ceil(tasks / threads), and the op lasts as long as those. `lines` lines of `units`
 * equal units are cut into tasks of `step` units of one line; a task costs `fixed`
 * sixteenths of a unit on top. Returns the step, at most `most`, that ends soonest, and
 * of equally good ones the smallest: if a thread comes late, less is left for it. */
GO_INLINE size_t go_split_line(size_t threads, size_t lines, size_t units, size_t most,
                               size_t fixed) {
    size_t best = 1, best_cost = SIZE_MAX;
    for (size_t step = 1; step <= go_min_size(units, most); step++) {
        size_t tasks = lines * go_ceil_div(units, step);
        size_t cost = go_ceil_div(tasks, threads) * (16 * step + fixed);
        if (cost < best_cost) best = step, best_cost = cost;
    }
    return best;
}

#endif
