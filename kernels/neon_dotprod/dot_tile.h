/* Sums of products with SDOT, for cores without the matrix multiply-add of i8mm, such as
 * Neoverse N1: eight rows times a panel of eight columns, or up to four rows.
 *
 * A panel holds eight values along k of a column together (kernels/packing.py). For eight rows
 * it is unpacked first: taking every second group of four values gives a vector of four
 * columns, whose products with one group of a row need no sum across lanes. */
#ifndef GO_DOT_TILE_H
#define GO_DOT_TILE_H

#include <arm_neon.h>

#include "gemm_qs4.h"

/* dst: 64 bytes for every 8 values along k: the first four of columns 0 .. 3 and of columns
 * 4 .. 7, then the second four of both. From pairs of columns. */
GO_INLINE void dot_store_step(int8_t *dst, const int8x16_t pairs[4]) {
    GO_UNROLLED (i, 2) {
        const int32x4_t x = vreinterpretq_s32_s8(pairs[2 * i]);
        const int32x4_t y = vreinterpretq_s32_s8(pairs[2 * i + 1]);
        vst1q_s8(dst + 16 * i, vreinterpretq_s8_s32(vuzp1q_s32(x, y)));
        vst1q_s8(dst + 32 + 16 * i, vreinterpretq_s8_s32(vuzp2q_s32(x, y)));
    }
}

/* From `depth` values along k of a panel of int8. */
GO_INLINE void dot_unpack_int8(int8_t *dst, const uint8_t *src, size_t depth) {
    for (size_t k = 0; k < depth; k += 8, src += 64, dst += 64) {
        int8x16_t pairs[4];
        GO_UNROLLED (i, 4) pairs[i] = vld1q_s8((const int8_t *)src + 16 * i);
        dot_store_step(dst, pairs);
    }
}

/* The same of int4. */
GO_INLINE void dot_unpack_int4(int8_t *dst, const uint8_t *src, size_t depth) {
    for (size_t k = 0; k < depth; k += 16, src += 64, dst += 128) {
        int8x16_t low[4], high[4];
        GO_UNROLLED (i, 4) {
            const int8x16_t both = vld1q_s8((const int8_t *)src + 16 * i);
            low[i] = vsubq_s8(vandq_s8(both, vdupq_n_s8(15)), vdupq_n_s8(8));
            high[i] = vshrq_n_s8(both, 4);
        }
        dot_store_step(dst, low);
        dot_store_step(dst + 64, high);
    }
}

/* acc[r][i] += eight rows times columns 4i .. 4i + 3 of an unpacked panel, i < vectors. */
GO_INLINE void dot_eight_rows(int32x4_t acc[8][2], const int8_t *lhs, const int8_t *rhs,
                              size_t depth, const int vectors) {
    for (size_t k = 0; k < depth; k += 8, lhs += 64, rhs += 64) {
        int8x16_t first[2], second[2];
        GO_UNROLLED (i, vectors) first[i] = vld1q_s8(rhs + 16 * i);
        GO_UNROLLED (i, vectors) second[i] = vld1q_s8(rhs + 32 + 16 * i);
        GO_UNROLLED (pair, 4) {
            const int8x16_t a = vld1q_s8(lhs + 16 * pair);
            GO_UNROLLED (i, vectors) {
                int32x4_t *even = &acc[2 * pair][i], *odd = &acc[2 * pair + 1][i];
                *even = vdotq_laneq_s32(vdotq_laneq_s32(*even, first[i], a, 0), second[i], a, 1);
                *odd = vdotq_laneq_s32(vdotq_laneq_s32(*odd, first[i], a, 2), second[i], a, 3);
            }
        }
    }
}

/* Eight values of a row, twice. */
GO_INLINE int8x16_t dot_row(const int8_t *at) {
    return vreinterpretq_s8_s64(vld1q_dup_s64((const int64_t *)at));
}

/* sums[r][h] = row r times columns 4h .. 4h + 3 of a panel of int8. */
GO_INLINE void dot_few_rows_int8(int32x4_t sums[4][2], const int8_t *lhs, const uint8_t *rhs,
                                 size_t depth, const int rows) {
    int32x4_t acc[4][4];
    GO_UNROLLED (i, 4 * rows) acc[i / 4][i % 4] = vdupq_n_s32(0);
    for (size_t k = 0; k < depth; k += 8, lhs += 64, rhs += 64) {
        int8x16_t b[4];
        GO_UNROLLED (c, 4) b[c] = vld1q_s8((const int8_t *)rhs + 16 * c);
        GO_UNROLLED (r, rows) {
            const int8x16_t a = dot_row(lhs + 8 * r);
            GO_UNROLLED (c, 4) acc[r][c] = vdotq_s32(acc[r][c], b[c], a);
        }
    }
    GO_UNROLLED (i, 2 * rows)
        sums[i / 2][i % 2] = vpaddq_s32(acc[i / 2][i % 2 * 2], acc[i / 2][i % 2 * 2 + 1]);
}

/* The same of int4. The low half stays q + 8; eight times the sum of its factors is taken off
 * at the end. */
GO_INLINE void dot_few_rows_int4(int32x4_t sums[4][2], const int8_t *lhs, const uint8_t *rhs,
                                 size_t depth, const int rows) {
    int32x4_t acc[4][4], excess[4];
    GO_UNROLLED (i, 4 * rows) acc[i / 4][i % 4] = vdupq_n_s32(0);
    GO_UNROLLED (r, rows) excess[r] = vdupq_n_s32(0);
    for (size_t k = 0; k < depth; k += 16, lhs += 128, rhs += 64) {
        int8x16_t low[4], high[4];
        GO_UNROLLED (c, 4) {
            const int8x16_t both = vld1q_s8((const int8_t *)rhs + 16 * c);
            low[c] = vandq_s8(both, vdupq_n_s8(15));
            high[c] = vshrq_n_s8(both, 4);
        }
        GO_UNROLLED (r, rows) {
            const int8x16_t a = dot_row(lhs + 8 * r), next = dot_row(lhs + 64 + 8 * r);
            excess[r] = vdotq_s32(excess[r], vdupq_n_s8(-8), a);
            GO_UNROLLED (c, 4)
                acc[r][c] = vdotq_s32(vdotq_s32(acc[r][c], low[c], a), high[c], next);
        }
    }
    GO_UNROLLED (i, 2 * rows) {
        const int32x4_t *x = acc[i / 2] + i % 2 * 2, e = excess[i / 2];
        sums[i / 2][i % 2] = vaddq_s32(vpaddq_s32(x[0], x[1]), vpaddq_s32(e, e));
    }
}

#endif
