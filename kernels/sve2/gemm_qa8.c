/* int8 GEMM with the SMMLA of SVE: 8 rows x 8 columns, any vector length. */
#include "gemm_qa8.h"

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
#include "mmla_tile.h"

enum { TILE_M = 8, TILE_N = 16 }; /* two panels, which are finished together */

GO_INLINE void integer_tile(const go_qa8_tile *t, int32_t *sums, size_t ld) {
    for (size_t p = 0; p < t->panels; p++)
        mmla_8x8(t->lhs, (const int8_t *)t->rhs + p * t->rhs_stride, t->depth / 8, sums + p * 8,
                 ld);
}

GO_GEMM_QA8(go_gemm_f32_qa8r_qs8c_8x8x8_sve2, TILE_M, TILE_N, integer_tile, 0)
