/* Rows of f32 or bf16 into the packed bf16 left operand. */
#include "pack_bf16_rows.h"
#include "rows.h"

void GO_NAME(GO_PACK_BF16)(go_team *team, const go_pack_lhs_args *args);

void GO_NAME(GO_PACK_BF16)(go_team *team, const go_pack_lhs_args *args) {
    const size_t rows_per_task = go_task_rows(args->m, args->k, GO_BF16_ROWS, team->size);
    size_t tasks = (args->m + rows_per_task - 1) / rows_per_task;
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        size_t first = task * rows_per_task, end = first + rows_per_task;
        go_pack_bf16_rows(args, first, end < args->m ? end : args->m);
    }
}
