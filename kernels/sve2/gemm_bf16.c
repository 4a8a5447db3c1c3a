/* bf16 GEMM: the BFMMLA of NEON at 128 bits, that of SVE on longer vectors. */
#include "../neon_i8mm/bf16_sweep.h"

#define VALUE bfloat16_t
#define VALUES svbfloat16_t
#define SUM float
#define SUMS svfloat32_t
#define LOAD svld1_bf16
#define LOAD_QUAD svld1rq_bf16
#define MMLA svbfmmla_f32
#define ZERO svdup_n_f32(0)
#define LANES(pick, x, y) \
    svreinterpret_f32_s64(pick(svreinterpret_s64_f32(x), svreinterpret_s64_f32(y)))
#define EVEN(x, y) LANES(svuzp1_s64, x, y)
#define ODD(x, y) LANES(svuzp2_s64, x, y)
#define STORE svst1_f32
#include "long_mmla_tile.h"

static void sweep(const go_gemm_args *args, size_t row, size_t rows, size_t col, size_t cols) {
    if (svcntb() == 16) {
        bf16_sweep(args, row, rows, col, cols);
        return;
    }
    for (size_t r = row; r < row + rows; r += 8) {
        const size_t n = go_min_size(row + rows - r, 8);
        const go_bf16_tile t = go_bf16_tile_at(args, r, n, col, cols);
        float sums[8 * 16];
        for (size_t p = 0; p < t.panels; p++)
            long_mmla_8x8((const bfloat16_t *)t.lhs, (const bfloat16_t *)t.rhs + p * t.rhs_stride,
                          t.depth / 4, sums + p * 8, 16);
        go_epilogue_tile(args, r, n, col, cols, sums, 16);
    }
}

GO_GEMM_BF16_SWEEPS(GO_NAME(gemm_f32_bf16_bf16_8x8x4), 8, 16, sweep)
