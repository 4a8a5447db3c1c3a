/* f32 GEMM: the micro-kernel, which attention and convolution use too, and the
 * kernel around it.
 *
 * Every result is one chain of fused multiply-adds in order of k, so its bits
 * depend neither on the tile nor on the instruction set.
 */
#ifndef GO_GEMM_F32_H
#define GO_GEMM_F32_H

#include "gemm_driver.h"
#include "go_epilogue.h"
#include "go_reg.h"
#include "layouts.h"

enum {
    GO_F32_MAX_ROWS = 12,
    GO_F32_MAX_VECTORS = 2,
    GO_F32_AHEAD = 24, /* rows of the right operand that are asked for before they are read */
};

/* A left operand as rows of f32 and a right one whose row k starts at b + k * ldb;
 * its vector v (16 columns) lies v * b_next further: 16 in a plain matrix, the panel
 * stride in a packed one. All strides in elements. */
typedef struct {
    const float *a;
    ptrdiff_t a_stride;
    const float *b;
    ptrdiff_t ldb, b_next;
    size_t k;
} go_f32_operands;

/* A pointer for every third row: with index registers of 0, 1 and 2 strides they address
 * all rows, and all of them fit in registers. */
GO_INLINE void go_f32_row_pointers(const int rows, const go_f32_operands *o, const float *at[4]) {
    GO_UNROLLED (i, 4) {
        at[i] = 3 * i < rows ? o->a + 3 * i * o->a_stride : o->a;
        GO_OPAQUE(at[i]);
    }
}

/* Row k of the right operand times value k of every row r, x_r. Where a multiply-add can
 * pick a lane, x_r costs no register and columns come first; elsewhere a broadcast of x_r
 * should serve all columns. */
#define GO_F32_COLUMNS(q) go_reg_load(b + (q) / GO_REGS * o->b_next + (q) % GO_REGS * GO_REG_LANES)
#if defined(__aarch64__)
#define GO_F32_STEP(x_r)                                                               \
    GO_UNROLLED (q, vectors * GO_REGS) {                                               \
        go_reg w = GO_F32_COLUMNS(q);                                                  \
        GO_UNROLLED (r, rows) acc[r][q] = go_reg_fma(go_reg_splat(x_r), w, acc[r][q]); \
    }
#else
#define GO_F32_STEP(x_r)                                                                        \
    {                                                                                           \
        go_reg w[GO_F32_MAX_VECTORS * GO_REGS];                                                 \
        GO_UNROLLED (v, vectors) __builtin_prefetch(b + v * o->b_next + GO_F32_AHEAD * o->ldb); \
        GO_UNROLLED (q, vectors * GO_REGS) w[q] = GO_F32_COLUMNS(q);                            \
        GO_UNROLLED (r, rows) {                                                                 \
            go_reg x = go_reg_splat(x_r);                                                       \
            GO_UNROLLED (q, vectors * GO_REGS) acc[r][q] = go_reg_fma(x, w[q], acc[r][q]);      \
        }                                                                                       \
    }
#endif

/* tile[r * ld + c] = (accumulate ? tile : 0) + sum_k a[r][k] b[k][c] for `rows` rows
 * (<= 12) and 16 * `vectors` columns (<= 32). rows, vectors and accumulate must be
 * constants: the accumulators then live in registers. Reads all 16 columns of every
 * vector. */
GO_INLINE void go_f32_block(const int rows, const int vectors, const int accumulate,
                            const go_f32_operands *o, float *tile, size_t ld) {
    go_reg acc[GO_F32_MAX_ROWS][GO_F32_MAX_VECTORS * GO_REGS];
    GO_UNROLLED (r, rows)
        GO_UNROLLED (q, vectors * GO_REGS)
            acc[r][q] =
                accumulate ? go_reg_load(tile + (size_t)r * ld + q * GO_REG_LANES) : go_reg_zero();
    const float *at[4], *b = o->b;
    go_f32_row_pointers(rows, o, at);
    size_t k = 0;
#if defined(__aarch64__)
    /* Four values of a row in one load: the multiply-adds pick their lane, which saves
     * the broadcasts. 24 accumulators, 6 rows and 2 vectors of the right operand fill
     * the 32 registers. */
    for (; k + 4 <= o->k; k += 4) {
        go_reg x[GO_F32_MAX_ROWS];
        GO_UNROLLED (r, rows) x[r] = go_reg_load(at[r / 3] + (r % 3) * o->a_stride + (ptrdiff_t)k);
        GO_UNROLLED (i, 4) {
            GO_F32_STEP(x[r][i])
            b += o->ldb;
        }
    }
#endif
    for (; k < o->k; k++, b += o->ldb) GO_F32_STEP(at[r / 3][(r % 3) * o->a_stride + (ptrdiff_t)k])
    GO_UNROLLED (r, rows)
        GO_UNROLLED (q, vectors * GO_REGS)
            go_reg_store(tile + (size_t)r * ld + q * GO_REG_LANES, acc[r][q]);
}

/* How many of the rows that are left one block takes. */
GO_INLINE size_t go_f32_next(size_t max_rows, size_t left) {
    if (left >= max_rows) return max_rows;
    return left >= 6 ? 6 : left >= 4 ? 4 : left;
}

#define GO_F32_REST(n)                                                       \
    case n:                                                                  \
        if (max_rows > (n)) go_f32_block(n, vectors, accumulate, &o, t, ld); \
        break;

/* The same for any number of rows: whole tiles of max_rows (12, 6 or 1, a constant), then blocks
 * of as many as keep the multiply-adds busy. */
GO_INLINE void go_f32_rows(const int max_rows, const int vectors, const int accumulate,
                           const go_f32_operands *operands, size_t rows, float *tile, size_t ld) {
    go_f32_operands o = *operands;
    for (size_t done = 0, step; done < rows; done += step) {
        float *t = tile + done * ld;
        o.a = operands->a + (ptrdiff_t)done * o.a_stride;
        step = go_f32_next((size_t)max_rows, rows - done);
        if (step == (size_t)max_rows) {
            go_f32_block(max_rows, vectors, accumulate, &o, t, ld);
            continue;
        }
        switch (step) {
            GO_F32_REST(1)
            GO_F32_REST(2)
            GO_F32_REST(3)
            GO_F32_REST(4)
            GO_F32_REST(6)
        }
    }
}

#undef GO_F32_REST

/* Defines the kernel `symbol` with tiles of tile_m rows by 16 * vectors columns. */
#define GO_GEMM_F32(symbol, tile_m, vectors)                                                 \
    static void finished_tile(const go_gemm_args *args, size_t row, size_t rows, size_t col, \
                              size_t cols) {                                                 \
        enum { LD = GO_LANES * (vectors) };                                                  \
        float tile[(tile_m) * LD];                                                           \
        go_f32_operands o = {                                                                \
            .a = (const float *)args->lhs + (ptrdiff_t)row * args->lhs_stride,               \
            .a_stride = args->lhs_stride,                                                    \
            .b = (const float *)args->rhs + col * args->k,                                   \
            .ldb = GO_F32_NR,                                                                \
            .b_next = (ptrdiff_t)(GO_F32_NR * args->k),                                      \
            .k = args->k,                                                                    \
        };                                                                                   \
        if (cols <= GO_F32_NR)                                                               \
            go_f32_rows(tile_m, 1, 0, &o, rows, tile, LD);                                   \
        else                                                                                 \
            go_f32_rows(tile_m, vectors, 0, &o, rows, tile, LD);                             \
        go_epilogue_tile(args, row, rows, col, cols, tile, LD);                              \
    }                                                                                        \
    void symbol(go_team *team, const go_gemm_args *args);                                    \
    void symbol(go_team *team, const go_gemm_args *args) {                                   \
        go_gemm_drive(team, args, tile_m, GO_LANES *(vectors), args->k * sizeof(float),      \
                      finished_tile);                                                        \
    }

#endif
