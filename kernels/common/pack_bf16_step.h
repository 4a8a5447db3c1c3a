/* Rows of f32 or bf16 into the packed bf16 left operand one after the other. */
#ifndef GO_PACK_BF16_STEP_H
#define GO_PACK_BF16_STEP_H

#include "go_vec.h"
#include "layouts.h"

/* Rows of a step. */
enum { GO_BF16_STEP = 1 };

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
