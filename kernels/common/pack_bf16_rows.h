/* Rows of f32 or bf16 into the packed bf16 left operand: panels of MR rows,
 * [k8 / KR][MR][KR], zero padded (kernels/packing.py). */
#ifndef GO_PACK_BF16_ROWS_H
#define GO_PACK_BF16_ROWS_H

#include GO_PART_PACK_BF16_STEP

/* Zeroes what `rows` rows of k values leave of their last panel. */
GO_INLINE void go_bf16_finish_rows(void *packed, size_t rows, size_t k) {
    const size_t k8 = (k + 7) / 8 * 8, filled = rows % GO_BF16_MR;
    if (filled == 0) return;
    uint16_t *panel = (uint16_t *)packed + (rows - filled) * k8;
    for (size_t j = 0; j < k8; j += GO_BF16_KR)
        memset(panel + j * GO_BF16_MR + filled * GO_BF16_KR, 0,
               (GO_BF16_MR - filled) * GO_BF16_KR * sizeof *panel);
}

/* Rows first .. end - 1 of a packing (first a multiple of GO_BF16_ROWS), and behind the last
 * row the rest of its panel. */
GO_INLINE void go_pack_bf16_rows(const go_pack_lhs_args *args, size_t first, size_t end) {
    if (args->src_dtype == GO_BF16) /* one copy of the loop for each type */
        for (size_t i = first; i < end; i += GO_BF16_STEP) go_bf16_pack_step(args, i, GO_BF16);
    else
        for (size_t i = first; i < end; i += GO_BF16_STEP) go_bf16_pack_step(args, i, GO_F32);
    if (end == args->m) go_bf16_finish_rows(args->dst, args->m, args->k);
}

#endif
