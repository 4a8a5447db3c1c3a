/* bf16 GEMM tile for CPUs without bf16 instructions: both operands are widened to f32
 * in registers, a shift for the even and a mask for the odd value of a pair. Every
 * result is one chain of fused multiply-adds in order of k: the bits of the f32 GEMM
 * on the widened values, on every instruction set. */
#ifndef GO_GEMM_BF16_WIDEN_H
#define GO_GEMM_BF16_WIDEN_H

#include "gemm_bf16.h"
#include "go_reg.h"

enum { GO_WIDEN_MAX_ROWS = 12, GO_WIDEN_MAX_PANELS = 2 };

GO_INLINE go_reg go_even(go_reg_u32 pairs) { return (go_reg)(pairs << 16); }
GO_INLINE go_reg go_odd(go_reg_u32 pairs) { return (go_reg)(pairs & 0xffff0000u); }

/* rows (<= 12) and panels (<= 2) are constants. */
GO_INLINE void go_widen_block(const int rows, const int panels, const uint16_t *a,
                              const go_bf16_tile *t, float *sums, size_t ld) {
    const int regs = panels * GO_REGS;
    go_reg acc[GO_WIDEN_MAX_ROWS][GO_WIDEN_MAX_PANELS * GO_REGS];
    GO_UNROLLED (r, rows)
        GO_UNROLLED (q, regs) acc[r][q] = go_reg_zero();
    const uint16_t *at[4]; /* every third row, as in gemm_f32.h */
    GO_UNROLLED (i, 4) {
        at[i] = 3 * i < rows ? a + (size_t)(3 * i) * t->depth : a;
        GO_OPAQUE(at[i]);
    }
    for (size_t k = 0; k < t->depth; k += 2) {
        go_reg_u32 w[GO_WIDEN_MAX_PANELS * GO_REGS];
        GO_UNROLLED (q, regs)
            w[q] =
                (go_reg_u32)go_reg_load(t->rhs + (size_t)(q / GO_REGS) * t->rhs_stride +
                                        k * GO_BF16_NR + (size_t)(q % GO_REGS * GO_REG_LANES * 2));
        GO_UNROLLED (r, rows) {
            float pair; /* only its bits matter */
            memcpy(&pair, at[r / 3] + (size_t)(r % 3) * t->depth + k, 4);
            go_reg_u32 x = (go_reg_u32)go_reg_splat(pair);
            GO_UNROLLED (q, regs) {
                acc[r][q] = go_reg_fma(go_even(x), go_even(w[q]), acc[r][q]);
                acc[r][q] = go_reg_fma(go_odd(x), go_odd(w[q]), acc[r][q]);
            }
        }
    }
    GO_UNROLLED (r, rows)
        GO_UNROLLED (q, regs)
            go_reg_store(sums + (size_t)r * ld + (size_t)q * GO_REG_LANES, acc[r][q]);
}

/* Any number of rows up to max_rows, a constant, of `panels` panels, a constant. */
GO_INLINE void go_widen_rows(const int max_rows, const int panels, const go_bf16_tile *t,
                             float *sums, size_t ld) {
    const int half = max_rows > 1 ? max_rows / 2 : 1;
    for (size_t done = 0, step; done < t->rows; done += step) {
        const uint16_t *a = t->lhs + done * t->depth;
        float *s = sums + done * ld;
        if (t->rows - done >= (size_t)max_rows)
            go_widen_block(max_rows, panels, a, t, s, ld), step = (size_t)max_rows;
        else if (t->rows - done >= (size_t)half)
            go_widen_block(half, panels, a, t, s, ld), step = (size_t)half;
        else
            go_widen_block(1, panels, a, t, s, ld), step = 1;
    }
}

#endif
