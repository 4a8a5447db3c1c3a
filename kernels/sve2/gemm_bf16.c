/* bf16 GEMM with the BFMMLA of SVE: 8 rows x 8 columns, any vector length. How BFMMLA
 * rounds inside its sum of four products is up to the core: equal to f32 only within a
 * bound. */
#include "gemm_bf16.h"

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
#include "mmla_tile.h"

enum { TILE_M = 8, TILE_N = 16 }; /* two panels, which are finished together */

GO_INLINE void float_tile(const go_bf16_tile *t, float *sums, size_t ld) {
    for (size_t p = 0; p < t->panels; p++)
        mmla_8x8((const bfloat16_t *)t->lhs, (const bfloat16_t *)t->rhs + p * t->rhs_stride,
                 t->depth / 4, sums + p * 8, ld);
}

GO_GEMM_BF16(go_gemm_f32_bf16_bf16_8x8x4_sve2, TILE_M, TILE_N, float_tile)
