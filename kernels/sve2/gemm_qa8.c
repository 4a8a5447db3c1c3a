/* int8 GEMM: the SMMLA of NEON at 128 bits and for few rows, which wait for their weights
 * anyway; that of SVE on longer vectors. */
#include "../neon_i8mm/qa8_sweep.h"

#define VALUE int8_t
#define VALUES svint8_t
#define SUM int32_t
#define SUMS svint32_t
#define LOAD svld1_s8
#define LOAD_QUAD svld1rq_s8
#define MMLA svmmla_s32
#define ZERO svdup_n_s32(0)
#define LANES(pick, x, y) \
    svreinterpret_s32_s64(pick(svreinterpret_s64_s32(x), svreinterpret_s64_s32(y)))
#define EVEN(x, y) LANES(svuzp1_s64, x, y)
#define ODD(x, y) LANES(svuzp2_s64, x, y)
#define STORE svst1_s32
#include "long_mmla_tile.h"

static void sweep(const go_gemm_args *args, size_t row, size_t rows, size_t col, size_t cols) {
    if (svcntb() == 16 || rows <= 4) {
        qa8_sweep(args, row, rows, col, cols);
        return;
    }
    for (size_t r = row; r < row + rows; r += 8) {
        const size_t n = go_min_size(row + rows - r, 8);
        const go_qa8_tile t = go_qa8_tile_at(args, r, n, col, cols);
        int32_t sums[8 * 16];
        for (size_t p = 0; p < t.panels; p++)
            long_mmla_8x8(t.lhs, (const int8_t *)t.rhs + p * t.rhs_stride, t.depth / 8,
                          sums + p * 8, 16);
        go_qa8_finish(args, &t, r, col, cols, 0, sums, 16);
    }
}

GO_GEMM_QA8_SWEEPS(GO_NAME(gemm_f32_qa8r_qs8c_8x8x8), 8, 16, sweep)
