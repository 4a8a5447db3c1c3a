/* bf16 GEMM with BFMMLA on up to 8 rows x 8 columns. How BFMMLA rounds inside its sum of four
 * products is up to the core: equal to f32 only within a bound. */
#include <arm_neon.h>

#include "gemm_bf16.h"

#define VALUE bfloat16_t
#define VALUES bfloat16x8_t
#define SUMS float32x4_t
#define LOAD vld1q_bf16
#define MMLA vbfmmlaq_f32
#include "mmla_tile.h"

/* Adds the bias to the sums of a pair of rows and stores them. */
GO_INLINE void bf16_finish_pair(float32x4_t acc[4], const float32x4_t bias[4], const int both,
                                const int with_relu, float *dst, ptrdiff_t stride) {
    GO_UNROLLED (c, 4) {
        acc[c] = vaddq_f32(acc[c], bias[c]);
        if (with_relu) acc[c] = relu(acc[c]);
    }
    store_pair(dst, stride, acc, both);
}

/* dst[r * stride + c] = results of `rows` x 8 (rows a constant: 1, 2, 4 or 8), up to and
 * including none or relu; bias[i]: of pair i of columns, twice. */
GO_INLINE void bf16_8x8(const bfloat16_t *lhs, const bfloat16_t *rhs, size_t depth,
                        const float32x4_t bias[4], const int rows, const int with_relu, float *dst,
                        ptrdiff_t stride) {
    const int pairs = mmla_pairs(rows);
    float32x4_t acc[4][4];
    GO_UNROLLED (r, pairs)
        GO_UNROLLED (c, 4) acc[r][c] = vdupq_n_f32(0);
    mmla_8x8(acc, lhs, rhs, depth / 4, pairs);
    GO_UNROLLED (r, pairs)
        bf16_finish_pair(acc[r], bias, rows > 1, with_relu, dst + 2 * r * stride, stride);
}

/* One or two rows times the columns of two panels. The sums of one panel would wait for each
 * other: there are four of them, and BFMMLA adds to the same one every three cycles. */
GO_INLINE void bf16_2x16(const bfloat16_t *lhs, const bfloat16_t *const rhs[2], size_t depth,
                         const float32x4_t bias[8], const int rows, const int with_relu, float *dst,
                         ptrdiff_t stride) {
    float32x4_t acc[8];
    GO_UNROLLED (c, 8) acc[c] = vdupq_n_f32(0);
    for (size_t k = 0; k < depth; k += 8)
        GO_UNROLL for (size_t at = 8 * k; at < 8 * k + 64; at += 32) {
            const bfloat16x8_t a = vld1q_bf16(lhs + at);
            GO_UNROLLED (c, 8)
                acc[c] = vbfmmlaq_f32(acc[c], a, vld1q_bf16(rhs[c / 4] + at + c % 4 * 8));
        }
    GO_UNROLLED (p, 2)
        bf16_finish_pair(acc + 4 * p, bias + 4 * p, rows > 1, with_relu, dst + 8 * p, stride);
}

/* The first `rows` rows (1, 2, 4 or 8) of a panel times the columns of one or two; bias: of
 * pairs of columns. */
GO_INLINE void bf16_panels(const go_bf16_tile *t, const bfloat16_t *lhs, const float32x4_t bias[8],
                           const int rows, const int with_relu, float *dst, ptrdiff_t stride) {
    const bfloat16_t *first = (const bfloat16_t *)t->rhs;
    if (rows <= 2 && t->panels == 2) {
        const bfloat16_t *both[2] = {first, first + t->rhs_stride};
#define TILE(relu) bf16_2x16(lhs, both, t->depth, bias, rows, relu, dst, stride)
        with_relu ? TILE(1) : TILE(0);
#undef TILE
        return;
    }
    for (size_t p = 0; p < t->panels; p++) {
        const bfloat16_t *rhs = first + p * t->rhs_stride;
#define TILE(relu) bf16_8x8(lhs, rhs, t->depth, bias + 4 * p, rows, relu, dst + 8 * p, stride)
        with_relu ? TILE(1) : TILE(0);
#undef TILE
    }
}

/* Rows row .. row + rows - 1 (row a multiple of 8) of up to 16 columns from col on. */
GO_INLINE void bf16_sweep(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                          size_t cols) {
    const go_bf16_tile t = go_bf16_tile_at(args, row, rows, col, cols);
    const go_epilogue *e = &args->epilogue;
    const int plain = go_epilogue_is_plain(args) && cols == 16;
    float bias[16] = {0};
    float32x4_t pairs[8];
    if (e->bias) memcpy(bias, e->bias + col, cols * sizeof(float));
    for (int i = 0; i < 8; i++) pairs[i] = twice(bias + 2 * i);
    for (size_t r = 0; r < rows; r += 8) {
        float sums[8 * 16];
        const size_t left = go_min_size(rows - r, 8);
        const int direct = plain && (left <= 2 || left == 4 || left == 8);
        const int with_relu = direct && e->activation == GO_ACT_RELU;
        float *dst = direct ? go_gemm_row(args, row + r) + col : sums;
        const ptrdiff_t stride = direct ? args->dst_stride : 16;
        const bfloat16_t *lhs = (const bfloat16_t *)t.lhs + r * t.depth;
        if (left > 4)
            bf16_panels(&t, lhs, pairs, 8, with_relu, dst, stride);
        else if (left > 2)
            bf16_panels(&t, lhs, pairs, 4, with_relu, dst, stride);
        else if (left > 1)
            bf16_panels(&t, lhs, pairs, 2, with_relu, dst, stride);
        else
            bf16_panels(&t, lhs, pairs, 1, with_relu, dst, stride);
        if (!direct) go_epilogue_rows(args, row + r, left, col, cols, sums, 16);
    }
}
