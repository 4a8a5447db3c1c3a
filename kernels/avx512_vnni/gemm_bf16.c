/* bf16 GEMM, widened to f32: 12 rows x 32 columns, 24 accumulators of one zmm register. */
#include "gemm_bf16_widen.h"

enum { TILE_M = 12, TILE_N = 32 };

GO_INLINE void float_tile(const go_bf16_tile *t, float *sums, size_t ld) {
    if (t->panels == 2)
        go_widen_rows(TILE_M, 2, t, sums, ld);
    else
        go_widen_rows(TILE_M, 1, t, sums, ld);
}

GO_GEMM_BF16(go_gemm_f32_bf16_bf16_12x32x2_avx512_vnni, TILE_M, TILE_N, float_tile)
