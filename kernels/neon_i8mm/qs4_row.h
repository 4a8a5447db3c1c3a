/* int4 weights times one row, as in decoding: what limits it in cache is the number of
 * vector instructions for each 16 bytes of weights, here three, or less where integer
 * registers do a part of them.
 *
 * A byte of weights is w = 16 h + l + 8 (kernels/packing.py), its complement with all low
 * bits set is n = -16 h - 1. Of the two rows that SMMLA multiplies, the first takes what
 * belongs to l and the second what belongs to h, both in the same accumulator:
 *
 *   first   sum a_l w + sum a_l n = sum a_l l + 7 sum a_l
 *   second              sum a_h n = -16 sum a_h h - sum a_h
 *
 * The sums of a alone are constants of a block, with which accumulators start.
 */
#include "gemm_qs4.h"
#include "qs4b_scales.h"

enum {
    QS4_ROW_DEPTH = 24576,    /* no longer rows */
    QS4_EXACT_GROUP = 256,    /* sums of blocks up to this become floats by magic numbers */
    QS4_FIRST = 0x4b400000,   /* the bits of 1.5 * 2^23: plus an integer, that many more */
    QS4_SECOND = -0x36c00000, /* of -1.5 * 2^19: plus an integer, that many 16ths less */
};

/* A row with what is derived from it. */
typedef struct {
    _Alignas(64) int8_t values[2 * QS4_ROW_DEPTH];       /* [k/16]: a_l, 0, a_l, a_h */
    _Alignas(64) int32_t starts[QS4_ROW_DEPTH / 32 * 4]; /* of accumulators, [block] */
    go_qa8_row tail;
} qs4_row;

GO_INLINE void qs4_row_prepare(qs4_row *row, const go_gemm_args *args, const go_qs4_layout *w,
                               int magic) {
    const int8_t *panel = (const int8_t *)args->lhs;
    const int32_t first[4] = {QS4_FIRST, QS4_SECOND, QS4_FIRST, QS4_SECOND};
    memset(row->starts, 0, 16); /* of a depth of 0 */
    for (size_t k = 0, b = 0; k < w->depth; b++) {
        int32x4_t start = magic ? vld1q_s32(first) : vdupq_n_s32(0);
        for (size_t end = k + w->group; k < end; k += 16) {
            const int8x8_t a_l = vld1_s8(panel + 8 * k), a_h = vld1_s8(panel + 8 * k + 64);
            const int8x16_t low = vcombine_s8(a_l, vdup_n_s8(0)), both = vcombine_s8(a_l, a_h);
            start = vmmlaq_s32(start, vdupq_n_s8(-8), low);
            start = vmmlaq_s32(start, vdupq_n_s8(1), both);
            vst1q_s8(row->values + 2 * k, low);
            vst1q_s8(row->values + 2 * k + 16, both);
        }
        vst1q_s32(row->starts + 4 * b, start);
    }
    row->tail = go_qa8_row_tail(panel, 0, w->depth);
}

/* Whether n of vector i of two panels is made in integer registers and goes through memory
 * to a vector register: cores with SVE2 and two vector pipes (Neoverse N2) have more of
 * everything else, and up to three of eight cost those with four (V2) little, which wait
 * for loads then. A load of all that one store has just written is forwarded from it. */
GO_INLINE int qs4_row_is_apart(int i) {
#if defined(__ARM_FEATURE_SVE2)
    return i % 3 == 0;
#else
    return i < 0;
#endif
}

/* to[..15] = n of 16 bytes of weights. */
GO_INLINE void qs4_row_complement(int8_t *to, const uint8_t *weights, uint64_t low_bits) {
    uint64_t n[2];
    memcpy(n, weights, sizeof n);
    GO_UNROLLED (i, 2) {
        n[i] = low_bits | ~n[i];
        GO_OPAQUE(n[i]); /* else a vector register */
    }
    memcpy(to, n, sizeof n);
}

/* sums[p][c]: of columns 2c and 2c + 1 of panel p, each for l and for h. */
GO_INLINE void qs4_row_sums(int32x4_t sums[2][4], const int8_t *values, const uint8_t *const rhs[2],
                            size_t depth, const int panels) {
    const uint8_t *w[2] = {rhs[0], rhs[1]};
    const int8x16_t low_bits = vdupq_n_s8(15);
    uint64_t low_bits_64 = 0x0f0f0f0f0f0f0f0f;
    _Alignas(16) int8_t apart[8][16];
    const int8_t *stored = apart[0];
    GO_OPAQUE(low_bits_64);
    for (size_t k = 0; k < depth; k += 16, values += 32) {
        const int8x16_t low = vld1q_s8(values), both = vld1q_s8(values + 16);
        GO_UNROLLED (i, 4 * panels)
            if (qs4_row_is_apart(i))
                qs4_row_complement(apart[i], w[i / 4] + i % 4 * 16, low_bits_64);
        GO_OPAQUE(stored);
        GO_UNROLLED (i, 4 * panels) {
            int32x4_t *const sum = &sums[i / 4][i % 4];
            const int8x16_t pairs = vld1q_s8((const int8_t *)w[i / 4] + i % 4 * 16);
            const int8x16_t n =
                qs4_row_is_apart(i) ? vld1q_s8(stored + 16 * i) : vornq_s8(low_bits, pairs);
            *sum = vmmlaq_s32(*sum, pairs, low);
            *sum = vmmlaq_s32(*sum, n, both);
        }
        GO_UNROLLED (p, panels) w[p] += 64;
    }
}

/* The sums over l and h of four columns. */
GO_INLINE int32x4_t qs4_row_total(int32x4_t x, int32x4_t y) {
    return vsubq_s32(vuzp1q_s32(x, y), vshrq_n_s32(vuzp2q_s32(x, y), 4));
}

/* The same as floats: exact, for both addends and their sum are integers below 2^24. */
GO_INLINE float32x4_t qs4_row_float(int32x4_t x, int32x4_t y, const int magic) {
    if (!magic) return vcvtq_f32_s32(qs4_row_total(x, y));
    const float32x4_t both = vpaddq_f32(vreinterpretq_f32_s32(x), vreinterpretq_f32_s32(y));
    return vsubq_f32(both, vdupq_n_f32(12582912.0f - 786432.0f));
}

/* y[c] = results of 8 or 16 columns before the activation, with a scale for each block. */
GO_INLINE void qs4b_row_panels(const qs4_row *row, const go_qs4_layout *w,
                               const uint8_t *const panel[2], const float *bias, float *y,
                               const int panels, const int magic) {
    float32x4_t acc[4];
    const uint16_t *scales[2];
    GO_UNROLLED (i, 4) acc[i] = vdupq_n_f32(0);
    GO_UNROLLED (p, panels) scales[p] = go_qs4b_scales(panel[p], w);
    const int32_t *start = row->starts;
    for (size_t k = 0; k < w->depth; k += w->group, start += 4) {
        const uint8_t *const rhs[2] = {panel[0] + 4 * k, panel[1] + 4 * k};
        int32x4_t sums[2][4];
        GO_UNROLLED (i, 8) { /* loads are cheaper than copies of a register */
            GO_OPAQUE(start);
            sums[i / 4][i % 4] = vld1q_s32(start);
        }
        qs4_row_sums(sums, row->values + 2 * k, rhs, w->group, panels);
        GO_UNROLLED (p, panels) {
            GO_UNROLLED (h, 2) {
                const int32x4_t *x = sums[p] + 2 * h;
                acc[2 * p + h] = vfmaq_f32(acc[2 * p + h], qs4_row_float(x[0], x[1], magic),
                                           go_qs4b_four_scales(scales[p], h));
            }
            scales[p] += 8;
        }
    }
    GO_UNROLLED (i, 2 * panels) {
        const float *shifts = go_qs4b_shifts(panel[i / 2], w) + i % 2 * 4;
        acc[i] = vfmaq_n_f32(acc[i], vld1q_f32(shifts), (float)row->tail.neg_zp);
        vst1q_f32(y + 4 * i, vfmaq_n_f32(vld1q_f32(bias + 4 * i), acc[i], row->tail.scale));
    }
}

/* The same with one scale a column. */
GO_INLINE void qs4c_row_panels(const qs4_row *row, const go_qs4_layout *w,
                               const uint8_t *const panel[2], const float *bias, float *y,
                               const int panels) {
    int32x4_t sums[2][4];
    GO_UNROLLED (i, 8) sums[i / 4][i % 4] = vld1q_s32(row->starts);
    qs4_row_sums(sums, row->values, panel, w->depth, panels);
    GO_UNROLLED (i, 2 * panels) {
        const int32_t *column = (const int32_t *)(panel[i / 2] + w->body) + i % 2 * 4;
        int32x4_t sum = qs4_row_total(sums[i / 2][i % 2 * 2], sums[i / 2][i % 2 * 2 + 1]);
        sum = vmlaq_n_s32(sum, vld1q_s32(column), row->tail.neg_zp);
        const float32x4_t scale =
            vmulq_n_f32(vld1q_f32((const float *)column + 8), row->tail.scale);
        vst1q_f32(y + 4 * i, vfmaq_f32(vld1q_f32(bias + 4 * i), vcvtq_f32_s32(sum), scale));
    }
}
