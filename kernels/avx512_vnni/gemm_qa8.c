/* int8 GEMM with VPDPBUSD: 12 rows x 32 columns, 24 accumulators of 16 columns. */
#include <immintrin.h>

#include "gemm_qa8.h"

enum { TILE_M = 12, TILE_N = 32, CHAINS = 4 };
enum { FETCH = 2048 }; /* bytes ahead of what few rows read */

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

/* A panel for few rows: the weights are one stream, and enough chains run side by side to
 * wait for nothing else. It is fetched into the second cache level, as in gemm_qs4.c. */
GO_INLINE void stream(const int rows, const int8_t *a, size_t stride, const uint8_t *b,
                      size_t depth, int32_t *sums, size_t ld) {
    __m512i acc[GO_GEMV_ROWS][CHAINS];
    GO_UNROLLED (r, rows)
        GO_UNROLLED (c, CHAINS) acc[r][c] = _mm512_setzero_si512();
    for (size_t k = 0; k < depth; k += 4 * CHAINS) {
        GO_UNROLLED (c, CHAINS) {
            const size_t at = k + 4 * (size_t)c;
            __m512i w = _mm512_loadu_si512(b + at * 16);
            _mm_prefetch((const char *)b + at * 16 + FETCH, _MM_HINT_T1);
            GO_UNROLLED (r, rows) {
                int32_t four;
                memcpy(&four, a + (size_t)r * stride + at, 4);
                acc[r][c] = _mm512_dpbusd_epi32(acc[r][c], w, _mm512_set1_epi32(four));
            }
        }
    }
    GO_UNROLLED (r, rows) {
        GO_UNROLLED (c, CHAINS - 1) acc[r][0] = _mm512_add_epi32(acc[r][0], acc[r][c + 1]);
        _mm512_storeu_si512(sums + (size_t)r * ld, acc[r][0]);
    }
}

GO_INLINE void few_rows(const go_qa8_tile *t, int32_t *sums, size_t ld) {
#define STREAM(rows) stream(rows, t->lhs, t->lhs_stride, t->rhs, t->depth, sums, ld)
    if (t->rows == 1)
        STREAM(1);
    else if (t->rows == 2)
        STREAM(2);
    else if (t->rows == 3)
        STREAM(3);
    else
        STREAM(4);
#undef STREAM
}

GO_INLINE void integer_tile(const go_qa8_tile *t, int32_t *sums, size_t ld) {
    if (t->panels == 1 && t->rows <= GO_GEMV_ROWS) {
        few_rows(t, sums, ld);
        return;
    }
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
