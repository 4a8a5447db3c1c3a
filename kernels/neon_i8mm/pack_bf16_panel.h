/* Rows of f32 or bf16 into the packed bf16 left operand, [k8 / 4][8 rows][4]: two rows at
 * a time, whose groups of four are neighbours in the panel. */
#include "go_vec.h"

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

/* The panel that starts with row `first`. */
GO_INLINE void pack_bf16_panel(const go_pack_lhs_args *args, size_t first, go_dtype dtype) {
    const size_t k8 = (args->k + 7) / 8 * 8, left = args->m - first;
    uint16_t *panel = (uint16_t *)args->dst + first * k8;
    for (size_t r = 0; r < 8 && r < left; r += 2) {
        const ptrdiff_t row = (ptrdiff_t)(first + r), next = r + 1 < left ? row + 1 : row;
        const void *const rows[2] = {go_at(args->src, row * args->src_stride, dtype),
                                     go_at(args->src, next * args->src_stride, dtype)};
        uint16_t *to = panel + 4 * r;
        size_t k = 0;
        for (; k + 4 <= args->k; k += 4, to += 32) vst1q_u16(to, bf16_pair(rows, dtype, k, 4));
        for (; k < k8; k += 4, to += 32)
            vst1q_u16(to, bf16_pair(rows, dtype, k, k < args->k ? args->k - k : 0));
    }
    for (size_t r = left; r < 8; r++) /* rows beyond the last */
        for (size_t k = 0; k < k8; k += 4) memset(panel + 8 * k + 4 * r, 0, 4 * sizeof *panel);
}

/* Defines the kernel `symbol`. */
#define GO_PACK_BF16(symbol)                                        \
    void symbol(go_team *team, const go_pack_lhs_args *args);       \
    void symbol(go_team *team, const go_pack_lhs_args *args) {      \
        const size_t tasks = (args->m + 7) / 8;                     \
        for (size_t task; (task = go_next(team, tasks)) < tasks;) { \
            if (args->src_dtype == GO_BF16)                         \
                pack_bf16_panel(args, task * 8, GO_BF16);           \
            else                                                    \
                pack_bf16_panel(args, task * 8, GO_F32);            \
        }                                                           \
    }
