/* int8 GEMM with SMMLA: 8 rows x 8 columns, 16 accumulators of 2 x 2. */
#include <arm_neon.h>

#include "gemm_qa8.h"

#define VALUE int8_t
#define VALUES int8x16_t
#define SUM int32_t
#define SUMS int32x4_t
#define LOAD vld1q_s8
#define MMLA vmmlaq_s32
#define ZERO vdupq_n_s32(0)
#define ZIP(half, x, y) \
    vreinterpretq_s32_s64(half(vreinterpretq_s64_s32(x), vreinterpretq_s64_s32(y)))
#define ZIP_LO(x, y) ZIP(vzip1q_s64, x, y)
#define ZIP_HI(x, y) ZIP(vzip2q_s64, x, y)
#define STORE vst1q_s32
#include "mmla_tile.h"

enum { TILE_M = 8, TILE_N = 16 }; /* two panels, which are finished together */

GO_INLINE void integer_tile(const go_qa8_tile *t, int32_t *sums, size_t ld) {
    for (size_t p = 0; p < t->panels; p++)
        mmla_8x8(t->lhs, (const int8_t *)t->rhs + p * t->rhs_stride, t->depth / 8, sums + p * 8,
                 ld);
}

GO_GEMM_QA8(go_gemm_f32_qa8r_qs8c_8x8x8_neon_i8mm, TILE_M, TILE_N, integer_tile, 0)
