/* Rows of f32 or bf16 into the packed bf16 left operand: panels of MR rows,
 * [k8 / KR][MR][KR], zero padded (kernels/packing.py). */
#ifndef GO_PACK_BF16_ROWS_H
#define GO_PACK_BF16_ROWS_H

#include "go_vec.h"

#if defined(__aarch64__)
enum { GO_BF16_MR = 8, GO_BF16_KR = 4 };
#else
enum { GO_BF16_MR = 1, GO_BF16_KR = 2 };
#endif

/* Values j .. j + n - 1 of row r (n <= 8, j a multiple of 8) and zeros up to 8. */
GO_INLINE void go_bf16_store8(uint16_t *panel, size_t r, size_t j, const uint16_t *values) {
    if (GO_BF16_MR == 1) {
        memcpy(panel + j, values, 16);
    } else {
        for (size_t i = 0; i < 8; i += GO_BF16_KR)
            memcpy(panel + (j + i) * GO_BF16_MR + r * GO_BF16_KR, values + i,
                   GO_BF16_KR * sizeof(uint16_t));
    }
}

GO_INLINE void go_bf16_pack_row(const void *src, go_dtype dtype, size_t k, uint16_t *panel,
                                size_t r) {
    for (size_t j = 0; j < k; j += GO_LANES) {
        size_t n = k - j < GO_LANES ? k - j : GO_LANES;
        uint16_t values[GO_LANES];
        if (dtype == GO_BF16) { /* copied, so that even NaN payloads stay as they are */
            memset(values, 0, sizeof values);
            memcpy(values, (const uint16_t *)src + j, n * sizeof(uint16_t));
        } else {
            go_store_bf16(values, go_load_n((const float *)src + j, n));
        }
        go_bf16_store8(panel, r, j, values);
        if (n > 8) go_bf16_store8(panel, r, j + 8, values + 8);
    }
}

/* Rows first .. end - 1 of a packing, and behind the last row the rest of its panel. */
GO_INLINE void go_pack_bf16_rows(const go_pack_lhs_args *args, size_t first, size_t end) {
    static const uint16_t zeros[8] = {0};
    const size_t k8 = (args->k + 7) / 8 * 8;
    for (size_t i = first; i < end; i++) {
        uint16_t *panel = (uint16_t *)args->dst + i / GO_BF16_MR * GO_BF16_MR * k8;
        const void *row = go_at(args->src, (ptrdiff_t)i * args->src_stride, args->src_dtype);
        go_bf16_pack_row(row, args->src_dtype, args->k, panel, i % GO_BF16_MR);
        if (i + 1 < args->m) continue;
        for (size_t r = i % GO_BF16_MR + 1; r < GO_BF16_MR; r++)
            for (size_t j = 0; j < k8; j += 8) go_bf16_store8(panel, r, j, zeros);
    }
}

#endif
