/* Rows of f32 or bf16 into the packed int8 left operand; see quantize_row.h. */
#include "quantize_rows.h"

#include "rows.h"

enum {
    PIECE = 256,            /* values of a computed row that a task takes at least */
    WORTH_A_BARRIER = 1024, /* values that take longer to compute than threads to meet */
};

/* Whether there are so few computed rows that threads would be idle: then each computes a part
 * of them first. They fit the scratch memory. */
static int is_few(const go_team *team, const go_pack_lhs_args *a) {
    return team->size > 1 && a->m < GO_QA8_ROWS * team->size && a->k > WORTH_A_BARRIER;
}

/* Computes all rows; the arguments as if they had come so. */
static go_pack_lhs_args compute_few(go_team *team, const go_pack_lhs_args *a) {
    float *const rows = a->scratch;
    const size_t step = go_task_rows_of(a->m, a->k, 1, PIECE, team->size);
    const size_t pieces = go_ceil_div(a->k, step), tasks = a->m * pieces;
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        const size_t row = task / pieces, first = task % pieces * step;
        const size_t end = go_min_size(first + step, a->k);
        a->values(a->operands, (int64_t)row, (int64_t)first, (int64_t)end, rows + row * a->k);
    }
    go_barrier(team);
    return (go_pack_lhs_args){.m = a->m,
                              .k = a->k,
                              .src = rows,
                              .src_stride = (ptrdiff_t)a->k,
                              .src_dtype = GO_F32,
                              .dst = a->dst};
}

/* Rows first .. end - 1, a group of one panel at a time while it is in a near cache. */
static void quantize_values(const go_team *team, const go_pack_lhs_args *a, size_t first,
                            size_t end) {
    float *const kept = (float *)a->scratch + team->rank * GO_QA8_ROWS * a->k;
    go_qa8_begin_rows(a->dst, first, end, a->m, a->k);
    for (size_t i = first; i < end; i += GO_QA8_ROWS) {
        const size_t count = go_min_size(GO_QA8_ROWS, end - i);
        for (size_t r = 0; r < count; r++)
            a->values(a->operands, (int64_t)(i + r), 0, (int64_t)a->k, kept + r * a->k);
        int8_t *panel = (int8_t *)a->dst + i / GO_QA8_MR * go_qa8_panel_bytes(a->k);
        go_quantize_group(kept, (ptrdiff_t)a->k, GO_F32, a->k, panel, i % GO_QA8_MR, count);
    }
}

void GO_NAME(GO_PACK_QA8R)(go_team *team, const go_pack_lhs_args *args);

void GO_NAME(GO_PACK_QA8R)(go_team *team, const go_pack_lhs_args *args) {
    const go_pack_lhs_args a = args->values && is_few(team, args) ? compute_few(team, args) : *args;
    const size_t rows_per_task = go_task_rows(a.m, a.k, GO_QA8_ROWS, team->size);
    size_t tasks = (a.m + rows_per_task - 1) / rows_per_task;
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        size_t first = task * rows_per_task, end = first + rows_per_task;
        if (end > a.m) end = a.m;
        if (a.values)
            quantize_values(team, &a, first, end);
        else
            go_quantize_rows(&a, first, end);
    }
}
