/* Rows of f32 or bf16 into qa8r panels: as many in a loop as the level likes (a group), two
 * groups at once. */
#ifndef GO_QUANTIZE_ROWS_H
#define GO_QUANTIZE_ROWS_H

#include "split.h"

#if defined(__ARM_FEATURE_DOTPROD)
#include "../neon_i8mm/quantize_four.h"
enum { GO_QUANTIZE_GROUP = 4, GO_QUANTIZE_AT_ONCE = 8 };
#else
#include "quantize_row.h"
enum { GO_QUANTIZE_GROUP = 1, GO_QUANTIZE_AT_ONCE = 1 };
#endif

/* `count` rows, at most GO_QUANTIZE_AT_ONCE where they are groups, `stride` values apart, to
 * rows r .. of one panel. */
GO_INLINE void go_quantize_group(const void *src, ptrdiff_t stride, go_dtype dtype, size_t k,
                                 int8_t *panel, size_t r, size_t count) {
    size_t i = 0;
#if defined(__ARM_FEATURE_DOTPROD)
    i = count / GO_QUANTIZE_GROUP * GO_QUANTIZE_GROUP;
    go_quantize_fours(src, stride, dtype, k, panel, r, i / GO_QUANTIZE_GROUP);
#endif
    for (; i < count; i++)
        go_quantize_row(go_at(src, (ptrdiff_t)i * stride, dtype), dtype, k, panel, r + i);
}

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
