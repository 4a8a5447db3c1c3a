/* int8 GEMM with VPMADDWD: 4 rows x 16 columns, 8 accumulators of 8 columns.
 *
 * VPMADDUBSW would take twice as many values, but saturates: 255 * 128 * 2 does not fit
 * 16 bits. Widened to 16 bits everything is exact. Bytes 0, 2 and 1, 3 of four values along
 * k become two vectors of pairs, by a mask and a shift that serve all rows; a strip of the
 * left operand is widened in the same order and serves all columns of a tile. */
#include <immintrin.h>

#include "gemm_qa8.h"

enum { TILE_M = 4, TILE_N = 64, STRIP = 512 };

/* Rows of the left operand, per four values along k: 0, 2, 1, 3. */
typedef int16_t widened[TILE_M][STRIP];

GO_INLINE void widen(const go_qa8_tile *t, size_t k0, size_t depth, widened lhs) {
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    for (size_t r = 0; r < t->rows; r++)
        for (size_t k = 0; k < depth; k += 16) {
            const int8_t *at = t->lhs + r * t->lhs_stride + k0 + k;
            __m256i x = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)at));
            _mm256_storeu_si256((__m256i *)(lhs[r] + k), _mm256_shuffle_epi8(x, order));
        }
}

GO_INLINE __m256i pair(const int16_t *p) {
    int32_t two;
    memcpy(&two, p, 4);
    return _mm256_set1_epi32(two);
}

/* Adds to the sums; the first strip starts them. */
GO_INLINE void block(const int rows, const widened lhs, const uint8_t *b, size_t depth,
                     const int first, int32_t *sums, size_t ld) {
    const __m256i low = _mm256_set1_epi16(0xff);
    __m256i acc[TILE_M][2];
    GO_UNROLLED (r, rows)
        GO_UNROLLED (p, 2) {
            const int32_t *from = sums + (size_t)r * ld + (size_t)p * 8;
            acc[r][p] = first ? _mm256_setzero_si256() : _mm256_loadu_si256((const __m256i *)from);
        }
    for (size_t k = 0; k < depth; k += 4) {
        __m256i even[2], odd[2]; /* q + 128 */
        GO_UNROLLED (p, 2) {
            __m256i w = _mm256_loadu_si256((const __m256i *)(b + k * 16 + (size_t)p * 32));
            even[p] = _mm256_and_si256(w, low);
            odd[p] = _mm256_srli_epi16(w, 8);
        }
        GO_UNROLLED (r, rows) {
            __m256i x = pair(lhs[r] + k), y = pair(lhs[r] + k + 2);
            GO_UNROLLED (p, 2) {
                acc[r][p] = _mm256_add_epi32(acc[r][p], _mm256_madd_epi16(even[p], x));
                acc[r][p] = _mm256_add_epi32(acc[r][p], _mm256_madd_epi16(odd[p], y));
            }
        }
    }
    GO_UNROLLED (r, rows)
        GO_UNROLLED (p, 2)
            _mm256_storeu_si256((__m256i *)(sums + (size_t)r * ld + (size_t)p * 8), acc[r][p]);
}

GO_INLINE void integer_tile(const go_qa8_tile *t, int32_t *sums, size_t ld) {
    widened lhs;
    for (size_t k = 0; k < t->depth; k += STRIP) {
        const size_t depth = go_min_size(STRIP, t->depth - k);
        widen(t, k, depth, lhs);
        for (size_t p = 0; p < t->panels; p++) {
            const uint8_t *b = t->rhs + p * t->rhs_stride + k * 16;
#define BLOCK(rows) block(rows, lhs, b, depth, k == 0, sums + p * 16, ld)
            if (t->rows == 1)
                BLOCK(1);
            else if (t->rows == 2)
                BLOCK(2);
            else if (t->rows == 3)
                BLOCK(3);
            else
                BLOCK(4);
#undef BLOCK
        }
    }
}

GO_GEMM_QA8(GO_NAME(gemm_f32_qa8r_qs8c_4x64x4), TILE_M, TILE_N, integer_tile, 128)
