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
    GO_QS4_ROWS = 6,      /* of a tile, at most */
    GO_QS4_STRIP = 4096,  /* values along k that are multiplied at a time */
    GO_QS4_COLUMNS = 128, /* likewise, as one tile */
    GO_QS4_STARTS = 4096  /* blocks of all rows, of few rows, likewise */
};

/* Whole blocks along k of some rows and panels. acc[r * ld + c] takes the sums that it holds
 * on, unless the strip is the first. */
typedef struct {
    go_qa8_tile t;        /* depth of the strip; rhs points to its nibbles */
    size_t group, block;  /* values of a block, and its bytes: nibbles, then scales */
    const int32_t *start; /* [rows][start_stride]: -8 * sum of qa over each block */
    size_t start_stride;
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

GO_INLINE void go_qs4_block_starts(const go_qs4_strip *s, int32_t *start) {
    for (size_t r = 0; r < s->t.rows; r++)
        for (size_t b = 0; b < s->t.depth / s->group; b++)
            start[r * s->start_stride + b] =
                go_qs4_block_start(s->t.lhs + r * s->t.lhs_stride + b * s->group, s->group);
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

/* Some columns, a tile at a time. Few rows have all of k in one strip, unless it is very long:
 * the sums of their blocks are computed once, and the panels are read to their ends, one stream
 * of memory that the CPU's prefetch does not lose. */
GO_INLINE void go_qs4b_columns(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                               size_t cols, go_qs4_strip_fn *strip) {
    const go_qs4_layout w = go_qs4b_layout(args);
    const size_t most = rows <= GO_GEMV_ROWS ? GO_QS4_STARTS / rows * 32 : GO_QS4_STRIP;
    const size_t step = most / w.group * w.group, stride = step / w.group;
    int32_t start[GO_QS4_STARTS];
    float acc[GO_QS4_ROWS * GO_QS4_COLUMNS];
    for (size_t c = col, end = col + cols, n; c < end; c += n) {
        n = go_min_size(end - c, GO_QS4_COLUMNS);
        size_t k = 0;
        do {
            const go_qs4_strip s = {.t.lhs = (const int8_t *)args->lhs + row * (w.depth + 16) + k,
                                    .t.lhs_stride = w.depth + 16,
                                    .t.rhs = go_qs4_panel(args, &w, c) + k / w.group * w.block,
                                    .t.rhs_stride = w.bytes,
                                    .t.rows = rows,
                                    .t.panels = go_ceil_div(n, GO_QS8_NR),
                                    .t.depth = go_min_size(step, w.depth - k),
                                    .group = w.group,
                                    .block = w.block,
                                    .start = start,
                                    .start_stride = stride,
                                    .first = k == 0,
                                    .acc = acc,
                                    .ld = GO_QS4_COLUMNS};
            if (c == col || step < w.depth) go_qs4_block_starts(&s, start);
            strip(&s);
            k += step;
        } while (k < w.depth);
        go_qs4b_finish(args, &w, row, rows, c, n, acc, GO_QS4_COLUMNS);
    }
}

/* At most GO_GEMV_ROWS rows; a task is a run of panels. */
GO_INLINE void go_qs4b_gemv(go_team *team, const go_gemm_args *args, go_qs4_strip_fn *strip) {
    if (args->m == 0 || args->n == 0) return;
    const size_t column = go_qs4b_layout(args).bytes / GO_QS8_NR;
    const size_t step = go_gemv_columns(team, args, GO_QS8_NR, column);
    const size_t tasks = go_ceil_div(args->n, step);
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        const size_t col = task * step;
        go_qs4b_columns(args, 0, args->m, col, go_min_size(step, args->n - col), strip);
    }
    go_quantize_shared(team, args);
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
        go_qs4b_columns(args, row, rows, col, cols, strip);                              \
    }                                                                                    \
    void symbol(go_team *team, const go_gemm_args *args);                                \
    void symbol(go_team *team, const go_gemm_args *args) {                               \
        if (args->m <= GO_GEMV_ROWS)                                                     \
            go_qs4b_gemv(team, args, strip);                                             \
        else                                                                             \
            go_gemm_drive(team, args, tile_m, GO_QS4_COLUMNS, args->k + 16, qs4b_tile);  \
    }

#endif
