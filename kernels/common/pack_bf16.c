/* Rows of f32 or bf16 into the packed bf16 left operand: panels of MR rows,
 * [k8 / KR][MR][KR], zero padded (kernels/packing.py). */
#include "go_vec.h"

#if defined(__aarch64__)
enum { MR = 8, KR = 4 };
#define GO_SYMBOL GO_NAME(pack_bf16_8x4)
#else
enum { MR = 1, KR = 2 };
#define GO_SYMBOL GO_NAME(pack_bf16_1x2)
#endif

/* Values j .. j + n - 1 of row r (n <= 8, j a multiple of 8) and zeros up to 8. */
GO_INLINE void store8(uint16_t *panel, size_t r, size_t j, const uint16_t *values) {
    if (MR == 1) {
        memcpy(panel + j, values, 16);
    } else {
        for (size_t i = 0; i < 8; i += KR)
            memcpy(panel + (j + i) * MR + r * KR, values + i, KR * sizeof(uint16_t));
    }
}

GO_INLINE void pack_row(const void *src, go_dtype dtype, size_t k, uint16_t *panel, size_t r) {
    for (size_t j = 0; j < k; j += GO_LANES) {
        size_t n = k - j < GO_LANES ? k - j : GO_LANES;
        uint16_t values[GO_LANES];
        if (dtype == GO_BF16) { /* copied, so that even NaN payloads stay as they are */
            memset(values, 0, sizeof values);
            memcpy(values, (const uint16_t *)src + j, n * sizeof(uint16_t));
        } else {
            go_store_bf16(values, go_load_n((const float *)src + j, n));
        }
        store8(panel, r, j, values);
        if (n > 8) store8(panel, r, j + 8, values + 8);
    }
}

void GO_SYMBOL(go_team *team, const go_pack_lhs_args *args);

void GO_SYMBOL(go_team *team, const go_pack_lhs_args *args) {
    static const uint16_t zeros[8] = {0};
    const size_t rows_per_task = 16, k8 = (args->k + 7) / 8 * 8;
    size_t tasks = (args->m + rows_per_task - 1) / rows_per_task;
    for (size_t task; (task = go_next(team)) < tasks;) {
        size_t first = task * rows_per_task, end = first + rows_per_task;
        if (end > args->m) end = args->m;
        for (size_t i = first; i < end; i++) {
            uint16_t *panel = (uint16_t *)args->dst + i / MR * MR * k8;
            const void *row = go_at(args->src, (ptrdiff_t)i * args->src_stride, args->src_dtype);
            pack_row(row, args->src_dtype, args->k, panel, i % MR);
            if (i + 1 < args->m) continue;
            for (size_t r = i % MR + 1; r < MR; r++) /* rows beyond m in the last panel */
                for (size_t j = 0; j < k8; j += 8) store8(panel, r, j, zeros);
        }
    }
}
