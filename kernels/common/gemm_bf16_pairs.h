/* bf16 GEMM tile of pairs_bf16.h on the packed panels of x86_64. */
#ifndef GO_GEMM_BF16_PAIRS_H
#define GO_GEMM_BF16_PAIRS_H

#include "gemm_bf16.h"
#include "pairs_bf16.h"

GO_INLINE void go_pairs_tile(const go_bf16_tile *t, float *sums, size_t ld) {
    const go_pairs_operands o = {t->lhs, t->depth, t->rhs, t->rhs_stride, t->depth, 0};
    go_pairs_rows(&o, t->rows, t->panels * GO_BF16_NR, sums, ld);
}

#endif
