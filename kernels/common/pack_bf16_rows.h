/* Rows of f32 or bf16 into the packed bf16 left operand: panels of MR rows,
 * [k8 / KR][MR][KR], zero padded (kernels/packing.py). */
#ifndef GO_PACK_BF16_ROWS_H
#define GO_PACK_BF16_ROWS_H

#include "go_vec.h"

/* Tasks begin at multiples of GO_BF16_ROWS: panels are halved, so that there are enough tasks
 * for many threads. */
#if defined(__aarch64__)
enum { GO_BF16_MR = 8, GO_BF16_KR = 4, GO_BF16_ROWS = 4 };
#else
enum { GO_BF16_MR = 1, GO_BF16_KR = 2, GO_BF16_ROWS = 1 };
#endif

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include "../neon_i8mm/pack_bf16_pair.h"
#else
enum { GO_BF16_STEP = 1 }; /* rows */

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

/* Row i. */
GO_INLINE void go_bf16_pack_step(const go_pack_lhs_args *args, size_t i, go_dtype dtype) {
    const void *src = go_at(args->src, (ptrdiff_t)i * args->src_stride, dtype);
    const size_t k8 = (args->k + 7) / 8 * 8, r = i % GO_BF16_MR;
    uint16_t *panel = (uint16_t *)args->dst + (i - r) * k8;
    for (size_t j = 0; j < args->k; j += GO_LANES) {
        const size_t n = args->k - j < GO_LANES ? args->k - j : GO_LANES;
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
#endif

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
