/* Rows of f32 or bf16 into the packed int8 left operand; see quantize_row.h. */
#include "quantize_row.h"

#if defined(__aarch64__)
#define GO_SYMBOL GO_NAME(pack_qa8r_8x8)
#else
#define GO_SYMBOL GO_NAME(pack_qa8r_1x4)
#endif

void GO_SYMBOL(go_team *team, const go_pack_lhs_args *args);

void GO_SYMBOL(go_team *team, const go_pack_lhs_args *args) {
    const size_t rows_per_task = 8, panel_bytes = go_qa8_panel_bytes(args->k);
    size_t tasks = (args->m + rows_per_task - 1) / rows_per_task;
    for (size_t task; (task = go_next(team)) < tasks;) {
        size_t first = task * rows_per_task, end = first + rows_per_task;
        if (end > args->m) end = args->m;
        for (size_t i = first; i < end; i++) {
            int8_t *panel = (int8_t *)args->dst + i / GO_QA8_MR * panel_bytes;
            const void *row = go_at(args->src, (ptrdiff_t)i * args->src_stride, args->src_dtype);
            /* One copy of the loop for each type. */
            if (args->src_dtype == GO_BF16)
                go_quantize_row(row, GO_BF16, args->k, panel, i % GO_QA8_MR);
            else
                go_quantize_row(row, GO_F32, args->k, panel, i % GO_QA8_MR);
            if (i + 1 == args->m && (i + 1) % GO_QA8_MR != 0)
                go_qa8_zero_rows(panel, (i + 1) % GO_QA8_MR, args->k);
        }
    }
}
