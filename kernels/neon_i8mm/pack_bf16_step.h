/* Two rows of f32 or bf16 at a time into the packed bf16 left operand, [k8 / 4][8 rows][4]:
 * their groups of four are neighbours in the panel. */
#ifndef GO_PACK_BF16_STEP_H
#define GO_PACK_BF16_STEP_H

#include <arm_neon.h>

#include "go_vec.h"
#include "layouts.h"

/* Values k .. k + 3 of two rows as bf16, the first `count` of them, then zeros. */
GO_INLINE uint16x8_t bf16_pair(const void *const rows[2], go_dtype dtype, size_t k, size_t count) {
    if (dtype == GO_BF16) { /* copied, so that even NaN payloads stay as they are */
        uint16_t h[8] = {0};
        for (int i = 0; i < 2; i++)
            memcpy(h + 4 * i, (const uint16_t *)rows[i] + k, count * sizeof *h);
        return vld1q_u16(h);
    }
    float x[8] = {0};
    for (int i = 0; i < 2; i++) memcpy(x + 4 * i, (const float *)rows[i] + k, count * sizeof *x);
    return go_narrow_bf16_8(vld1q_f32(x), vld1q_f32(x + 4));
}

enum { GO_BF16_STEP = 2 }; /* rows */

/* Rows first (even) and first + 1; where the second does not exist, its place gets the first. */
GO_INLINE void go_bf16_pack_step(const go_pack_lhs_args *args, size_t first, go_dtype dtype) {
    const size_t k8 = (args->k + 7) / 8 * 8;
    const ptrdiff_t row = (ptrdiff_t)first, next = first + 1 < args->m ? row + 1 : row;
    const void *const rows[2] = {go_at(args->src, row * args->src_stride, dtype),
                                 go_at(args->src, next * args->src_stride, dtype)};
    uint16_t *to = (uint16_t *)args->dst + first / 8 * 8 * k8 + first % 8 * 4;
    size_t k = 0;
    for (; k + 4 <= args->k; k += 4, to += 32) vst1q_u16(to, bf16_pair(rows, dtype, k, 4));
    for (; k < k8; k += 4, to += 32)
        vst1q_u16(to, bf16_pair(rows, dtype, k, k < args->k ? args->k - k : 0));
}

#endif
