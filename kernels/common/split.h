/* How an op is cut into tasks. The cut may depend on the size of the team: what a task
 * computes for a row or a column does not depend on where it begins. */
#ifndef GO_SPLIT_H
#define GO_SPLIT_H

#include "go_vec.h"

GO_INLINE size_t go_ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
GO_INLINE size_t go_min_size(size_t a, size_t b) { return a < b ? a : b; }

enum {
    GO_CUTS = 6,              /* that are tried: small tasks even out what threads lose to others */
    GO_CLAIM_MACS = 8 * 1024, /* multiply-adds that take as long as claiming a task */
};

/* A way to cut work: units per task, and how long it takes. */
typedef struct {
    size_t step, cost;
} go_cut;

/* Threads claim tasks until none is left, so that of equal tasks one thread gets
 * ceil(tasks / threads), and the op lasts as long as those. `lines` lines of `units`
 * equal units are cut into tasks of `step` units of one line; `fixed` is what a task costs
 * on top, in sixteenths of a unit. Lines are cut into as many equal pieces as the threads can
 * do in one round of tasks, in two, ..., or if that is none, into one piece, two, ... Returns
 * the step, at most `most`, that ends soonest, and its cost in sixteenths; of steps within a
 * thirty-second of it the smallest: if a thread comes late, less is left for it. */
GO_INLINE go_cut go_cut_lines(size_t threads, size_t lines, size_t units, size_t most,
                              size_t fixed) {
    go_cut best = {1, SIZE_MAX};
    if (lines == 0 || units == 0) return best;
    if (threads == 1) return (go_cut){go_min_size(units, most), 0};
    for (size_t cut = 1, pieces = 0; cut <= GO_CUTS; cut++) {
        const size_t fit = threads * cut / lines;
        pieces = fit > pieces ? fit : pieces + 1;
        const size_t step = go_min_size(go_ceil_div(units, pieces), most);
        const size_t tasks = lines * go_ceil_div(units, step);
        const size_t cost = go_ceil_div(tasks, threads) * (16 * step + fixed);
        if (cost - cost / 32 <= best.cost) best = (go_cut){step, go_min_size(cost, best.cost)};
    }
    return best;
}

/* Positions in lines of tasks, as equal as units allow. */
typedef struct {
    size_t positions, unit, units, lines;
} go_positions_cut;

/* At most `most` positions a line, in whole units where a line holds one. */
GO_INLINE go_positions_cut go_cut_positions(size_t positions, size_t unit, size_t most) {
    go_positions_cut c = {.positions = positions, .unit = go_min_size(unit, most)};
    c.units = go_ceil_div(positions, c.unit);
    c.lines = go_ceil_div(c.units, most / c.unit);
    return c;
}

GO_INLINE size_t go_first_position(const go_positions_cut *c, size_t line) {
    return go_min_size(c->units * line / c->lines * c->unit, c->positions);
}

#endif
