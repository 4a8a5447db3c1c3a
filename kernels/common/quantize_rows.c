/* Rows of f32 or bf16 into the packed int8 left operand; see quantize_row.h. */
#include "quantize_rows.h"

#include "rows.h"

#if defined(__aarch64__)
#define GO_SYMBOL GO_NAME(pack_qa8r_8x8)
#else
#define GO_SYMBOL GO_NAME(pack_qa8r_1x4)
#endif

void GO_SYMBOL(go_team *team, const go_pack_lhs_args *args);

void GO_SYMBOL(go_team *team, const go_pack_lhs_args *args) {
    const size_t rows_per_task = go_task_rows(args->m, args->k, GO_QA8_ROWS, team->size);
    size_t tasks = (args->m + rows_per_task - 1) / rows_per_task;
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        size_t first = task * rows_per_task, end = first + rows_per_task;
        if (end > args->m) end = args->m;
        go_quantize_rows(args, first, end);
    }
}
