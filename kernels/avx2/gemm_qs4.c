/* int4 GEMM with VPMADDUBSW: 4 rows x 16 columns.
 *
 * u = q + 8 is at most 15, so a pair of products is at most 15 * 128 * 2 = 3840: eight of them,
 * the 32 values along k of a chunk, fit a sum of 16 bits. No input saturates. */
#include "gemm_qs4_x86.h"

enum { TILE_M = 4, CHUNK = 32, HALVES = 2 /* of a panel: 8 columns each */ };

GO_INLINE __m256i four(const int8_t *p) {
    int32_t x;
    memcpy(&x, p, 4);
    return _mm256_set1_epi32(x);
}

/* Adds the sums over one chunk of qa * u. */
GO_INLINE void add_chunk(const int rows, const int8_t *a, size_t stride, const uint8_t *b,
                         __m256i sum[TILE_M][HALVES]) {
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256i acc[TILE_M][HALVES];
    GO_UNROLLED (r, rows)
        GO_UNROLLED (p, HALVES) acc[r][p] = _mm256_setzero_si256();
    GO_UNROLLED (step, CHUNK / 4) {
        __m256i u[HALVES];
        GO_UNROLLED (p, HALVES) {
            u[p] = _mm256_loadu_si256((const __m256i *)(b + step / 2 * 64 + p * 32));
            if (step % 2) u[p] = _mm256_srli_epi16(u[p], 4);
            u[p] = _mm256_and_si256(u[p], low);
        }
        GO_UNROLLED (r, rows) {
            __m256i x = four(a + (size_t)r * stride + step * 4);
            GO_UNROLLED (p, HALVES)
                acc[r][p] = _mm256_add_epi16(acc[r][p], _mm256_maddubs_epi16(u[p], x));
        }
    }
    GO_UNROLLED (r, rows)
        GO_UNROLLED (p, HALVES)
            sum[r][p] = _mm256_add_epi32(sum[r][p], _mm256_madd_epi16(acc[r][p], ones));
}

/* ---- a scale per column ---------------------------------------------------------------- */

GO_INLINE void sums_block(const int rows, const go_qa8_tile *t, size_t panel, int32_t *sums,
                          size_t ld) {
    const uint8_t *b = t->rhs + panel * t->rhs_stride;
    __m256i sum[TILE_M][HALVES];
    GO_UNROLLED (r, rows)
        GO_UNROLLED (p, HALVES) sum[r][p] = _mm256_setzero_si256();
    for (size_t k = 0; k < t->depth; k += CHUNK)
        add_chunk(rows, t->lhs + k, t->lhs_stride, b + k * 8, sum);
    GO_UNROLLED (r, rows)
        GO_UNROLLED (p, HALVES)
            _mm256_storeu_si256((__m256i *)(sums + (size_t)r * ld + p * 8), sum[r][p]);
}

#define FOR_ROWS(count, STEP) \
    if ((count) == 1)         \
        STEP(1);              \
    else if ((count) == 2)    \
        STEP(2);              \
    else if ((count) == 3)    \
        STEP(3);              \
    else                      \
        STEP(4)

static void integer_tile(const go_qa8_tile *t, int32_t *sums, size_t ld) {
    for (size_t p = 0; p < t->panels; p++) {
#define STEP(rows) sums_block(rows, t, p, sums + p * 16, ld)
        FOR_ROWS(t->rows, STEP);
#undef STEP
    }
}

GO_GEMM_QS4C(GO_NAME(gemm_f32_qa8r_qs4c_4x16x8), TILE_M, 16, integer_tile)

/* ---- a scale per block ----------------------------------------------------------------- */

GO_INLINE __m256 block_scale(const uint8_t *at) {
    __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}

GO_INLINE void strip_block(const int rows, const go_qs4_strip *s, size_t panel) {
    const go_qa8_tile *t = &s->t;
    const uint8_t *rhs = t->rhs + panel * t->rhs_stride;
    float *out = s->acc + panel * 16;
    __m256 acc[TILE_M][HALVES];
    GO_UNROLLED (r, rows)
        GO_UNROLLED (p, HALVES)
            acc[r][p] =
                s->first ? _mm256_setzero_ps() : _mm256_loadu_ps(out + (size_t)r * s->ld + p * 8);
    for (size_t b = 0; b < t->depth / s->group; b++, rhs += s->block) {
        __m256i sum[TILE_M][HALVES];
        GO_UNROLLED (r, rows)
            GO_UNROLLED (p, HALVES)
                sum[r][p] = _mm256_set1_epi32(s->start[(size_t)r * s->start_stride + b]);
        for (size_t k = 0; k < s->group; k += CHUNK)
            add_chunk(rows, t->lhs + b * s->group + k, t->lhs_stride, rhs + k * 8, sum);
        GO_UNROLLED (p, HALVES) {
            const __m256 scale = block_scale(rhs + s->group * 8 + p * 16);
            GO_UNROLLED (r, rows)
                acc[r][p] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][p]), scale, acc[r][p]);
        }
    }
    GO_UNROLLED (r, rows)
        GO_UNROLLED (p, HALVES) _mm256_storeu_ps(out + (size_t)r * s->ld + p * 8, acc[r][p]);
}

static void strip(const go_qs4_strip *s) {
    for (size_t p = 0; p < s->t.panels; p++) {
#define STEP(rows) strip_block(rows, s, p)
        FOR_ROWS(s->t.rows, STEP);
#undef STEP
    }
}

GO_GEMM_QS4B(GO_NAME(gemm_f32_qa8r_qs4b_4x16x8), TILE_M, strip)
