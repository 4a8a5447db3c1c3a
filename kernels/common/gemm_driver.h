/* How a GEMM is shared among the threads of a team and walked inside a task. */
#ifndef GO_GEMM_DRIVER_H
#define GO_GEMM_DRIVER_H

#include "gemm_quantize.h"

/* Rows row .. row + rows - 1 and columns col .. col + cols - 1 of the result: a tile, or
 * a sweep of one column block over all rows of a task. */
typedef void go_gemm_tile(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                          size_t cols);

enum {
    GO_LHS_CHUNK_BYTES = 256 * 1024, /* rows of a task: stay in the second cache level */
    GO_ROW_CUTS = 6,                 /* that are tried: 1, 2, 4, ... times as many chunks */
    GO_GEMV_ROWS = 4,                /* so few rows are done while weights stream by */
    GO_CLAIM_BYTES = 1024,           /* of weights take as long as claiming a task */
    GO_LONG_RUN_BYTES = 1024 * 1024, /* of weights for a task of a GEMV, and no more */
    GO_TALL_TILE = 12,               /* rows of which half still hide the latency of products */
};

/* Rows at whose multiples a task may begin: half of a tall tile takes half its time; smaller
 * tiles, and panels of rows, stay whole. */
GO_INLINE size_t go_gemm_row_unit(size_t tile_m) {
#if defined(__AVX512F__)
    return tile_m == GO_TALL_TILE ? tile_m / 2 : tile_m;
#else
    return tile_m;
#endif
}

/* Units of rows and tiles of columns of a task. */
typedef struct {
    size_t m, n;
} go_gemm_cut;

/* Units of rows that the second cache level takes. */
GO_INLINE size_t go_gemm_fit(size_t unit_m, size_t lhs_row_bytes) {
    return GO_LHS_CHUNK_BYTES / (unit_m * lhs_row_bytes + 1) + 1;
}

/* Chunks of rows as large as the second cache level takes, or halves, quarters, ... of them
 * where columns alone would not keep all threads busy to the end. For each chunk a column
 * block comes from a farther cache again, which takes as long as half a unit of rows. */
GO_INLINE go_gemm_cut go_gemm_cut_for(size_t threads, const go_gemm_args *args, size_t unit_m,
                                      size_t tile_n, size_t lhs_row_bytes) {
    const size_t m_units = go_ceil_div(args->m, unit_m), n_tiles = go_ceil_div(args->n, tile_n);
    const size_t fit = go_gemm_fit(unit_m, lhs_row_bytes);
    const size_t claim = 16 * GO_CLAIM_MACS / (unit_m * tile_n * (args->k + 1));
    const size_t ideal = 16 * m_units * n_tiles / threads;
    go_gemm_cut best = {1, 1};
    size_t best_cost = SIZE_MAX;
    for (size_t m_tasks = go_ceil_div(m_units, fit), tries = 0; tries < GO_ROW_CUTS; tries++) {
        const size_t m = go_ceil_div(m_units, m_tasks);
        const go_cut cut =
            go_cut_lines(threads, go_ceil_div(m_units, m), n_tiles, n_tiles, claim / m);
        const size_t cost = cut.cost * m + cut.cost / 2;
        if (cost < best_cost - best_cost / 32) best = (go_gemm_cut){m, cut.step}, best_cost = cost;
        if (threads == 1 || m == 1 || best_cost - best_cost / 32 <= ideal) break;
        m_tasks *= 2;
    }
    return best;
}

/* Rows (all but those of the last tasks) and columns of a task, or the most rows of one that
 * quantizes its rows. */
typedef struct {
    size_t rows, columns;
    size_t owned_unit; /* of the rows that such a task owns; 0 if tasks share rows */
} go_gemm_task;

GO_INLINE go_gemm_task go_gemm_task_for(size_t threads, const go_gemm_args *args, size_t tile_m,
                                        size_t tile_n, size_t lhs_row_bytes) {
    const size_t unit_m = go_gemm_row_unit(tile_m), unit = go_owned_unit(unit_m);
    const size_t owned = go_owned_step(threads, args, unit, go_gemm_fit(unit, lhs_row_bytes));
    if (owned) return (go_gemm_task){owned, args->n, unit};
    const go_gemm_cut cut = go_gemm_cut_for(threads, args, unit_m, tile_n, lhs_row_bytes);
    return (go_gemm_task){cut.m * unit_m, cut.n * tile_n, 0};
}

/* Where line `line` of the `lines` of tasks begins. */
GO_INLINE size_t go_gemm_first_row(const go_gemm_args *args, const go_gemm_task *cut, size_t line,
                                   size_t lines) {
    if (!cut->owned_unit) return line * cut->rows;
    return go_ceil_div(args->m, cut->owned_unit) * line / lines * cut->owned_unit;
}

/* Tiles are tile_m x tile_n. A task is a chunk of rows times a run of columns; in
 * it every column block is swept over all rows, so that the right operand's panels
 * stay in the first cache level while the chunk of rows comes from the second. The
 * split depends on the team, what a tile computes does not. With `sweeps` the function
 * gets a column block of a task at once. */
GO_INLINE void go_gemm_walk(go_team *team, const go_gemm_args *args, size_t tile_m, size_t tile_n,
                            size_t lhs_row_bytes, const int sweeps, go_gemm_tile *tile) {
    if (args->m == 0 || args->n == 0) return;
    const go_gemm_task cut = go_gemm_task_for(team->size, args, tile_m, tile_n, lhs_row_bytes);
    const size_t n_tasks = go_ceil_div(args->n, cut.columns);
    const size_t m_tasks = go_ceil_div(args->m, cut.rows), tasks = m_tasks * n_tasks;
    go_gemm_args own = *args;
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        const size_t line = task / n_tasks, col0 = task % n_tasks * cut.columns;
        const size_t row0 = go_gemm_first_row(args, &cut, line, m_tasks);
        const size_t next = go_gemm_first_row(args, &cut, line + 1, m_tasks);
        const size_t row1 = go_min_size(next, args->m);
        const size_t col1 = go_min_size(col0 + cut.columns, args->n);
        if (cut.owned_unit) own.dst = go_owned_dst(team, args, row0);
        for (size_t col = col0; col < col1; col += tile_n) {
            const size_t cols = go_min_size(tile_n, col1 - col), step = sweeps ? cut.rows : tile_m;
            for (size_t row = row0; row < row1; row += step)
                tile(&own, row, go_min_size(step, row1 - row), col, cols);
        }
        if (cut.owned_unit) go_quantize_results(&own, row0, row1);
    }
    if (!cut.owned_unit) go_quantize_shared(team, args);
}

GO_INLINE void go_gemm_drive(go_team *team, const go_gemm_args *args, size_t tile_m, size_t tile_n,
                             size_t lhs_row_bytes, go_gemm_tile *tile) {
    go_gemm_walk(team, args, tile_m, tile_n, lhs_row_bytes, 0, tile);
}

GO_INLINE void go_gemm_drive_sweeps(go_team *team, const go_gemm_args *args, size_t tile_m,
                                    size_t tile_n, size_t lhs_row_bytes, go_gemm_tile *sweep) {
    go_gemm_walk(team, args, tile_m, tile_n, lhs_row_bytes, 1, sweep);
}

/* Columns of a task, a multiple of tile_n, for at most GO_GEMV_ROWS rows, where reading the
 * weights is the limit: a run of column blocks that lie one after another in memory. */
GO_INLINE size_t go_gemv_columns(const go_team *team, const go_gemm_args *args, size_t tile_n,
                                 size_t column_bytes) {
    const size_t blocks = go_ceil_div(args->n, tile_n), bytes = tile_n * column_bytes + 1;
    if (team->size == 1) return blocks * tile_n;
    const size_t most = GO_LONG_RUN_BYTES / bytes + 1;
    return go_cut_lines(team->size, 1, blocks, most, 16 * GO_CLAIM_BYTES / bytes).step * tile_n;
}

/* For at most GO_GEMV_ROWS rows; a tile is a column block of all of them. */
GO_INLINE void go_gemv_drive(go_team *team, const go_gemm_args *args, size_t tile_n,
                             size_t column_bytes, go_gemm_tile *tile) {
    if (args->m == 0 || args->n == 0) return;
    const size_t step = go_gemv_columns(team, args, tile_n, column_bytes);
    const size_t tasks = go_ceil_div(args->n, step);
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        const size_t end = go_min_size((task + 1) * step, args->n);
        for (size_t col = task * step; col < end; col += tile_n)
            tile(args, 0, args->m, col, go_min_size(tile_n, end - col));
    }
    go_quantize_shared(team, args);
}

#endif
