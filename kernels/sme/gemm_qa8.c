/* int8 GEMM with the outer products of SME: every SMOPA adds four products to each sum of a
 * square tile, whose side is as many sums as fit a streaming vector. Few rows would leave the
 * tile empty and wait for their weights anyway: NEON does them, and vectors longer than two
 * panels, which no core has. */
#include <arm_sme.h>

#include "../neon_i8mm/qa8_sweep.h"
#include "sme_runtime.h"

enum { BLOCK = 32, LONGEST = 16 }; /* rows and columns of a block; sums in a vector */

/* `rows` lines (rows of the left operand, or columns of the right one) in panels of eight. */
typedef struct {
    const int8_t *panels;
    size_t stride, rows; /* bytes from panel to panel; lines, a multiple of 8 */
} sme_lines;

/* Eight values of each of half a vector's lines from `line` on, none behind the last line.
 * Half a vector is two lines at 128 bits and a whole panel at 512. */
GO_INLINE svint32_t half(const sme_lines *lines, size_t line, size_t k) __arm_streaming {
    const svbool_t any = svdup_n_b8(line < lines->rows);
    const int8_t *panel = lines->panels + (line < lines->rows ? line / 8 * lines->stride : 0);
    return svreinterpret_s32_s8(svld1_s8(any, panel + 8 * k + line % 8 * 8));
}

GO_INLINE svint8_t values_0_to_3(svint32_t x, svint32_t y) __arm_streaming {
    return svreinterpret_s8_s32(svuzp1_s32(x, y));
}

GO_INLINE svint8_t values_4_to_7(svint32_t x, svint32_t y) __arm_streaming {
    return svreinterpret_s8_s32(svuzp2_s32(x, y));
}

/* The four tiles += two vectors of rows times two vectors of columns. */
GO_INLINE void outer_products(const sme_lines *lhs, size_t row, const sme_lines *rhs, size_t col,
                              size_t depth) __arm_streaming __arm_inout("za") {
    const svbool_t all = svptrue_b8();
    const size_t step = svcntw() / 2;
    for (size_t k = 0; k < depth; k += 8) {
        const svint32_t a0 = half(lhs, row, k), a1 = half(lhs, row + step, k);
        const svint32_t a2 = half(lhs, row + 2 * step, k), a3 = half(lhs, row + 3 * step, k);
        const svint32_t b0 = half(rhs, col, k), b1 = half(rhs, col + step, k);
        const svint32_t b2 = half(rhs, col + 2 * step, k), b3 = half(rhs, col + 3 * step, k);
#define ADD(values)                                                    \
    do {                                                               \
        svmopa_za32_s8_m(0, all, all, values(a0, a1), values(b0, b1)); \
        svmopa_za32_s8_m(1, all, all, values(a0, a1), values(b2, b3)); \
        svmopa_za32_s8_m(2, all, all, values(a2, a3), values(b0, b1)); \
        svmopa_za32_s8_m(3, all, all, values(a2, a3), values(b2, b3)); \
    } while (0)
        ADD(values_0_to_3);
        ADD(values_4_to_7);
#undef ADD
    }
}

/* sums[r * BLOCK + c] for a block of lhs->rows by rhs->rows. */
__arm_new("za") __arm_locally_streaming static
    __attribute__((noinline)) void integer_block(const sme_lines *lhs, const sme_lines *rhs,
                                                 size_t depth, int32_t *sums) {
    const svbool_t all = svptrue_b32();
    const size_t side = svcntw();
    for (size_t row = 0; row < lhs->rows; row += 2 * side) {
        for (size_t col = 0; col < rhs->rows; col += 2 * side) {
            svzero_za();
            outer_products(lhs, row, rhs, col, depth);
            int32_t *to = sums + row * BLOCK + col;
            for (uint32_t r = 0; r < side; r++, to += BLOCK) {
                svst1_hor_za32(0, r, all, to);
                svst1_hor_za32(1, r, all, to + side);
                svst1_hor_za32(2, r, all, to + side * BLOCK);
                svst1_hor_za32(3, r, all, to + side * BLOCK + side);
            }
        }
    }
}

static void sweep(const go_gemm_args *args, size_t row, size_t rows, size_t col, size_t cols) {
    if (rows <= GO_GEMV_ROWS || svcntsw() > LONGEST) {
        for (size_t c = 0; c < cols; c += 16)
            qa8_sweep(args, row, rows, col + c, go_min_size(cols - c, 16));
        return;
    }
    for (size_t r = row; r < row + rows; r += BLOCK) {
        const size_t n = go_min_size(row + rows - r, BLOCK);
        const go_qa8_tile t = go_qa8_tile_at(args, r, n, col, cols);
        const sme_lines lhs = {t.lhs, 8 * (t.depth + 16), (n + 7) / 8 * 8};
        const sme_lines rhs = {(const int8_t *)t.rhs, t.rhs_stride, 8 * t.panels};
        int32_t sums[BLOCK * BLOCK];
        integer_block(&lhs, &rhs, t.depth, sums);
        go_qa8_finish(args, &t, r, col, cols, 0, sums, BLOCK);
    }
}

GO_GEMM_QA8_SWEEPS(GO_NAME(gemm_f32_qa8r_qs8c_32x32x8), BLOCK, BLOCK, sweep)
