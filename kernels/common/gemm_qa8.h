/* int8 GEMM, qa8r x qs8c: what all ISA levels share.
 *
 *   isum = sum_k qa * qw + (-zp) * column_sum               exact int32
 *   y    = fma((float)isum, row_scale * column_scale, bias or 0)
 *
 * then the epilogue. A level supplies the integer tile. On x86 the right operand
 * is stored as q + 128; a tile that multiplies the stored values (rhs_bias 128)
 * holds 128 * row_sum too much, which is taken off here. Layouts: kernels/packing.py.
 */
#ifndef GO_GEMM_QA8_H
#define GO_GEMM_QA8_H

#include "gemm_driver.h"
#include "go_epilogue.h"
#include "quantize_row.h"

/* Operands of one tile: `rows` rows and `panels` panels of columns. */
typedef struct {
    const int8_t *lhs; /* first row; with MR > 1 the panel that starts with it */
    size_t lhs_stride; /* bytes from row to row (MR = 1) */
    const uint8_t *rhs;
    size_t rhs_stride; /* bytes from panel to panel */
    size_t rhs_body;   /* bytes of values of a panel; its tail follows */
    size_t rows, panels, depth;
} go_qa8_tile;

/* sums[r * ld + c] = sum over the depth of stored lhs * stored rhs. */
typedef void go_qa8_integer_tile(const go_qa8_tile *t, int32_t *sums, size_t ld);

typedef struct {
    int32_t neg_zp, sum;
    float scale;
} go_qa8_row;

GO_INLINE go_qa8_row go_qa8_row_tail(const int8_t *lhs, size_t row, size_t depth) {
    const int8_t *p =
        lhs + row / GO_QA8_MR * GO_QA8_MR * (depth + 16) + GO_QA8_MR * depth + row % GO_QA8_MR * 8;
    go_qa8_row tail = {0};
    memcpy(&tail.neg_zp, p, 4);
    if (GO_QA8_MR == 1) memcpy(&tail.sum, p + 4, 4);
    memcpy(&tail.scale, p + 8 * GO_QA8_MR, 4);
    return tail;
}

/* Sums and scales of 16 columns from the tails of one or two panels, from `panel` on. */
GO_INLINE void go_qs8_columns(const go_qa8_tile *t, size_t panel, go_u32x16 *sums,
                              go_f32x16 *scales) {
    int32_t s[GO_LANES] = {0};
    float f[GO_LANES] = {0};
    for (size_t i = 0; panel + i < t->panels && i < GO_LANES / GO_QS8_NR; i++) {
        const uint8_t *tail = t->rhs + (panel + i) * t->rhs_stride + t->rhs_body;
        memcpy(s + i * GO_QS8_NR, tail, GO_QS8_NR * 4);
        memcpy(f + i * GO_QS8_NR, tail + GO_QS8_NR * 4, GO_QS8_NR * 4);
    }
    *sums = (go_u32x16)go_load_i32(s);
    *scales = go_load(f);
}

/* Sixteen columns of a tile on their way to the destination. */
typedef struct {
    go_u32x16 sums; /* of the column */
    go_f32x16 scales, bias;
    size_t col, count; /* first of them, and how many exist */
} go_qa8_columns;

/* The f32 results of 16 columns of a row, before the activation. */
GO_INLINE go_f32x16 go_qa8_values(const go_qa8_columns *c, go_qa8_row q, uint32_t rhs_bias,
                                  const int32_t *sums) {
    /* Unsigned: partial results may wrap, the final one fits. */
    go_u32x16 isum = (go_u32x16)go_load_i32(sums);
    isum += c->sums * (uint32_t)q.neg_zp - rhs_bias * (uint32_t)q.sum;
    return go_fma(go_to_f32((go_i32x16)isum), c->scales * q.scale, c->bias);
}

/* From integer sums to stored results. What the epilogue asks for is constant in
 * the call, so that the loop over rows has no branch; see go_epilogue_lanes. */
GO_INLINE void go_qa8_finish_rows(const go_gemm_args *args, const go_qa8_tile *t, size_t row,
                                  const go_qa8_columns *c, uint32_t rhs_bias, const int32_t *sums,
                                  size_t ld, const int full, const int act, const int residuals,
                                  const go_dtype dtype) {
    const go_epilogue e = go_epilogue_of(args, act, residuals);
    const size_t n = full ? GO_LANES : c->count;
    for (size_t r = 0; r < t->rows; r++) {
        go_qa8_row q = go_qa8_row_tail(args->lhs, row + r, t->depth);
        const go_f32x16 v = go_qa8_values(c, q, rhs_bias, sums + r * ld);
        go_epilogue_store(&e, args->dst, args->dst_stride, dtype, row + r, c->col, v, n);
    }
}

/* Columns `at` .. `at` + 15 of a tile that begins with column `col` and has `cols`. */
GO_INLINE go_qa8_columns go_qa8_columns_at(const go_gemm_args *args, const go_qa8_tile *t,
                                           size_t col, size_t cols, size_t at) {
    const size_t n = go_min_size(cols - at, GO_LANES);
    const float *bias = args->epilogue.bias;
    go_qa8_columns c = {.col = col + at, .count = n};
    go_qs8_columns(t, at / GO_QS8_NR, &c.sums, &c.scales);
    c.bias = bias ? go_load_n(bias + col + at, n) : go_zero();
    return c;
}

/* The same for any number of columns, with an activation that is more than a relu. */
static __attribute__((noinline, unused)) void go_qa8_finish_activated(
    const go_gemm_args *args, const go_qa8_tile *t, size_t row, const go_qa8_columns *c,
    uint32_t rhs_bias, const int32_t *sums, size_t ld) {
    float values[GO_ACTIVATED_ROWS * GO_LANES];
    for (size_t r = 0; r < t->rows; r += GO_ACTIVATED_ROWS) {
        const size_t some = go_min_size(GO_ACTIVATED_ROWS, t->rows - r);
        for (size_t i = 0; i < some; i++) {
            const go_qa8_row q = go_qa8_row_tail(args->lhs, row + r + i, t->depth);
            go_store(values + i * GO_LANES, go_qa8_values(c, q, rhs_bias, sums + (r + i) * ld));
        }
        go_epilogue_rows(args, row + r, some, c->col, c->count, values, GO_LANES);
    }
}

/* The loops for what a transformer asks for, and one for everything else. */
GO_INLINE void go_qa8_finish(const go_gemm_args *args, const go_qa8_tile *t, size_t row, size_t col,
                             size_t cols, uint32_t rhs_bias, const int32_t *sums, size_t ld) {
    const go_epilogue *e = &args->epilogue;
    for (size_t at = 0; at < cols; at += GO_LANES) {
        const go_qa8_columns c = go_qa8_columns_at(args, t, col, cols, at);
        const size_t n = c.count;
#define FINISH(full, act, residuals, dtype) \
    go_qa8_finish_rows(args, t, row, &c, rhs_bias, sums + at, ld, full, act, residuals, dtype)
        if (e->activation > GO_ACT_RELU)
            go_qa8_finish_activated(args, t, row, &c, rhs_bias, sums + at, ld);
        else if (n < GO_LANES || go_epilogue_is_rare(e))
            FINISH(0, (int)e->activation, 2, args->dst_dtype);
        else if (e->residual[1])
            FINISH(1, (int)e->activation, 2, args->dst_dtype);
        else if (e->residual[0])
            FINISH(1, (int)e->activation, 1, args->dst_dtype);
        else if (args->dst_dtype == GO_BF16)
            FINISH(1, (int)e->activation, 0, GO_BF16);
        else if (e->activation == GO_ACT_RELU)
            FINISH(1, GO_ACT_RELU, 0, GO_F32);
        else
            FINISH(1, GO_ACT_NONE, 0, GO_F32);
#undef FINISH
    }
}

/* The operands of the tile at (row, col). */
GO_INLINE go_qa8_tile go_qa8_tile_at(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                                     size_t cols) {
    size_t depth = go_qa8_depth(args->k);
    size_t rhs_stride = GO_QS8_NR * (depth + GO_QS8_TAIL);
    return (go_qa8_tile){
        .lhs = (const int8_t *)args->lhs + row / GO_QA8_MR * GO_QA8_MR * (depth + 16),
        .lhs_stride = depth + 16,
        .rhs = (const uint8_t *)args->rhs + col / GO_QS8_NR * rhs_stride,
        .rhs_stride = rhs_stride,
        .rhs_body = GO_QS8_NR * depth,
        .rows = rows,
        .panels = go_ceil_div(cols, GO_QS8_NR),
        .depth = depth,
    };
}

/* Defines the kernel `symbol` from a function that computes and stores a column block of
 * a task, tile_m rows at a time, or all of few rows. */
#define GO_GEMM_QA8_SWEEPS(symbol, tile_m, tile_n, sweep)                        \
    void symbol(go_team *team, const go_gemm_args *args);                        \
    void symbol(go_team *team, const go_gemm_args *args) {                       \
        const size_t depth = go_qa8_depth(args->k);                              \
        if (args->m <= GO_GEMV_ROWS)                                             \
            go_gemv_drive(team, args, tile_n, depth + GO_QS8_TAIL, sweep);       \
        else                                                                     \
            go_gemm_drive_sweeps(team, args, tile_m, tile_n, depth + 16, sweep); \
    }

/* Defines the kernel `symbol` from its integer tile, whose right values are
 * q + rhs_bias. With few rows it is asked for 16 columns at a time, in order of memory. */
#define GO_GEMM_QA8(symbol, tile_m, tile_n, integer_tile, rhs_bias)                                \
    static void finished_tile(const go_gemm_args *args, size_t row, size_t rows, size_t col,       \
                              size_t cols) {                                                       \
        go_qa8_tile t = go_qa8_tile_at(args, row, rows, col, cols);                                \
        enum { SUM_ROWS = (int)(tile_m) > (int)GO_GEMV_ROWS ? (int)(tile_m) : (int)GO_GEMV_ROWS }; \
        int32_t sums[SUM_ROWS * (tile_n)];                                                         \
        go_epilogue_prefetch(args, row, rows, col, cols);                                          \
        integer_tile(&t, sums, tile_n);                                                            \
        go_qa8_finish(args, &t, row, col, cols, rhs_bias, sums, tile_n);                           \
    }                                                                                              \
    void symbol(go_team *team, const go_gemm_args *args);                                          \
    void symbol(go_team *team, const go_gemm_args *args) {                                         \
        const size_t depth = go_qa8_depth(args->k);                                                \
        if (args->m <= GO_GEMV_ROWS)                                                               \
            go_gemv_drive(team, args, GO_LANES, depth + GO_QS8_TAIL, finished_tile);               \
        else                                                                                       \
            go_gemm_drive(team, args, tile_m, tile_n, depth + 16, finished_tile);                  \
    }

#endif
