/* How a GEMM is shared among the threads of a team and walked inside a task. */
#ifndef GO_GEMM_DRIVER_H
#define GO_GEMM_DRIVER_H

#include "split.h"

/* Rows row .. row + rows - 1 and columns col .. col + cols - 1 of the result: a tile, or
 * a sweep of one column block over all rows of a task. */
typedef void go_gemm_tile(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                          size_t cols);

enum {
    GO_LHS_CHUNK_BYTES = 256 * 1024, /* rows of a task: stay in the second cache level */
    GO_TASK_MACS = 64 * 1024,        /* below this, claiming a task is not free any more */
    GO_TASKS_PER_THREAD = 4,         /* so that threads finish at nearly the same time */
    GO_GEMV_ROWS = 4,                /* so few rows are done while weights stream by */
    GO_RUN_BYTES = 64 * 1024,        /* weights of a task of a GEMV: no fewer than this */
    GO_LONG_RUN_BYTES = 1024 * 1024, /* ... nor many more than this */
};

/* Tiles are tile_m x tile_n. A task is a chunk of rows times a run of columns; in
 * it every column block is swept over all rows, so that the right operand's panels
 * stay in the first cache level while the chunk of rows comes from the second. The
 * split depends on the team, what a tile computes does not. With `sweeps` the function
 * gets a column block of a task at once. */
GO_INLINE void go_gemm_walk(go_team *team, const go_gemm_args *args, size_t tile_m, size_t tile_n,
                            size_t lhs_row_bytes, const int sweeps, go_gemm_tile *tile) {
    if (args->m == 0 || args->n == 0) return;
    size_t m_tiles = go_ceil_div(args->m, tile_m), n_tiles = go_ceil_div(args->n, tile_n);
    size_t fit = GO_LHS_CHUNK_BYTES / (tile_m * lhs_row_bytes + 1) + 1;
    size_t m_tasks = go_ceil_div(m_tiles, fit), n_tasks = 1;
    if (team->size > 1) {
        size_t macs = args->m * args->n * (args->k + 1);
        size_t wanted = go_min_size(team->size * GO_TASKS_PER_THREAD, macs / GO_TASK_MACS + 1);
        n_tasks = go_min_size(n_tiles, go_ceil_div(wanted, m_tasks));
        if (m_tasks * n_tasks < wanted)
            m_tasks = go_min_size(m_tiles, go_ceil_div(wanted, n_tasks));
    }
    size_t m_step = go_ceil_div(m_tiles, m_tasks) * tile_m;
    size_t n_step = go_ceil_div(n_tiles, n_tasks) * tile_n;
    n_tasks = go_ceil_div(args->n, n_step);
    size_t tasks = go_ceil_div(args->m, m_step) * n_tasks;
    for (size_t task; (task = go_next(team)) < tasks;) {
        size_t row0 = task / n_tasks * m_step, col0 = task % n_tasks * n_step;
        size_t row1 = go_min_size(row0 + m_step, args->m);
        size_t col1 = go_min_size(col0 + n_step, args->n);
        for (size_t col = col0; col < col1; col += tile_n) {
            const size_t cols = go_min_size(tile_n, col1 - col), step = sweeps ? m_step : tile_m;
            for (size_t row = row0; row < row1; row += step)
                tile(args, row, go_min_size(step, row1 - row), col, cols);
        }
    }
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
    size_t tasks = 1;
    if (team->size > 1) {
        const size_t bytes = args->n * column_bytes;
        tasks = go_min_size(team->size * GO_TASKS_PER_THREAD, bytes / GO_RUN_BYTES + 1);
        if (tasks < bytes / GO_LONG_RUN_BYTES) tasks = bytes / GO_LONG_RUN_BYTES;
    }
    return go_ceil_div(go_ceil_div(args->n, tile_n), tasks) * tile_n;
}

/* For at most GO_GEMV_ROWS rows; a tile is a column block of all of them. */
GO_INLINE void go_gemv_drive(go_team *team, const go_gemm_args *args, size_t tile_n,
                             size_t column_bytes, go_gemm_tile *tile) {
    if (args->m == 0 || args->n == 0) return;
    const size_t step = go_gemv_columns(team, args, tile_n, column_bytes);
    for (size_t task; (task = go_next(team)) * step < args->n;) {
        const size_t end = go_min_size((task + 1) * step, args->n);
        for (size_t col = task * step; col < end; col += tile_n)
            tile(args, 0, args->m, col, go_min_size(tile_n, end - col));
    }
}

#endif
