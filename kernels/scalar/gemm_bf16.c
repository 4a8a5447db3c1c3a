/* bf16 GEMM in portable C: one chain of fused multiply-adds in order of the pairs of k, the
 * odd value of a pair first, as in pairs_bf16.h. */
#include "gemm_bf16.h"

#if defined(__aarch64__)
enum { TILE_M = 8, TILE_N = 16 };
#define SYMBOL GO_NAME(gemm_f32_bf16_bf16_8x8x4)
#else
enum { TILE_M = 1, TILE_N = 16 };
#define SYMBOL GO_NAME(gemm_f32_bf16_bf16_1x16x2)
#endif

GO_INLINE void float_tile(const go_bf16_tile *t, float *sums, size_t ld) {
    enum { KR = GO_BF16_KR, MR = GO_BF16_MR, NR = GO_BF16_NR };
    for (size_t p = 0; p < t->panels; p++) {
        const uint16_t *rhs = t->rhs + p * t->rhs_stride;
        for (size_t r = 0; r < t->rows; r++) {
            float acc[NR] = {0};
            for (size_t i = 0; i < t->depth; i++) {
                const size_t k = i ^ 1;
                float x = go_f32_from_bf16(t->lhs[k / KR * KR * MR + r * KR + k % KR]);
                for (size_t c = 0; c < NR; c++) {
                    float w = go_f32_from_bf16(rhs[k / KR * KR * NR + c * KR + k % KR]);
                    acc[c] = __builtin_fmaf(x, w, acc[c]);
                }
            }
            memcpy(sums + r * ld + p * NR, acc, sizeof acc);
        }
    }
}

GO_GEMM_BF16(SYMBOL, TILE_M, TILE_N, float_tile)
