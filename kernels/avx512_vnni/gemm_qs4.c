/* int4 GEMM with VPDPBUSD: 6 rows x 32 columns. Twelve accumulators of integers and, with a
 * scale per block, twelve of floats fit the registers. */
#include "gemm_qs4_x86.h"

enum { TILE_M = 6, PANELS = 2, FETCH = 1536 /* bytes ahead of what few rows read */ };

GO_INLINE __m512i four(const int8_t *p) {
    int32_t x;
    memcpy(&x, p, 4);
    return _mm512_set1_epi32(x);
}

/* Adds the sums over `depth` values along k of qa * u: six rows, two panels. */
GO_INLINE void add_products(const int8_t *a, size_t stride, const uint8_t *b, size_t b_stride,
                            size_t depth, __m512i acc[TILE_M][PANELS]) {
    const __m512i low = _mm512_set1_epi8(15);
    const int8_t *at[2] = {a, a + 3 * stride};
    GO_UNROLLED (i, 2) GO_OPAQUE(at[i]);
    for (size_t k = 0; k < depth; k += 8)
        GO_UNROLLED (half, 2) {
            __m512i u[PANELS];
            GO_UNROLLED (p, PANELS) {
                u[p] = _mm512_loadu_si512(b + (size_t)p * b_stride + k * 8);
                if (half) u[p] = _mm512_srli_epi16(u[p], 4);
                u[p] = _mm512_and_si512(u[p], low);
            }
            GO_UNROLLED (r, TILE_M) {
                __m512i x = four(at[r / 3] + (size_t)(r % 3) * stride + k + 4 * (size_t)half);
                GO_UNROLLED (p, PANELS) acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], u[p], x);
            }
        }
}

/* The same for few rows and one panel, whose weights are one stream: sums, from `start` on.
 * High nibbles stay where they are and make 16 times their sum. Four chains for a row. What
 * comes is fetched into the second cache level: the CPU's prefetch alone falls behind where
 * memory answers late. Into the first it would push out the left rows. */
GO_INLINE void stream_products(const int rows, const int8_t *a, size_t stride, const uint8_t *b,
                               size_t depth, __m512i sum[GO_GEMV_ROWS]) {
    const __m512i low = _mm512_set1_epi8(15);
    __m512i acc[GO_GEMV_ROWS][2][2];
    GO_UNROLLED (r, rows) {
        acc[r][0][0] = sum[r];
        acc[r][0][1] = acc[r][1][0] = acc[r][1][1] = _mm512_setzero_si512();
    }
    for (size_t k = 0; k < depth; k += 16)
        GO_UNROLLED (i, 2) {
            const size_t at = k + 8 * (size_t)i;
            __m512i w = _mm512_loadu_si512(b + at * 8);
            _mm_prefetch((const char *)b + at * 8 + FETCH, _MM_HINT_T1);
            __m512i u[2] = {_mm512_and_si512(w, low), _mm512_andnot_si512(low, w)};
            GO_UNROLLED (r, rows)
                GO_UNROLLED (half, 2) {
                    __m512i x = four(a + (size_t)r * stride + at + 4 * (size_t)half);
                    acc[r][half][i] = _mm512_dpbusd_epi32(acc[r][half][i], u[half], x);
                }
        }
    GO_UNROLLED (r, rows) {
        __m512i high = _mm512_add_epi32(acc[r][1][0], acc[r][1][1]);
        sum[r] = _mm512_add_epi32(acc[r][0][0], acc[r][0][1]);
        sum[r] = _mm512_add_epi32(sum[r], _mm512_srai_epi32(high, 4));
    }
}

/* Calls STEP(1) to STEP(4) for the rows of a tile, at most four at a time. */
#define FEW_ROWS(t, STEP)                                   \
    for (size_t r = 0, left; (left = (t)->rows - r) > 0;) { \
        if (left >= 4)                                      \
            STEP(4), r += 4;                                \
        else if (left == 3)                                 \
            STEP(3), r += 3;                                \
        else if (left == 2)                                 \
            STEP(2), r += 2;                                \
        else                                                \
            STEP(1), r += 1;                                \
    }

/* ---- a scale per column ---------------------------------------------------------------- */

GO_INLINE void sums_block(const go_qa8_tile *t, size_t panel, int32_t *sums, size_t ld) {
    __m512i acc[TILE_M][PANELS];
    GO_UNROLLED (r, TILE_M)
        GO_UNROLLED (p, PANELS) acc[r][p] = _mm512_setzero_si512();
    add_products(t->lhs, t->lhs_stride, t->rhs + panel * t->rhs_stride, t->rhs_stride, t->depth,
                 acc);
    GO_UNROLLED (r, TILE_M)
        GO_UNROLLED (p, PANELS)
            _mm512_storeu_si512(sums + (size_t)r * ld + (size_t)p * 16, acc[r][p]);
}

GO_INLINE void sums_stream(const int rows, const go_qa8_tile *t, size_t row, size_t panel,
                           int32_t *sums, size_t ld) {
    __m512i sum[GO_GEMV_ROWS];
    GO_UNROLLED (r, rows) sum[r] = _mm512_setzero_si512();
    stream_products(rows, t->lhs + row * t->lhs_stride, t->lhs_stride,
                    t->rhs + panel * t->rhs_stride, t->depth, sum);
    GO_UNROLLED (r, rows) _mm512_storeu_si512(sums + (row + (size_t)r) * ld, sum[r]);
}

static void integer_tile(const go_qa8_tile *t, int32_t *sums, size_t ld) {
    if (t->rows == TILE_M && t->panels == PANELS) {
        sums_block(t, 0, sums, ld);
        return;
    }
    for (size_t p = 0; p < t->panels; p++) {
#define STEP(rows) sums_stream(rows, t, r, p, sums + p * 16, ld)
        FEW_ROWS(t, STEP)
#undef STEP
    }
}

GO_GEMM_QS4C(GO_NAME(gemm_f32_qa8r_qs4c_6x32x8), TILE_M, PANELS * 16, integer_tile)

/* ---- a scale per block ----------------------------------------------------------------- */

GO_INLINE __m512 block_scale(const go_qs4_strip *s, size_t panel, size_t block) {
    const uint8_t *at = s->t.rhs + panel * s->t.rhs_stride + block * s->block + s->group * 8;
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)at));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

GO_INLINE __m512i block_start(const go_qs4_strip *s, size_t row, size_t block) {
    return _mm512_set1_epi32(s->start[row * s->start_stride + block]);
}

GO_INLINE float *acc_at(const go_qs4_strip *s, size_t row, size_t panel) {
    return s->acc + row * s->ld + panel * 16;
}

GO_INLINE void strip_block(const go_qs4_strip *s, size_t panel) {
    const go_qa8_tile *t = &s->t;
    const uint8_t *rhs = t->rhs + panel * t->rhs_stride;
    __m512 acc[TILE_M][PANELS];
    GO_UNROLLED (r, TILE_M)
        GO_UNROLLED (p, PANELS)
            acc[r][p] = s->first ? _mm512_setzero_ps()
                                 : _mm512_loadu_ps(acc_at(s, (size_t)r, panel + (size_t)p));
    for (size_t b = 0; b < t->depth / s->group; b++) {
        __m512i sum[TILE_M][PANELS];
        GO_UNROLLED (r, TILE_M)
            GO_UNROLLED (p, PANELS) sum[r][p] = block_start(s, (size_t)r, b);
        add_products(t->lhs + b * s->group, t->lhs_stride, rhs + b * s->block, t->rhs_stride,
                     s->group, sum);
        GO_UNROLLED (p, PANELS) {
            const __m512 scale = block_scale(s, panel + (size_t)p, b);
            GO_UNROLLED (r, TILE_M)
                acc[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][p]), scale, acc[r][p]);
        }
    }
    GO_UNROLLED (r, TILE_M)
        GO_UNROLLED (p, PANELS)
            _mm512_storeu_ps(acc_at(s, (size_t)r, panel + (size_t)p), acc[r][p]);
}

GO_INLINE void strip_stream(const int rows, const go_qs4_strip *s, size_t row, size_t panel) {
    const go_qa8_tile *t = &s->t;
    const uint8_t *rhs = t->rhs + panel * t->rhs_stride;
    const int8_t *lhs = t->lhs + row * t->lhs_stride;
    __m512 acc[GO_GEMV_ROWS];
    GO_UNROLLED (r, rows)
        acc[r] =
            s->first ? _mm512_setzero_ps() : _mm512_loadu_ps(acc_at(s, row + (size_t)r, panel));
    for (size_t b = 0; b < t->depth / s->group; b++) {
        __m512i sum[GO_GEMV_ROWS];
        GO_UNROLLED (r, rows) sum[r] = block_start(s, row + (size_t)r, b);
        stream_products(rows, lhs + b * s->group, t->lhs_stride, rhs + b * s->block, s->group, sum);
        const __m512 scale = block_scale(s, panel, b);
        GO_UNROLLED (r, rows) acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r]), scale, acc[r]);
    }
    GO_UNROLLED (r, rows) _mm512_storeu_ps(acc_at(s, row + (size_t)r, panel), acc[r]);
}

static void strip(const go_qs4_strip *s) {
    size_t p = 0;
    if (s->t.rows == TILE_M)
        for (; p + PANELS <= s->t.panels; p += PANELS) strip_block(s, p);
    for (; p < s->t.panels; p++) {
#define STEP(rows) strip_stream(rows, s, r, p)
        FEW_ROWS(&s->t, STEP)
#undef STEP
    }
}

GO_GEMM_QS4B(GO_NAME(gemm_f32_qa8r_qs4b_6x32x8), TILE_M, strip)
