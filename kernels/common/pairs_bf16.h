/* Products of bf16 rows and columns that lie in pairs: two values along k in 32 bits.
 * What the bf16 GEMM and attention share on every level without BFMMLA.
 *
 * Every result is one chain of fused multiply-adds in f32, in order of the pairs, the odd
 * value of a pair before the even one. VDPBF16PS does exactly that (denormals are zero to
 * it, as they are to kernels); other CPUs widen both values in registers. So the bits are
 * the same on every instruction set. */
#ifndef GO_PAIRS_BF16_H
#define GO_PAIRS_BF16_H

#include "go_reg.h"

enum { GO_PAIRS_MAX_ROWS = 12, GO_PAIRS_MAX_VECTORS = 2 };

#if defined(__AVX512F__)
enum { GO_PAIRS_ROWS = 12, GO_PAIRS_VECTORS = 2 };
#elif defined(__AVX2__) || defined(__aarch64__)
enum { GO_PAIRS_ROWS = 4, GO_PAIRS_VECTORS = 1 }; /* widened pairs take the other registers */
#else
enum { GO_PAIRS_ROWS = 1, GO_PAIRS_VECTORS = 1 };
#endif

/* The columns one call of go_pairs_rows may be given. */
enum { GO_PAIRS_COLS = GO_PAIRS_VECTORS * GO_LANES };

/* Rows of `depth` (even) values, and vectors of 16 columns [depth / 2][16][2], which
 * start b_next values apart. */
typedef struct {
    const uint16_t *a;
    size_t a_stride;
    const uint16_t *b;
    size_t b_next, depth;
    int accumulate; /* sums start from the tile, not from 0 */
} go_pairs_operands;

/* Pairs of a row (x) times those of 16 columns, added to their sums. */
GO_INLINE go_reg go_pairs_step(go_reg x, go_reg w, go_reg sums) {
#if defined(__AVX512BF16__)
    return (go_reg)_mm512_dpbf16_ps((__m512)sums, (__m512bh)x, (__m512bh)w);
#else
    const go_reg_u32 p = (go_reg_u32)x, q = (go_reg_u32)w;
    sums = go_reg_fma((go_reg)(p & 0xffff0000u), (go_reg)(q & 0xffff0000u), sums);
    return go_reg_fma((go_reg)(p << 16), (go_reg)(q << 16), sums);
#endif
}

/* tile[r * ld + c] for `rows` rows (<= 12) and 16 * `vectors` columns (<= 32); both must
 * be constants: the sums then live in registers. */
GO_INLINE void go_pairs_block(const int rows, const int vectors, const go_pairs_operands *o,
                              float *tile, size_t ld) {
    const int regs = vectors * GO_REGS;
    go_reg acc[GO_PAIRS_MAX_ROWS][GO_PAIRS_MAX_VECTORS * GO_REGS];
    GO_UNROLLED (r, rows)
        GO_UNROLLED (q, regs) acc[r][q] = go_reg_zero();
    if (o->accumulate)
        GO_UNROLLED (r, rows)
            GO_UNROLLED (q, regs)
                acc[r][q] = go_reg_load(tile + (size_t)r * ld + (size_t)q * GO_REG_LANES);
    const uint16_t *at[4]; /* every third row, as in gemm_f32.h */
    GO_UNROLLED (i, 4) {
        at[i] = 3 * i < rows ? o->a + (size_t)(3 * i) * o->a_stride : o->a;
        GO_OPAQUE(at[i]);
    }
    for (size_t k = 0; k < o->depth; k += 2) {
        go_reg w[GO_PAIRS_MAX_VECTORS * GO_REGS];
        GO_UNROLLED (q, regs)
            w[q] = go_reg_load(o->b + (size_t)(q / GO_REGS) * o->b_next + k * GO_LANES +
                               (size_t)(q % GO_REGS * GO_REG_LANES * 2));
        GO_UNROLLED (r, rows) {
            float pair; /* only its bits matter */
            memcpy(&pair, at[r / 3] + (size_t)(r % 3) * o->a_stride + k, 4);
            const go_reg x = go_reg_splat(pair);
            GO_UNROLLED (q, regs) acc[r][q] = go_pairs_step(x, w[q], acc[r][q]);
        }
    }
    GO_UNROLLED (r, rows)
        GO_UNROLLED (q, regs)
            go_reg_store(tile + (size_t)r * ld + (size_t)q * GO_REG_LANES, acc[r][q]);
}

/* Any number of rows; vectors is a constant. */
GO_INLINE void go_pairs_vectors(const int vectors, const go_pairs_operands *operands, size_t rows,
                                float *tile, size_t ld) {
    enum { WHOLE = GO_PAIRS_ROWS, HALF = WHOLE > 1 ? WHOLE / 2 : 1 };
    go_pairs_operands o = *operands;
    for (size_t done = 0, step; done < rows; done += step) {
        const size_t left = rows - done;
        float *t = tile + done * ld;
        o.a = operands->a + done * o.a_stride;
        if (left >= WHOLE)
            go_pairs_block(WHOLE, vectors, &o, t, ld), step = WHOLE;
        else if (left >= HALF)
            go_pairs_block(HALF, vectors, &o, t, ld), step = HALF;
        else
            go_pairs_block(1, vectors, &o, t, ld), step = 1;
    }
}

/* Any number of rows of up to GO_PAIRS_COLS columns, written in whole vectors. */
static __attribute__((noinline, unused)) void go_pairs_rows(const go_pairs_operands *operands,
                                                            size_t rows, size_t cols, float *tile,
                                                            size_t ld) {
    if (cols > GO_LANES)
        go_pairs_vectors(GO_PAIRS_VECTORS, operands, rows, tile, ld);
    else
        go_pairs_vectors(1, operands, rows, tile, ld);
}

#endif
