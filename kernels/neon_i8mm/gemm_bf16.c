/* bf16 GEMM with BFMMLA: 8 rows x 8 columns, 16 accumulators of 2 x 2. How BFMMLA rounds
 * inside its sum of four products is up to the core: equal to f32 only within a bound. */
#include <arm_neon.h>

#include "gemm_bf16.h"

#define VALUE bfloat16_t
#define VALUES bfloat16x8_t
#define SUM float
#define SUMS float32x4_t
#define LOAD vld1q_bf16
#define MMLA vbfmmlaq_f32
#define ZERO vdupq_n_f32(0)
#define ZIP(half, x, y) \
    vreinterpretq_f32_s64(half(vreinterpretq_s64_f32(x), vreinterpretq_s64_f32(y)))
#define ZIP_LO(x, y) ZIP(vzip1q_s64, x, y)
#define ZIP_HI(x, y) ZIP(vzip2q_s64, x, y)
#define STORE vst1q_f32
#include "mmla_tile.h"

enum { TILE_M = 8, TILE_N = 16 }; /* two panels, which are finished together */

GO_INLINE void float_tile(const go_bf16_tile *t, float *sums, size_t ld) {
    for (size_t p = 0; p < t->panels; p++)
        mmla_8x8((const bfloat16_t *)t->lhs, (const bfloat16_t *)t->rhs + p * t->rhs_stride,
                 t->depth / 4, sums + p * 8, ld);
}

GO_GEMM_BF16(go_gemm_f32_bf16_bf16_8x8x4_neon_i8mm, TILE_M, TILE_N, float_tile)
