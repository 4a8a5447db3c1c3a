/* int8 GEMM with VPMADDUBSW: 4 rows x 16 columns, 8 accumulators of 8 columns.
 *
 * VPMADDUBSW multiplies unsigned by signed bytes and adds pairs with saturation to
 * 16 bits. |a| <= 128 times w * sign(a), |w| <= 127, gives pairs of at most 32512:
 * exact. */
#include <immintrin.h>

#include "gemm_qa8.h"

enum { TILE_M = 4, TILE_N = 16 };

GO_INLINE void block(const int rows, const int8_t *a, size_t stride, const uint8_t *b, size_t depth,
                     int32_t *sums, size_t ld) {
    const __m256i ones = _mm256_set1_epi16(1), sign = _mm256_set1_epi8((char)0x80);
    __m256i acc[TILE_M][2];
    GO_UNROLLED (r, rows) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
    for (size_t k = 0; k < depth; k += 4) {
        __m256i w[2]; /* stored as q + 128, wanted as q */
        GO_UNROLLED (p, 2)
            w[p] = _mm256_xor_si256(
                _mm256_loadu_si256((const __m256i *)(b + k * 16 + (size_t)p * 32)), sign);
        GO_UNROLLED (r, rows) {
            int32_t four;
            memcpy(&four, a + (size_t)r * stride + k, 4);
            __m256i x = _mm256_set1_epi32(four), magnitude = _mm256_abs_epi8(x);
            GO_UNROLLED (p, 2) {
                __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w[p], x));
                acc[r][p] = _mm256_add_epi32(acc[r][p], _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    GO_UNROLLED (r, rows)
        GO_UNROLLED (p, 2)
            _mm256_storeu_si256((__m256i *)(sums + (size_t)r * ld + (size_t)p * 8), acc[r][p]);
}

GO_INLINE void integer_tile(const go_qa8_tile *t, int32_t *sums, size_t ld) {
    if (t->rows == TILE_M) {
        block(TILE_M, t->lhs, t->lhs_stride, t->rhs, t->depth, sums, ld);
        return;
    }
    for (size_t r = 0; r < t->rows; r++)
        block(1, t->lhs + r * t->lhs_stride, 0, t->rhs, t->depth, sums + r * ld, ld);
}

GO_GEMM_QA8(go_gemm_f32_qa8r_qs8c_4x16x4_avx2, TILE_M, TILE_N, integer_tile, 0)
