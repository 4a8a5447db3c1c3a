/* GEMMs whose results are quantized for the next one: go_gemm_args.packed.
 *
 * A task owns rows: it computes all columns of a few of them, which stay in the second cache
 * level, and quantizes them from there. Where that leaves threads without work the results are
 * cut into tasks as ever, and a second phase quantizes rows. Every way has the bits of
 * go_quantize_rows for f32 results.
 */
#ifndef GO_GEMM_QUANTIZE_H
#define GO_GEMM_QUANTIZE_H

#include "quantize_rows.h"
#include "rows.h"

/* Rows of a thread's buffer; also in kernels/scratch.py. */
enum {
    GO_OWNED_BYTES = 512 * 1024, /* of f32: half of a second cache level */
    GO_OWNED_LEAST = 32,         /* rows, as many as the tallest tile has */
    GO_OWNED_MOST = 128,         /* rows, of which reading columns again takes a thirtieth */
};

/* Sixteenths of the time of a unit of rows that reading its columns from a farther cache
 * takes; see go_gemm_cut_for. */
enum { GO_COLUMNS_AGAIN = 8 };

GO_INLINE size_t go_owned_rows(const go_gemm_args *args) {
    const size_t fit = GO_OWNED_BYTES / sizeof(float) / (size_t)args->dst_stride;
    return fit < GO_OWNED_LEAST ? GO_OWNED_LEAST : go_min_size(fit, GO_OWNED_MOST);
}

/* Whether threads have buffers, not the whole result. */
GO_INLINE int go_has_buffers(size_t threads, const go_gemm_args *args) {
    return args->m > threads * go_owned_rows(args);
}

/* Rows at whose multiples a task may begin that owns them: 6 rows of f32 are no half panel. */
GO_INLINE size_t go_owned_unit(size_t unit_m) { return unit_m % GO_QA8_ROWS ? 2 * unit_m : unit_m; }

/* Rows of a task that owns them, `fit` units at most; 0 if tasks had better share rows.
 * A tile's columns take half the time of a unit of rows to read, hence a byte of them that of
 * unit / 2 multiply-adds, and a shared result that of 4 * unit: it is stored and read as f32. */
GO_INLINE size_t go_owned_step(size_t threads, const go_gemm_args *args, size_t unit, size_t fit) {
    if (!args->packed) return 0;
    const size_t units = go_ceil_div(args->m, unit);
    const size_t most = go_min_size(go_owned_rows(args) / unit, fit);
    const go_cut owned = go_cut_lines(threads, 1, units, most, GO_COLUMNS_AGAIN);
    const size_t shared =
        (16 * units * (args->k + 4 * unit) / (args->k + 1) + GO_COLUMNS_AGAIN) / threads;
    return go_has_buffers(threads, args) || owned.cost <= shared ? owned.step * unit : 0;
}

/* Where dst begins for a task that owns the rows from `row` on. */
GO_INLINE void *go_owned_dst(const go_team *team, const go_gemm_args *args, size_t row) {
    if (!go_has_buffers(team->size, args)) return args->dst;
    const size_t row_bytes = (size_t)args->dst_stride * sizeof(float);
    /* As a number, since it may lie before the buffers. */
    return (void *)((uintptr_t)args->dst + (team->rank * go_owned_rows(args) - row) * row_bytes);
}

/* Quantizes rows first .. end - 1 of dst. */
static __attribute__((noinline, unused)) void go_quantize_results(const go_gemm_args *args,
                                                                  size_t first, size_t end) {
    const go_pack_lhs_args rows = {.m = args->m,
                                   .k = args->n,
                                   .src = args->dst,
                                   .src_stride = args->dst_stride,
                                   .src_dtype = GO_F32,
                                   .dst = args->packed};
    go_quantize_rows(&rows, first, end);
}

/* The second phase, behind tasks that share rows. */
GO_INLINE void go_quantize_shared(go_team *team, const go_gemm_args *args) {
    if (!args->packed) return;
    go_barrier(team);
    const size_t step = go_task_rows(args->m, args->n, GO_QA8_ROWS, team->size);
    const size_t tasks = go_ceil_div(args->m, step);
    for (size_t task; (task = go_next(team, tasks)) < tasks;)
        go_quantize_results(args, task * step, go_min_size((task + 1) * step, args->m));
}

#endif
