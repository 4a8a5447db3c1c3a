/* f32 GEMM with FMMLA, which multiplies 2 x 2 by 2 x 2 in every 128 bits: twice the products
 * of FMLA. It rounds both products and both additions of sum + (p + q), so that results agree
 * with the fused chains of other levels within a bound only (kernels/reference.py). */
#include <arm_sve.h>

#include "gemm_f32.h"

enum { TILE_M = 8 };

/* Up to eight rows, the last one repeated, and a column block. */
typedef struct {
    const float *rows[TILE_M];
    const float *columns;
    size_t k;
} fmmla_operands;

/* Of a pair of rows, in every 128 bits: values k and k + 1 of both in *low, the next two in
 * *high, zero behind the depth. */
GO_INLINE void load_pair(const fmmla_operands *o, int pair, size_t k, svfloat32_t *low,
                         svfloat32_t *high) {
    const svbool_t there = svwhilelt_b32_u64(k, o->k);
    const svfloat64_t x = svreinterpret_f64_f32(svld1rq_f32(there, o->rows[2 * pair] + k));
    const svfloat64_t y = svreinterpret_f64_f32(svld1rq_f32(there, o->rows[2 * pair + 1] + k));
    *low = svreinterpret_f32_f64(svtrn1_f64(x, y));
    *high = svreinterpret_f32_f64(svtrn2_f64(x, y));
}

/* A vector of columns of row k, zero behind the depth. */
GO_INLINE svfloat32_t load_columns(const fmmla_operands *o, svbool_t lanes, size_t k, size_t col) {
    const svbool_t there = svand_b_z(lanes, lanes, svdup_n_b32(k < o->k));
    return svld1_f32(there, o->columns + k * GO_F32_NR + col);
}

/* Sums of a pair of rows, x and y, to two rows of memory. */
GO_INLINE void store_pair(svbool_t lanes, float *to, svfloat32_t x, svfloat32_t y) {
    const svfloat64_t a = svreinterpret_f64_f32(x), b = svreinterpret_f64_f32(y);
    svst1_f32(lanes, to, svreinterpret_f32_f64(svuzp1_f64(a, b)));
    svst1_f32(lanes, to + GO_F32_NR, svreinterpret_f32_f64(svuzp2_f64(a, b)));
}

/* Rows `row` and `row` + 1 of the columns of two vectors: with values of a pair of rows one
 * FMMLA makes sums of both with two columns in every 128 bits. */
#define PAIRS_OF_COLUMNS(row)                                           \
    const svfloat32_t x0 = load_columns(o, left, row, col),             \
                      y0 = load_columns(o, left, row + 1, col);         \
    const svfloat32_t x1 = load_columns(o, right, row, next);           \
    const svfloat32_t y1 = load_columns(o, right, row + 1, next);       \
    const svfloat32_t b0 = svzip1_f32(x0, y0), b1 = svzip2_f32(x0, y0); \
    const svfloat32_t b2 = svzip1_f32(x1, y1), b3 = svzip2_f32(x1, y1)

#define EACH_PAIR(what)     \
    what(0);                \
    if (pairs > 1) what(1); \
    if (pairs > 2) what(2); \
    if (pairs > 2) what(3)

/* tile[16 r + c] of `pairs` (a constant) pairs of rows and two vectors of columns. */
GO_INLINE void fmmla_block(const fmmla_operands *o, const int pairs, size_t col, float *tile) {
    const size_t next = col + svcntw();
    const svbool_t left = svwhilelt_b32_u64(col, GO_F32_NR);
    const svbool_t right = svwhilelt_b32_u64(next, GO_F32_NR);
    const svfloat32_t zero = svdup_n_f32(0);
#define START(r) svfloat32_t c##r##0 = zero, c##r##1 = zero, c##r##2 = zero, c##r##3 = zero
    START(0);
    START(1);
    START(2);
    START(3);
    for (size_t k = 0; k < o->k; k += 4) {
        svfloat32_t low0, low1, low2, low3, high0, high1, high2, high3;
#define LOAD(r) load_pair(o, r, k, &low##r, &high##r)
        EACH_PAIR(LOAD);
#define ADD(r, a)                                                                \
    (c##r##0 = svmmla_f32(c##r##0, a, b0), c##r##1 = svmmla_f32(c##r##1, a, b1), \
     c##r##2 = svmmla_f32(c##r##2, a, b2), c##r##3 = svmmla_f32(c##r##3, a, b3))
        {
            PAIRS_OF_COLUMNS(k);
#define ADD_LOW(r) ADD(r, low##r)
            EACH_PAIR(ADD_LOW);
        }
        {
            PAIRS_OF_COLUMNS(k + 2);
#define ADD_HIGH(r) ADD(r, high##r)
            EACH_PAIR(ADD_HIGH);
        }
    }
#define STORE(r)                                                           \
    (store_pair(left, tile + 2 * (r) * GO_F32_NR + col, c##r##0, c##r##1), \
     store_pair(right, tile + 2 * (r) * GO_F32_NR + next, c##r##2, c##r##3))
    EACH_PAIR(STORE);
}

static void finished_tile(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                          size_t cols) {
    float tile[TILE_M * GO_F32_NR];
    fmmla_operands o = {.columns = (const float *)args->rhs + col * args->k, .k = args->k};
    for (size_t r = 0; r < TILE_M; r++)
        o.rows[r] = (const float *)args->lhs +
                    (ptrdiff_t)(row + go_min_size(r, rows - 1)) * args->lhs_stride;
    for (size_t c = 0; c < GO_F32_NR; c += 2 * svcntw()) {
        if (rows > 4)
            fmmla_block(&o, 4, c, tile);
        else if (rows > 2)
            fmmla_block(&o, 2, c, tile);
        else
            fmmla_block(&o, 1, c, tile);
    }
    go_epilogue_tile(args, row, rows, col, cols, tile, GO_F32_NR);
}

void GO_NAME(gemm_f32_f32_f32_8x16x1)(go_team *team, const go_gemm_args *args);
void GO_NAME(gemm_f32_f32_f32_8x16x1)(go_team *team, const go_gemm_args *args) {
    go_gemm_drive(team, args, TILE_M, GO_F32_NR, args->k * sizeof(float), finished_tile);
}
