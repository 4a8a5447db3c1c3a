/* int4 weights times two to four rows: as many SMMLA as one row of qs4_row.h takes for each
 * pair of rows, and two more operations that take the weights apart. The low half stays
 * l + 8; eight times the sums of the rows is taken off where accumulators start. */
#include "qs4_row.h"

enum { QS4_PAIR_ROWS = 4 };

/* What is derived from the rows. */
typedef struct {
    _Alignas(64) int32_t starts[2][QS4_ROW_DEPTH / 32 * 4]; /* by pair; [block][4] */
    go_qa8_row tails[QS4_PAIR_ROWS];
} qs4_pairs;

GO_INLINE void qs4_pairs_prepare(qs4_pairs *rows, const go_gemm_args *args, const go_qs4_layout *w,
                                 const int blocks) {
    const int8_t *panel = (const int8_t *)args->lhs;
    for (int p = 0; p < 2; p++) memset(rows->starts[p], 0, 16); /* of a depth of 0 */
    for (size_t k = 0, b = 0; k < w->depth; b++) {
        int32x4_t start[2] = {vdupq_n_s32(blocks ? QS4_FIRST : 0)};
        start[1] = start[0];
        for (size_t end = k + w->group; k < end; k += 16)
            for (int p = 0; p < 2; p++)
                start[p] = vmmlaq_s32(start[p], vdupq_n_s8(-8), vld1q_s8(panel + 8 * k + 16 * p));
        for (int p = 0; p < 2; p++) vst1q_s32(rows->starts[p] + 4 * b, start[p]);
    }
    for (size_t r = 0; r < QS4_PAIR_ROWS; r++) rows->tails[r] = go_qa8_row_tail(panel, r, w->depth);
}

/* sums[p][c] += columns 2c and 2c + 1 times rows 2p and 2p + 1. */
GO_INLINE void qs4_pairs_sums(int32x4_t sums[2][4], const int8_t *lhs, const uint8_t *rhs,
                              size_t depth, const int pairs) {
    for (size_t k = 0; k < depth; k += 16, lhs += 128, rhs += 64) {
        GO_UNROLLED (c, 4) {
            const int8x16_t w = vld1q_s8((const int8_t *)rhs + 16 * c);
            const int8x16_t low = vandq_s8(w, vdupq_n_s8(15)), high = vshrq_n_s8(w, 4);
            GO_UNROLLED (p, pairs) {
                sums[p][c] = vmmlaq_s32(sums[p][c], low, vld1q_s8(lhs + 16 * p));
                sums[p][c] = vmmlaq_s32(sums[p][c], high, vld1q_s8(lhs + 64 + 16 * p));
            }
        }
    }
}

/* Two rows of eight columns from pairs of columns times a pair of rows. */
GO_INLINE void qs4_pairs_store(float *y, const float32x4_t v[4]) {
    GO_UNROLLED (h, 2) {
        vst1q_f32(y + 4 * h, vuzp1q_f32(v[2 * h], v[2 * h + 1]));
        vst1q_f32(y + 16 + 4 * h, vuzp2q_f32(v[2 * h], v[2 * h + 1]));
    }
}

/* y[16 r + c] = results of eight columns before the activation, with a scale a block. */
GO_INLINE void qs4b_pairs_panel(const qs4_pairs *rows, const int8_t *lhs, const go_qs4_layout *w,
                                const uint8_t *panel, const float *bias, float *y,
                                const int pairs) {
    const uint16_t *scales = go_qs4b_scales(panel, w);
    float32x4_t acc[2][4];
    GO_UNROLLED (i, 8) acc[i / 4][i % 4] = vdupq_n_f32(0);
    for (size_t k = 0, b = 0; k < w->depth; k += w->group, b++) {
        int32x4_t sums[2][4];
        GO_UNROLLED (p, pairs) {
            const int32_t *start = rows->starts[p] + 4 * b;
            GO_UNROLLED (c, 4) { /* loads are cheaper than copies of a register */
                GO_OPAQUE(start);
                sums[p][c] = vld1q_s32(start);
            }
        }
        qs4_pairs_sums(sums, lhs + 8 * k, panel + 4 * k, w->group, pairs);
        GO_UNROLLED (c, 4) {
            /* Bytes `first`, first + 1 are a scale, first + 4, first + 5 that of the next column;
             * each becomes a float, twice. */
            const uint64_t first = 0x0101000001010000 * (uint64_t)(c % 2 * 8 + c / 2 * 2);
            const uint8x16_t at = vreinterpretq_u8_u64(vcombine_u64(
                vcreate_u64(0x0100ffff0100ffff + first), vcreate_u64(0x0504ffff0504ffff + first)));
            const uint8x16_t bits = vreinterpretq_u8_u16(vld1q_u16(scales + 8 * b));
            const float32x4_t scale = vreinterpretq_f32_u8(vqtbl1q_u8(bits, at));
            GO_UNROLLED (p, pairs) {
                float32x4_t sum = vreinterpretq_f32_s32(sums[p][c]);
                sum = vsubq_f32(sum, vdupq_n_f32(12582912.0f));
                acc[p][c] = vfmaq_f32(acc[p][c], sum, scale);
            }
        }
    }
    const float *shifts = go_qs4b_shifts(panel, w);
    GO_UNROLLED (p, pairs) {
        qs4_pairs_store(y + 32 * p, acc[p]);
        GO_UNROLLED (i, 4) {
            const go_qa8_row *row = &rows->tails[2 * p + i / 2];
            float *at = y + 32 * p + i / 2 * 16 + i % 2 * 4;
            float32x4_t v = vld1q_f32(at);
            v = vfmaq_n_f32(v, vld1q_f32(shifts + i % 2 * 4), (float)row->neg_zp);
            vst1q_f32(at, vfmaq_n_f32(vld1q_f32(bias + i % 2 * 4), v, row->scale));
        }
    }
}

/* The same with one scale a column. */
GO_INLINE void qs4c_pairs_panel(const qs4_pairs *rows, const int8_t *lhs, const go_qs4_layout *w,
                                const uint8_t *panel, const float *bias, float *y,
                                const int pairs) {
    const int32_t *sum_of_q = (const int32_t *)(panel + w->body);
    const float *scales = (const float *)sum_of_q + 8;
    int32x4_t sums[2][4];
    GO_UNROLLED (i, 8) sums[i / 4][i % 4] = vld1q_s32(rows->starts[i / 4]);
    qs4_pairs_sums(sums, lhs, panel, w->depth, pairs);
    GO_UNROLLED (p, pairs) {
        float32x4_t bits[4];
        GO_UNROLLED (c, 4) bits[c] = vreinterpretq_f32_s32(sums[p][c]);
        qs4_pairs_store(y + 32 * p, bits);
        GO_UNROLLED (i, 4) {
            const go_qa8_row *row = &rows->tails[2 * p + i / 2];
            float *at = y + 32 * p + i / 2 * 16 + i % 2 * 4;
            int32x4_t sum = vreinterpretq_s32_f32(vld1q_f32(at));
            sum = vmlaq_n_s32(sum, vld1q_s32(sum_of_q + i % 2 * 4), row->neg_zp);
            const float32x4_t scale = vmulq_n_f32(vld1q_f32(scales + i % 2 * 4), row->scale);
            vst1q_f32(at, vfmaq_f32(vld1q_f32(bias + i % 2 * 4), vcvtq_f32_s32(sum), scale));
        }
    }
}
