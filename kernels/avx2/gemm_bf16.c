/* bf16 GEMM, widened to f32: 4 rows x 16 columns, 8 accumulators of one ymm register;
 * the widened pairs take the rest. */
#include "gemm_bf16_widen.h"

enum { TILE_M = 4, TILE_N = 16 };

GO_INLINE void float_tile(const go_bf16_tile *t, float *sums, size_t ld) {
    go_widen_rows(TILE_M, 1, t, sums, ld);
}

GO_GEMM_BF16(go_gemm_f32_bf16_bf16_4x16x2_avx2, TILE_M, TILE_N, float_tile)
