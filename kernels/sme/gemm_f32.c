/* f32 GEMM with the outer products of SME: FMOPA is one fused multiply-add for each sum of a
 * square tile, so every result is the same chain in order of k as elsewhere. A third tile
 * turns rows of the left operand into columns. */
#include <arm_sme.h>

#include "gemm_f32.h"
#include "sme_runtime.h"

enum { BLOCK_M = 16, BLOCK_N = 32, LONGEST = 16 }; /* of a block; sums in a vector */

/* Tile 2 = values k .. of the rows from o->a on, zero behind row `rows` or the depth. */
GO_INLINE void load_rows(const go_f32_operands *o, size_t rows,
                         size_t k) __arm_streaming __arm_inout("za") {
    for (uint32_t r = 0; r < svcntw(); r++) {
        const int there = r < rows;
        svld1_hor_za32(2, r, svwhilelt_b32_u64(k, there ? o->k : 0),
                       o->a + (there ? (ptrdiff_t)r * o->a_stride : 0) + k);
    }
}

/* Tiles 0 and 1 += up to a vector of rows times two vectors of columns, `left` and `right`
 * (null: there are none). */
GO_INLINE void outer_products(const go_f32_operands *o, size_t rows, const float *left,
                              const float *right) __arm_streaming __arm_inout("za") {
    const svbool_t all = svptrue_b32(), both = svdup_n_b32(right != NULL);
    if (!right) right = left;
    for (size_t k = 0; k < o->k;) {
        load_rows(o, rows, k);
        const size_t end = k + svcntw() < o->k ? k + svcntw() : o->k;
        for (uint32_t i = 0; k < end; i++, k++, left += GO_F32_NR, right += GO_F32_NR) {
            const svfloat32_t a = svread_ver_za32_f32_m(svundef_f32(), all, 2, i);
            svmopa_za32_f32_m(0, all, all, a, svld1_f32(all, left));
            svmopa_za32_f32_m(1, all, both, a, svld1_f32(both, right));
        }
    }
}

/* tile[r * BLOCK_N + c] for a block of rows x cols. */
__arm_new("za") __arm_locally_streaming static
    __attribute__((noinline)) void float_block(const go_f32_operands *operands, size_t rows,
                                               size_t cols, float *tile) {
    const svbool_t all = svptrue_b32();
    const size_t side = svcntw();
    go_f32_operands o = *operands;
    for (size_t row = 0; row < rows; row += side, o.a += (ptrdiff_t)side * o.a_stride) {
        for (size_t col = 0; col < cols; col += 2 * side) {
            const float *b[2] = {NULL, NULL};
            for (size_t i = 0, at = col; i < 2 && at < cols; i++, at += side)
                b[i] = o.b + (ptrdiff_t)(at / GO_F32_NR) * o.b_next + at % GO_F32_NR;
            svzero_za();
            outer_products(&o, rows - row, b[0], b[1]);
            float *to = tile + row * BLOCK_N + col;
            for (uint32_t r = 0; r < side; r++, to += BLOCK_N) {
                svst1_hor_za32(0, r, all, to);
                svst1_hor_za32(1, r, all, to + side);
            }
        }
    }
}

static void finished_block(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                           size_t cols) {
    float tile[BLOCK_M * BLOCK_N];
    go_f32_operands o = {
        .a = (const float *)args->lhs + (ptrdiff_t)row * args->lhs_stride,
        .a_stride = args->lhs_stride,
        .b = (const float *)args->rhs + col * args->k,
        .ldb = GO_F32_NR,
        .b_next = (ptrdiff_t)(GO_F32_NR * args->k),
        .k = args->k,
    };
    if (rows > GO_GEMV_ROWS && svcntsw() <= LONGEST)
        float_block(&o, rows, cols, tile);
    else
        for (size_t c = 0; c < cols; c += GO_F32_NR, o.b += o.b_next)
            go_f32_rows(6, 1, 0, &o, rows, tile + c, BLOCK_N);
    go_epilogue_tile(args, row, rows, col, cols, tile, BLOCK_N);
}

void GO_NAME(gemm_f32_f32_f32_16x32x1)(go_team *team, const go_gemm_args *args);
void GO_NAME(gemm_f32_f32_f32_16x32x1)(go_team *team, const go_gemm_args *args) {
    go_gemm_drive(team, args, BLOCK_M, BLOCK_N, args->k * sizeof(float), finished_block);
}
