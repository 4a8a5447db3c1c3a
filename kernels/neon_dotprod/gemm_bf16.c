/* bf16 GEMM for cores without bf16 instructions: both operands are widened to f32 in
 * registers. Every result is one chain of fused multiply-adds in order of the
 * pairs of k, the odd value of a pair first, as in the portable kernel. */
#include <arm_neon.h>

#include "gemm_bf16.h"

enum { TILE_M = 8, TILE_N = 16 };

GO_INLINE float32x4_t widen_low(uint16x8_t v) {
    return vreinterpretq_f32_u16(vzip1q_u16(vdupq_n_u16(0), v));
}

GO_INLINE float32x4_t widen_high(uint16x8_t v) {
    return vreinterpretq_f32_u16(vzip2q_u16(vdupq_n_u16(0), v));
}

/* sums[r * ld + c] of 8 x 8. A structure load takes the four values along k of the
 * columns apart, so that a vector is one k of eight columns. */
GO_INLINE void fma_8x8(const uint16_t *lhs, const uint16_t *rhs, size_t depth, float *sums,
                       size_t ld) {
    float32x4_t acc[8][2];
    GO_UNROLLED (r, 8) acc[r][0] = acc[r][1] = vdupq_n_f32(0);
    for (size_t k = 0; k < depth; k += 4, lhs += 32, rhs += 32) {
        const uint16x8x4_t b = vld4q_u16(rhs);
        float32x4_t w[4][2];
        GO_UNROLLED (j, 4) w[j][0] = widen_low(b.val[j]), w[j][1] = widen_high(b.val[j]);
        GO_UNROLLED (pair, 4) {
            const uint16x8_t rows = vld1q_u16(lhs + 8 * pair);
            const float32x4_t even = widen_low(rows), odd = widen_high(rows);
#define STEP(j)                                                                        \
    GO_UNROLLED (i, 2) {                                                               \
        acc[2 * pair][i] = vfmaq_laneq_f32(acc[2 * pair][i], w[j][i], even, j);        \
        acc[2 * pair + 1][i] = vfmaq_laneq_f32(acc[2 * pair + 1][i], w[j][i], odd, j); \
    }
            STEP(1)
            STEP(0)
            STEP(3)
            STEP(2)
#undef STEP
        }
    }
    GO_UNROLLED (r, 8)
        GO_UNROLLED (i, 2) vst1q_f32(sums + (size_t)r * ld + 4 * (size_t)i, acc[r][i]);
}

GO_INLINE void float_tile(const go_bf16_tile *t, float *sums, size_t ld) {
    for (size_t p = 0; p < t->panels; p++)
        fma_8x8(t->lhs, t->rhs + p * t->rhs_stride, t->depth, sums + 8 * p, ld);
}

GO_GEMM_BF16(GO_NAME(gemm_f32_bf16_bf16_8x8x4), TILE_M, TILE_N, float_tile)
