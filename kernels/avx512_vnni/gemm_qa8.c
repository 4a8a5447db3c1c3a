/* int8 GEMM with VPDPBUSD: 12 rows x 32 columns, 24 accumulators of 16 columns. */
#include <immintrin.h>

#include "gemm_qa8.h"

enum { TILE_M = 12, TILE_N = 32 };

/* Four values along k of each of 16 columns: the unsigned operand is the right one,
 * stored as q + 128, so the signed one can be the broadcast left one. */
GO_INLINE void block(const int rows, const int panels, const int8_t *a, size_t stride,
                     const uint8_t *b, size_t b_stride, size_t depth, int32_t *sums, size_t ld) {
    __m512i acc[TILE_M][2];
    GO_UNROLLED (r, rows)
        GO_UNROLLED (p, panels) acc[r][p] = _mm512_setzero_si512();
    /* A pointer for every third row: with an index register of 0, 1 or 2 strides
     * they address 12 rows, and all of them fit in registers. */
    const int8_t *at[4] = {a, a + 3 * stride, a + 6 * stride, a + 9 * stride};
    GO_UNROLLED (i, 4) GO_OPAQUE(at[i]);
    for (size_t k = 0; k < depth; k += 4) {
        __m512i w[2];
        GO_UNROLLED (p, panels) w[p] = _mm512_loadu_si512(b + (size_t)p * b_stride + k * 16);
        GO_UNROLLED (r, rows) {
            int32_t four;
            memcpy(&four, at[r / 3] + (size_t)(r % 3) * stride + k, 4);
            __m512i x = _mm512_set1_epi32(four);
            GO_UNROLLED (p, panels) acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], w[p], x);
        }
    }
    GO_UNROLLED (r, rows)
        GO_UNROLLED (p, panels)
            _mm512_storeu_si512(sums + (size_t)r * ld + (size_t)p * 16, acc[r][p]);
}

GO_INLINE void integer_tile(const go_qa8_tile *t, int32_t *sums, size_t ld) {
    for (size_t r = 0, left; (left = t->rows - r) > 0;) {
        const int8_t *a = t->lhs + r * t->lhs_stride;
        int32_t *s = sums + r * ld;
#define BLOCK(rows, panels) \
    block(rows, panels, a, t->lhs_stride, t->rhs, t->rhs_stride, t->depth, s, ld), r += rows
#define ROWS(rows) (t->panels == 2 ? (BLOCK(rows, 2)) : (BLOCK(rows, 1)))
        if (left >= 12)
            ROWS(12);
        else if (left >= 6)
            ROWS(6);
        else if (left >= 3)
            ROWS(3);
        else
            ROWS(1);
    }
}

GO_GEMM_QA8(GO_NAME(gemm_f32_qa8r_qs8c_12x32x4), TILE_M, TILE_N, integer_tile, 128)
