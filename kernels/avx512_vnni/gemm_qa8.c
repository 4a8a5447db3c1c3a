/* int8 GEMM with VPDPBUSD: 12 rows x 32 columns, 24 accumulators of 16 columns. */
#include <immintrin.h>

#include "gemm_qa8.h"

enum { TILE_M = 12, TILE_N = 32, CHAINS = 4, RHS_BIAS = 128 };
enum { FETCH = 2048 }; /* bytes ahead of what few rows read */

/* A tile whose sums are known, and whose results are stored row by row while the next tile
 * is multiplied: the CPU does both at once. */
typedef struct {
    const go_gemm_args *args;
    int32_t *sums; /* [TILE_M][TILE_N] */
    size_t row, rows, done, depth;
    go_qa8_columns columns[TILE_N / GO_LANES];
} late_tile;

GO_INLINE void find_columns(late_tile *late, size_t row, size_t col) {
    const go_qa8_tile t = go_qa8_tile_at(late->args, row, TILE_M, col, TILE_N);
    late->depth = t.depth;
    GO_UNROLLED (p, TILE_N / GO_LANES)
        late->columns[p] = go_qa8_columns_at(late->args, &t, col, TILE_N, (size_t)p * GO_LANES);
}

/* Stores the next row of whole columns, with no activation but relu. */
GO_INLINE void store_row(late_tile *late) {
    const go_gemm_args *args = late->args;
    const size_t row = late->row + late->done;
    const go_qa8_row tail = go_qa8_row_tail(args->lhs, row, late->depth);
    const int32_t *sums = late->sums + late->done++ * TILE_N;
    go_epilogue e = args->epilogue;
    e.activation = e.activation == GO_ACT_RELU ? GO_ACT_RELU : GO_ACT_NONE;
    GO_UNROLLED (p, TILE_N / GO_LANES) {
        const go_qa8_columns *c = &late->columns[p];
        const go_f32x16 v = go_qa8_values(c, tail, RHS_BIAS, sums + p * GO_LANES);
        go_epilogue_store(&e, args->dst, args->dst_stride, args->dst_dtype, row, c->col, v,
                          GO_LANES);
    }
}

GO_INLINE void store_rows(late_tile *late) {
    while (late->done < late->rows) store_row(late);
}

/* Four values along k of each of 16 columns: the unsigned operand is the right one,
 * stored as q + 128, so the signed one can be the broadcast left one. Rows of `late` are
 * stored on the way, if it is not null. */
GO_INLINE void block(const int rows, const int panels, const int8_t *a, size_t stride,
                     const uint8_t *b, size_t b_stride, size_t depth, int32_t *sums, size_t ld,
                     late_tile *late) {
    __m512i acc[TILE_M][2];
    GO_UNROLLED (r, rows)
        GO_UNROLLED (p, panels) acc[r][p] = _mm512_setzero_si512();
    /* A pointer for every third row: with an index register of 0, 1 or 2 strides
     * they address 12 rows, and all of them fit in registers. */
    const int8_t *at[4] = {a, a + 3 * stride, a + 6 * stride, a + 9 * stride};
    GO_UNROLLED (i, 4) GO_OPAQUE(at[i]);
    const size_t stretch = late ? go_ceil_div(depth / 4, TILE_M) * 4 : depth;
    for (size_t k = 0; k < depth;) {
        const size_t end = go_min_size(k + stretch, depth);
        for (; k < end; k += 4) {
            __m512i w[2];
            GO_UNROLLED (p, panels) w[p] = _mm512_loadu_si512(b + (size_t)p * b_stride + k * 16);
            GO_UNROLLED (r, rows) {
                int32_t four;
                memcpy(&four, at[r / 3] + (size_t)(r % 3) * stride + k, 4);
                __m512i x = _mm512_set1_epi32(four);
                GO_UNROLLED (p, panels) acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], w[p], x);
            }
        }
        if (late && late->done < late->rows) store_row(late);
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

/* Sixteen columns of at most GO_GEMV_ROWS rows. */
static void few_rows(const go_gemm_args *args, size_t row, size_t rows, size_t col, size_t cols) {
    const go_qa8_tile t = go_qa8_tile_at(args, row, rows, col, cols);
    int32_t sums[GO_GEMV_ROWS * GO_LANES];
#define STREAM(rows) stream(rows, t.lhs, t.lhs_stride, t.rhs, t.depth, sums, GO_LANES)
    if (t.rows == 1)
        STREAM(1);
    else if (t.rows == 2)
        STREAM(2);
    else if (t.rows == 3)
        STREAM(3);
    else
        STREAM(4);
#undef STREAM
    go_qa8_finish(args, &t, row, col, cols, RHS_BIAS, sums, GO_LANES);
}

/* The sums of fewer rows or columns than a tile has. */
GO_INLINE void partial_tile(const go_qa8_tile *t, int32_t *sums, size_t ld) {
    for (size_t r = 0, left; (left = t->rows - r) > 0;) {
        const int8_t *a = t->lhs + r * t->lhs_stride;
        int32_t *s = sums + r * ld;
#define BLOCK(rows, panels) \
    block(rows, panels, a, t->lhs_stride, t->rhs, t->rhs_stride, t->depth, s, ld, NULL), r += rows
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

/* Fetches part `number` of `count` of the columns behind a tile. */
GO_INLINE void fetch_next_columns(const go_qa8_tile *t, size_t number, size_t count) {
    const size_t bytes = t->panels * t->rhs_stride;
    const uint8_t *next = t->rhs + bytes;
    for (size_t i = bytes * number / count / 64, end = bytes * (number + 1) / count / 64; i < end;
         i++)
        __builtin_prefetch(next + i * 64, 0, 2);
}

/* A column block over all rows of a task. */
static void sweep(const go_gemm_args *args, size_t first, size_t rows, size_t col, size_t cols) {
    int32_t sums[2][TILE_M * TILE_N];
    const int simple = cols == TILE_N && args->epilogue.activation <= GO_ACT_RELU;
    const size_t tiles = go_ceil_div(rows, TILE_M);
    late_tile late = {.args = args};
    if (simple) find_columns(&late, first, col);
    for (size_t i = 0; i < tiles; i++) {
        const size_t done = i * TILE_M, m = go_min_size(TILE_M, rows - done);
        const go_qa8_tile t = go_qa8_tile_at(args, first + done, m, col, cols);
        int32_t *now = sums[i % 2];
        go_epilogue_prefetch(args, first + done, m, col, cols);
        if (col + cols < args->n) fetch_next_columns(&t, i, tiles);
        if (simple && m == TILE_M)
            block(TILE_M, 2, t.lhs, t.lhs_stride, t.rhs, t.rhs_stride, t.depth, now, TILE_N, &late);
        else
            partial_tile(&t, now, TILE_N);
        store_rows(&late);
        if (simple)
            late.sums = now, late.row = first + done, late.rows = m, late.done = 0;
        else
            go_qa8_finish(args, &t, first + done, col, cols, RHS_BIAS, now, TILE_N);
    }
    store_rows(&late);
}

#define KERNEL GO_NAME(gemm_f32_qa8r_qs8c_12x32x4)

void KERNEL(go_team *team, const go_gemm_args *args);

void KERNEL(go_team *team, const go_gemm_args *args) {
    const size_t depth = go_qa8_depth(args->k);
    if (args->m <= GO_GEMV_ROWS)
        go_gemv_drive(team, args, GO_LANES, depth + GO_QS8_TAIL, few_rows);
    else
        go_gemm_drive_sweeps(team, args, TILE_M, TILE_N, depth + 16, sweep);
}
