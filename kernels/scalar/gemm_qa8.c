/* int8 GEMM in portable C: the fallback, and the version to read first. */
#include "gemm_qa8.h"

#if defined(__aarch64__)
enum { TILE_M = 8, TILE_N = 16, RHS_BIAS = 0 };
#define SYMBOL GO_NAME(gemm_f32_qa8r_qs8c_8x8x8)
typedef int8_t rhs_value;
#else
enum { TILE_M = 1, TILE_N = 16, RHS_BIAS = 128 };
#define SYMBOL GO_NAME(gemm_f32_qa8r_qs8c_1x16x4)
typedef uint8_t rhs_value; /* q + 128 */
#endif

GO_INLINE void integer_tile(const go_qa8_tile *t, int32_t *sums, size_t ld) {
    enum { KR = GO_QA8_KR, MR = GO_QA8_MR, NR = GO_QS8_NR };
    for (size_t p = 0; p < t->panels; p++) {
        const rhs_value *rhs = (const rhs_value *)(t->rhs + p * t->rhs_stride);
        for (size_t r = 0; r < t->rows; r++) {
            const int8_t *lhs = t->lhs + r * (MR == 1 ? t->lhs_stride : KR);
            int32_t acc[NR] = {0};
            for (size_t k = 0; k < t->depth; k += KR)
                for (size_t c = 0; c < NR; c++)
                    for (size_t i = 0; i < KR; i++)
                        acc[c] += lhs[k * MR + i] * rhs[k * NR + c * KR + i];
            memcpy(sums + r * ld + p * NR, acc, sizeof acc);
        }
    }
}

GO_GEMM_QA8(SYMBOL, TILE_M, TILE_N, integer_tile, RHS_BIAS)
