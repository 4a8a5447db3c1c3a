/* Rows of f32 or bf16 into the packed bf16 left operand: panels of MR rows,
 * [k8 / KR][MR][KR], zero padded (kernels/packing.py). */
#ifndef GO_PACK_BF16_ROWS_H
#define GO_PACK_BF16_ROWS_H

#include GO_PART_PACK_BF16_STEP

/* Rows first .. end - 1 of a packing (first a multiple of GO_BF16_ROWS), and behind the last
 * row the rest of its panel. */
GO_INLINE void go_pack_bf16_rows(const go_pack_lhs_args *args, size_t first, size_t end) {
    if (args->src_dtype == GO_BF16) /* one copy of the loop for each type */
        for (size_t i = first; i < end; i += GO_BF16_STEP) go_bf16_pack_step(args, i, GO_BF16);
    else
        for (size_t i = first; i < end; i += GO_BF16_STEP) go_bf16_pack_step(args, i, GO_F32);
    const size_t k8 = (args->k + 7) / 8 * 8, filled = args->m % GO_BF16_MR;
    if (end < args->m || filled == 0) return;
    uint16_t *panel = (uint16_t *)args->dst + (args->m - filled) * k8;
    for (size_t k = 0; k < k8; k += GO_BF16_KR)
        memset(panel + k * GO_BF16_MR + filled * GO_BF16_KR, 0,
               (GO_BF16_MR - filled) * GO_BF16_KR * sizeof *panel);
}

#endif
