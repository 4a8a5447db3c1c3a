/* Rows of f32 or bf16 into qa8r panels: as many in a loop as the level likes (a group), and as
 * many groups at once. */
#ifndef GO_QUANTIZE_ROWS_H
#define GO_QUANTIZE_ROWS_H

#include GO_PART_QUANTIZE_GROUP
#include "split.h"

/* Rows first .. end - 1 of a packing (first a multiple of GO_QA8_ROWS), and behind the last
 * row the rest of its panel. */
GO_INLINE void go_quantize_rows(const go_pack_lhs_args *args, size_t first, size_t end) {
    go_qa8_begin_rows(args->dst, first, end, args->m, args->k);
    for (size_t i = first, next; i < end; i = next) {
        int8_t *panel = (int8_t *)args->dst + i / GO_QA8_MR * go_qa8_panel_bytes(args->k);
        const void *row = go_at(args->src, (ptrdiff_t)i * args->src_stride, args->src_dtype);
        next = go_min_size(i / GO_QA8_MR * GO_QA8_MR + GO_QA8_MR, end);
        /* One copy of the loop for each type. */
        if (args->src_dtype == GO_BF16)
            go_quantize_group(row, args->src_stride, GO_BF16, args->k, panel, i % GO_QA8_MR,
                              next - i);
        else
            go_quantize_group(row, args->src_stride, GO_F32, args->k, panel, i % GO_QA8_MR,
                              next - i);
    }
}

#endif
