/* int4 GEMM on x86_64: what the vector levels share.
 *
 * Nibbles hold u = q + 8, the unsigned operand of VPDPBUSD and VPMADDUBSW. The sum of qa * q
 * is that of qa * u less 8 * sum of qa: with a scale per column the sum of the row is in its
 * tail; with a scale per block the sums of the blocks are where the accumulators start.
 */
#ifndef GO_GEMM_QS4_X86_H
#define GO_GEMM_QS4_X86_H

#include <immintrin.h>

#include "gemm_qs4.h"

enum {
    GO_QS4_ROWS = 6,     /* of a tile, at most */
    GO_QS4_STRIP = 4096, /* values along k whose block sums are computed at a time */
    GO_QS4_COLUMNS = 128 /* that share these sums */
};

/* Whole blocks along k of some rows and panels. acc[r * ld + c] takes the sums that it holds
 * on, unless the strip is the first. */
typedef struct {
    go_qa8_tile t;        /* depth of the strip; rhs points to its nibbles */
    size_t group, block;  /* values of a block, and its bytes: nibbles, then scales */
    const int32_t *start; /* [rows][GO_QS4_STRIP / 32]: -8 * sum of qa over each block */
    int first;
    float *acc;
    size_t ld;
} go_qs4_strip;

typedef void go_qs4_strip_fn(const go_qs4_strip *s);

GO_INLINE int32_t go_qs4_block_start(const int8_t *lhs, size_t group) {
    const __m256i eight = _mm256_set1_epi8(8), ones = _mm256_set1_epi16(-1);
    __m256i sum = _mm256_setzero_si256();
    for (size_t k = 0; k < group; k += 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(lhs + k));
        x = _mm256_madd_epi16(_mm256_maddubs_epi16(eight, x), ones);
        sum = _mm256_add_epi32(sum, x);
    }
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 1)));
}

/* acc of a tile through all strips. */
GO_INLINE void go_qs4b_sums(const go_gemm_args *args, const go_qs4_layout *w, size_t row,
                            size_t rows, size_t col, size_t cols, go_qs4_strip_fn *strip,
                            float *acc, size_t ld) {
    int32_t start[GO_QS4_ROWS * GO_QS4_STRIP / 32];
    const size_t step = GO_QS4_STRIP / w->group * w->group;
    size_t k = 0;
    do {
        go_qs4_strip s = {.t.lhs = (const int8_t *)args->lhs + row * (w->depth + 16) + k,
                          .t.lhs_stride = w->depth + 16,
                          .t.rhs = go_qs4_panel(args, w, col) + k / w->group * w->block,
                          .t.rhs_stride = w->bytes,
                          .t.rows = rows,
                          .t.panels = go_ceil_div(cols, GO_QS8_NR),
                          .t.depth = go_min_size(step, w->depth - k),
                          .group = w->group,
                          .block = w->block,
                          .start = start,
                          .first = k == 0,
                          .acc = acc,
                          .ld = ld};
        for (size_t r = 0; r < rows; r++)
            for (size_t b = 0; b < s.t.depth / w->group; b++)
                start[r * (GO_QS4_STRIP / 32) + b] =
                    go_qs4_block_start(s.t.lhs + r * s.t.lhs_stride + b * w->group, w->group);
        strip(&s);
        k += step;
    } while (k < w->depth);
}

/* From acc to stored results. */
GO_INLINE void go_qs4b_finish(const go_gemm_args *args, const go_qs4_layout *w, size_t row,
                              size_t rows, size_t col, size_t cols, float *acc, size_t ld) {
    for (size_t c = 0; c < cols; c += GO_LANES) {
        const size_t n = go_min_size(cols - c, GO_LANES);
        const go_f32x16 shift = go_load(go_qs4b_shifts(go_qs4_panel(args, w, col + c), w));
        const float *bias = args->epilogue.bias;
        const go_f32x16 b = bias ? go_load_n(bias + col + c, n) : go_zero();
        for (size_t r = 0; r < rows; r++) {
            const go_qa8_row tail = go_qa8_row_tail(args->lhs, row + r, w->depth);
            go_f32x16 y = go_fma(go_splat((float)tail.neg_zp), shift, go_load(acc + r * ld + c));
            go_store(acc + r * ld + c, go_fma(y, go_splat(tail.scale), b));
        }
        go_epilogue_rows(args, row, rows, col + c, n, acc + c, ld);
    }
}

/* Defines the kernel `symbol` with a scale per column from its integer tile. */
#define GO_GEMM_QS4C(symbol, tile_m, tile_n, integer_tile)                               \
    static void qs4c_tile(const go_gemm_args *args, size_t row, size_t rows, size_t col, \
                          size_t cols) {                                                 \
        const go_qs4_layout w = go_qs4c_layout(args);                                    \
        const go_qa8_tile t = {.lhs = (const int8_t *)args->lhs + row * (w.depth + 16),  \
                               .lhs_stride = w.depth + 16,                               \
                               .rhs = go_qs4_panel(args, &w, col),                       \
                               .rhs_stride = w.bytes,                                    \
                               .rhs_body = w.body,                                       \
                               .rows = rows,                                             \
                               .panels = go_ceil_div(cols, GO_QS8_NR),                   \
                               .depth = w.depth};                                        \
        int32_t sums[GO_QS4_ROWS * (tile_n)];                                            \
        integer_tile(&t, sums, tile_n);                                                  \
        go_qa8_finish(args, &t, row, col, cols, 8, sums, tile_n);                        \
    }                                                                                    \
    void symbol(go_team *team, const go_gemm_args *args);                                \
    void symbol(go_team *team, const go_gemm_args *args) {                               \
        const go_qs4_layout w = go_qs4c_layout(args);                                    \
        if (args->m <= GO_GEMV_ROWS)                                                     \
            go_gemv_drive(team, args, GO_QS8_NR, w.bytes / GO_QS8_NR, qs4c_tile);        \
        else                                                                             \
            go_gemm_drive(team, args, tile_m, tile_n, w.depth + 16, qs4c_tile);          \
    }

/* Defines the kernel `symbol` with a scale per block. */
#define GO_GEMM_QS4B(symbol, tile_m, strip)                                              \
    static void qs4b_tile(const go_gemm_args *args, size_t row, size_t rows, size_t col, \
                          size_t cols) {                                                 \
        const go_qs4_layout w = go_qs4b_layout(args);                                    \
        float acc[GO_QS4_ROWS * GO_QS4_COLUMNS];                                         \
        go_qs4b_sums(args, &w, row, rows, col, cols, strip, acc, GO_QS4_COLUMNS);        \
        go_qs4b_finish(args, &w, row, rows, col, cols, acc, GO_QS4_COLUMNS);             \
    }                                                                                    \
    void symbol(go_team *team, const go_gemm_args *args);                                \
    void symbol(go_team *team, const go_gemm_args *args) {                               \
        const go_qs4_layout w = go_qs4b_layout(args);                                    \
        if (args->m <= GO_GEMV_ROWS)                                                     \
            go_gemv_drive(team, args, GO_QS4_COLUMNS, w.bytes / GO_QS8_NR, qs4b_tile);   \
        else                                                                             \
            go_gemm_drive(team, args, tile_m, GO_QS4_COLUMNS, w.depth + 16, qs4b_tile);  \
    }

#endif
