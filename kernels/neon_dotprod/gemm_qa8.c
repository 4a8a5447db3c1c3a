/* int8 GEMM with SDOT: 8 rows x 8 columns, 16 accumulators of four columns. For cores
 * without the matrix multiply-add of i8mm, such as Neoverse N1. */
#include <arm_neon.h>

#include "gemm_qa8.h"

enum { TILE_M = 8, TILE_N = 16 };

/* sums[r * ld + c] of 8 x 8. A panel holds eight values along k of a column together;
 * taking every second group of four gives four columns in one vector, whose dot products
 * with one group of a row need no sum across lanes. */
GO_INLINE void dot_8x8(const int8_t *lhs, const int8_t *rhs, size_t depth, int32_t *sums,
                       size_t ld) {
    int32x4_t acc[8][2];
    GO_UNROLLED (r, 8) acc[r][0] = acc[r][1] = vdupq_n_s32(0);
    for (size_t k = 0; k < depth; k += 8, lhs += 64, rhs += 64) {
        int32x4_t b[4];
        int8x16_t first[2], second[2]; /* values 0 .. 3 and 4 .. 7 of four columns */
        GO_UNROLLED (i, 4) b[i] = vreinterpretq_s32_s8(vld1q_s8(rhs + 16 * i));
        GO_UNROLLED (i, 2) {
            first[i] = vreinterpretq_s8_s32(vuzp1q_s32(b[2 * i], b[2 * i + 1]));
            second[i] = vreinterpretq_s8_s32(vuzp2q_s32(b[2 * i], b[2 * i + 1]));
        }
        GO_UNROLLED (pair, 4) {
            const int8x16_t a = vld1q_s8(lhs + 16 * pair);
            GO_UNROLLED (i, 2) {
                int32x4_t *even = &acc[2 * pair][i], *odd = &acc[2 * pair + 1][i];
                *even = vdotq_laneq_s32(vdotq_laneq_s32(*even, first[i], a, 0), second[i], a, 1);
                *odd = vdotq_laneq_s32(vdotq_laneq_s32(*odd, first[i], a, 2), second[i], a, 3);
            }
        }
    }
    GO_UNROLLED (r, 8)
        GO_UNROLLED (i, 2) vst1q_s32(sums + (size_t)r * ld + 4 * (size_t)i, acc[r][i]);
}

GO_INLINE void integer_tile(const go_qa8_tile *t, int32_t *sums, size_t ld) {
    for (size_t p = 0; p < t->panels; p++)
        dot_8x8(t->lhs, (const int8_t *)t->rhs + p * t->rhs_stride, t->depth, sums + 8 * p, ld);
}

GO_GEMM_QA8(go_gemm_f32_qa8r_qs8c_8x8x8_neon_dotprod, TILE_M, TILE_N, integer_tile, 0)
