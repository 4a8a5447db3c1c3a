/* int4 GEMM in portable C: the fallback, and the version to read first. */
#include "gemm_qs4.h"

enum { KR = GO_QA8_KR, MR = GO_QA8_MR, NR = GO_QS8_NR, TILE_N = 16 };
#if defined(__aarch64__)
enum { HIGH_FLIP = 8 }; /* the high half is in two's complement: this gives q + 8 */
#define QS4C GO_NAME(gemm_f32_qa8r_qs4c_8x8x16)
#define QS4B GO_NAME(gemm_f32_qa8r_qs4b_8x8x16)
#else
enum { HIGH_FLIP = 0 };
#define QS4C GO_NAME(gemm_f32_qa8r_qs4c_1x16x8)
#define QS4B GO_NAME(gemm_f32_qa8r_qs4b_1x16x8)
#endif

GO_INLINE int32_t low_int4(unsigned pair) { return (int32_t)(pair & 15) - 8; }
GO_INLINE int32_t high_int4(unsigned pair) { return (int32_t)((pair >> 4) ^ HIGH_FLIP) - 8; }

/* sums[c] = sum over `depth` values along k of lhs * column c. */
static void integer_sums(const int8_t *lhs, const uint8_t *rhs, size_t depth, int32_t sums[NR]) {
    for (size_t c = 0; c < NR; c++) sums[c] = 0;
    for (size_t k = 0; k < depth; k += 2 * KR, lhs += 2 * MR * KR, rhs += NR * KR)
        for (size_t c = 0; c < NR; c++)
            for (size_t i = 0; i < KR; i++) {
                const unsigned pair = rhs[c * KR + i];
                sums[c] += lhs[i] * low_int4(pair) + lhs[MR * KR + i] * high_int4(pair);
            }
}

/* One row of a panel with a scale per column, before the bias. */
static void row_of_columns(const int8_t *lhs, go_qa8_row row, const uint8_t *panel,
                           const go_qs4_layout *w, const float *bias, float *y) {
    const int32_t *column_sums = (const int32_t *)(panel + w->body);
    const float *scales = (const float *)(column_sums + NR);
    int32_t sums[NR];
    integer_sums(lhs, panel, w->depth, sums);
    for (size_t c = 0; c < NR; c++) {
        /* Unsigned: partial results may wrap, the final one fits. */
        const uint32_t isum = (uint32_t)sums[c] + (uint32_t)row.neg_zp * (uint32_t)column_sums[c];
        y[c] = __builtin_fmaf((float)(int32_t)isum, row.scale * scales[c], bias[c]);
    }
}

/* One row of a panel with a scale per block and column. */
static void row_of_blocks(const int8_t *lhs, go_qa8_row row, const uint8_t *panel,
                          const go_qs4_layout *w, const float *bias, float *y) {
    const float *shifts = go_qs4b_shifts(panel, w);
    float acc[NR] = {0};
    for (size_t b = 0; b < w->depth / w->group; b++) {
        const uint16_t *scales = (const uint16_t *)(panel + w->scales + b * w->scale_step);
        int32_t sums[NR];
        integer_sums(lhs + b * w->group * MR, panel + b * w->block, w->group, sums);
        for (size_t c = 0; c < NR; c++)
            acc[c] = __builtin_fmaf((float)sums[c],
                                    go_f32_from_bf16(scales[go_qs4b_scale_index(c)]), acc[c]);
    }
    for (size_t c = 0; c < NR; c++) {
        acc[c] = __builtin_fmaf((float)row.neg_zp, shifts[c], acc[c]);
        y[c] = __builtin_fmaf(acc[c], row.scale, bias[c]);
    }
}

GO_INLINE void tile(const go_gemm_args *args, const go_qs4_layout *w, const int blocks, size_t row,
                    size_t rows, size_t col, size_t cols) {
    float y[MR * TILE_N], bias[TILE_N] = {0};
    if (args->epilogue.bias)
        memcpy(bias, args->epilogue.bias + col, go_min_size(cols, TILE_N) * sizeof(float));
    for (size_t r = 0; r < rows; r++) {
        const go_qa8_row tail = go_qa8_row_tail(args->lhs, row + r, w->depth);
        const int8_t *lhs = (const int8_t *)args->lhs + row * (w->depth + 16) + r * KR;
        for (size_t c = 0; c < cols; c += NR)
            (blocks ? row_of_blocks : row_of_columns)(lhs, tail, go_qs4_panel(args, w, col + c), w,
                                                      bias + c, y + r * TILE_N + c);
    }
    go_epilogue_rows(args, row, rows, col, cols, y, TILE_N);
}

static void qs4c_tile(const go_gemm_args *args, size_t row, size_t rows, size_t col, size_t cols) {
    const go_qs4_layout w = go_qs4c_layout(args);
    tile(args, &w, 0, row, rows, col, cols);
}

static void qs4b_tile(const go_gemm_args *args, size_t row, size_t rows, size_t col, size_t cols) {
    const go_qs4_layout w = go_qs4b_layout(args);
    tile(args, &w, 1, row, rows, col, cols);
}

void QS4C(go_team *team, const go_gemm_args *args);
void QS4C(go_team *team, const go_gemm_args *args) {
    go_gemm_drive(team, args, MR, TILE_N, go_qa8_depth(args->k) + 16, qs4c_tile);
}

void QS4B(go_team *team, const go_gemm_args *args);
void QS4B(go_team *team, const go_gemm_args *args) {
    go_gemm_drive(team, args, MR, TILE_N, args->k + 16, qs4b_tile);
}
