/* Quantizes four rows in a loop into half a qa8r panel: the definition in quantize_row.h
 * without its general loops. Rows that are left over go one by one. */
#ifndef GO_QUANTIZE_GROUP_H
#define GO_QUANTIZE_GROUP_H

#include <arm_neon.h>

#include "quantize_row.h"

enum { GO_QUANTIZE_GROUP = 4, GO_QUANTIZE_AT_ONCE = 8 };

enum { ROWS = 4 };

/* Values k .. k + 7 of a row of `n` values, zeros beyond its end. */
GO_INLINE float32x4x2_t load_8(const void *row, go_dtype dtype, size_t k, const int whole,
                               size_t n) {
    _Alignas(16) char edge[32] = {0};
    const void *p = go_at(row, (ptrdiff_t)k, dtype);
    if (!whole) {
        memcpy(edge, p, (n - k) * (dtype == GO_BF16 ? 2 : 4));
        p = edge;
    }
    if (dtype == GO_F32)
        return (float32x4x2_t){{vld1q_f32((const float *)p), vld1q_f32((const float *)p + 4)}};
    uint16x8_t h = vld1q_u16((const uint16_t *)p), zero = vdupq_n_u16(0);
    return (float32x4x2_t){
        {vreinterpretq_f32_u16(vzip1q_u16(zero, h)), vreinterpretq_f32_u16(vzip2q_u16(zero, h))}};
}

/* Minimum and maximum of each row and 0; NaN if the row holds one. */
typedef struct {
    float32x4_t lo, hi; /* a lane for each row */
} ranges;

GO_INLINE ranges ranges_of(const void *const rows[ROWS], go_dtype dtype, size_t k) {
    float32x4_t lo[ROWS], hi[ROWS];
    GO_UNROLLED (r, ROWS) lo[r] = hi[r] = vdupq_n_f32(0);
#define STEP(whole)                                              \
    GO_UNROLLED (r, ROWS) {                                      \
        float32x4x2_t x = load_8(rows[r], dtype, j, whole, k);   \
        lo[r] = vminq_f32(vminq_f32(lo[r], x.val[0]), x.val[1]); \
        hi[r] = vmaxq_f32(vmaxq_f32(hi[r], x.val[0]), x.val[1]); \
    }
    size_t j = 0;
    for (; j + 8 <= k; j += 8) STEP(1)
    if (j < k) STEP(0)
#undef STEP
    return (ranges){vpminq_f32(vpminq_f32(lo[0], lo[1]), vpminq_f32(lo[2], lo[3])),
                    vpmaxq_f32(vpmaxq_f32(hi[0], hi[1]), vpmaxq_f32(hi[2], hi[3]))};
}

/* go_quantizer of four rows, and go_quantizer_addend of those that are valid. */
typedef struct {
    float32x4_t s, scale, addend;
    int32x4_t zp;
    uint32x4_t valid;
    int clamped; /* whether a value may need clamping */
} quantizers;

GO_INLINE quantizers quantizers_of(ranges x) {
    const float32x4_t zero = vdupq_n_f32(0), lowest = vdupq_n_f32(GO_ROUNDER - 128);
    const float32x4_t highest = vdupq_n_f32(GO_ROUNDER + 127);
    float32x4_t range = vsubq_f32(x.hi, x.lo), s, scale, sum;
    /* A NaN, an infinity or an overflow shows in the range. */
    uint32x4_t valid = vceqq_f32(vmulq_f32(range, zero), zero);
    uint32x4_t used = vandq_u32(valid, vcgeq_f32(range, vdupq_n_f32(1e-30f)));
    s = vbslq_f32(used, vdivq_f32(vdupq_n_f32(255.0f), range), zero);
    scale = vbslq_f32(used, vdivq_f32(range, vdupq_n_f32(255.0f)), zero);
    scale = vbslq_f32(valid, scale, vdupq_n_f32(__builtin_nanf("")));
    sum = vsubq_f32(vdupq_n_f32(-128.0f), vmulq_f32(vbslq_f32(used, x.lo, zero), s));
    sum = vminq_f32(vmaxq_f32(vaddq_f32(sum, vdupq_n_f32(GO_ROUNDER)), lowest), highest);
    int32x4_t zp = vsubq_s32(vreinterpretq_s32_f32(sum), vdupq_n_s32(GO_ROUNDER_BITS));
    zp = vandq_s32(zp, vreinterpretq_s32_u32(valid));
    /* The least and the largest value show it, as rounding keeps their order: seldom, where
     * the rounding of the zero point adds up with theirs. */
    const uint32x4_t within = vandq_u32(vcgeq_f32(vfmaq_f32(sum, x.lo, s), lowest),
                                        vcleq_f32(vfmaq_f32(sum, x.hi, s), highest));
    return (quantizers){s, scale, sum, zp, valid, vminvq_u32(within) == 0};
}

/* Eight quantized values, not yet clamped. The addend comes from memory each time: the
 * multiply-add overwrites it, and a load is cheaper than a copy. */
GO_INLINE int16x8_t quantize_8(float32x4x2_t x, float s, const float addend[8]) {
    float32x4_t lo = vfmaq_n_f32(vld1q_f32(addend), x.val[0], s);
    float32x4_t hi = vfmaq_n_f32(vld1q_f32(addend + 4), x.val[1], s);
    return vuzp1q_s16(vreinterpretq_s16_f32(lo), vreinterpretq_s16_f32(hi));
}

/* Values k .. k + 7 of four rows of `n` to their place in a panel. */
GO_INLINE void quantize_8_by_4(const void *const rows[ROWS], go_dtype dtype, size_t k,
                               const int whole, size_t n, const float s[ROWS],
                               const float (*addends)[8], const int clamped, int8_t *to) {
    const size_t left = whole ? 8 : n - k;
    const int8x16_t lane = vreinterpretq_s8_u64(vdupq_n_u64(0x0706050403020100));
    const uint8x16_t exists = vcltq_s8(lane, vdupq_n_s8((int8_t)left));
    GO_OPAQUE(addends);
    GO_UNROLLED_BY (i, ROWS, 2) {
        int16x8_t a = quantize_8(load_8(rows[i], dtype, k, whole, n), s[i], addends[i]);
        int16x8_t b = quantize_8(load_8(rows[i + 1], dtype, k, whole, n), s[i + 1], addends[i + 1]);
        int8x16_t both = clamped ? vqmovn_high_s16(vqmovn_s16(a), b)
                                 : vuzp1q_s8(vreinterpretq_s8_s16(a), vreinterpretq_s8_s16(b));
        if (!whole) both = vandq_s8(both, vreinterpretq_s8_u8(exists));
        vst1q_s8(to + 8 * i, both);
    }
}

/* Rows r .. r + 3 of a panel from four rows with their quantizers. */
GO_INLINE void store_four(const void *const rows[ROWS], const quantizers *z, go_dtype dtype,
                          size_t k, int8_t *panel, size_t r) {
    size_t depth = go_qa8_depth(k), j = 0;
    float s[ROWS], addend[ROWS], addends[ROWS][8];
    int32_t valid[ROWS];
    vst1q_f32(s, z->s);
    vst1q_f32(addend, z->addend);
    vst1q_s32(valid, vreinterpretq_s32_u32(z->valid));
    for (int i = 0; i < ROWS; i++)
        for (int lane = 0; lane < 8; lane++) addends[i][lane] = addend[i];
    int8_t *const to = panel + 8 * r;
    if (z->clamped)
        for (; j + 8 <= k; j += 8) quantize_8_by_4(rows, dtype, j, 1, k, s, addends, 1, to + 8 * j);
    else
        for (; j + 8 <= k; j += 8) quantize_8_by_4(rows, dtype, j, 1, k, s, addends, 0, to + 8 * j);
    if (j < k) quantize_8_by_4(rows, dtype, j, 0, k, s, addends, 1, to + 8 * j), j += 8;
    for (; j < depth; j += 8) memset(to + 8 * j, 0, 8 * ROWS);
    for (int i = 0; i < ROWS; i++)
        for (j = valid[i] ? depth : 0; j < depth; j += 8) memset(to + 8 * j + 8 * i, 0, 8);
    int32_t *tail = (int32_t *)(panel + 8 * depth) + 2 * r;
    int32x4_t neg_zp = vnegq_s32(z->zp);
    vst1q_s32(tail, vzip1q_s32(neg_zp, neg_zp));
    vst1q_s32(tail + 4, vzip2q_s32(neg_zp, neg_zp));
    vst1q_f32((float *)tail + 16, vzip1q_f32(z->scale, z->scale));
    vst1q_f32((float *)tail + 20, vzip2q_f32(z->scale, z->scale));
}

/* At most two times four rows, `stride` values apart, to rows r .. of a panel. All quantizers
 * come first: while one is computed, which takes long, the other four rows are read. */
GO_INLINE void quantize_fours(const void *src, ptrdiff_t stride, go_dtype dtype, size_t k,
                              int8_t *panel, size_t r, size_t fours) {
    const void *rows[2][ROWS];
    quantizers z[2];
    for (size_t f = 0; f < fours; f++) {
        for (int i = 0; i < ROWS; i++)
            rows[f][i] = go_at(src, ((ptrdiff_t)f * ROWS + i) * stride, dtype);
        z[f] = quantizers_of(ranges_of(rows[f], dtype, k));
    }
    for (size_t f = 0; f < fours; f++) store_four(rows[f], &z[f], dtype, k, panel, r + f * ROWS);
}

GO_INLINE void go_quantize_group(const void *src, ptrdiff_t stride, go_dtype dtype, size_t k,
                                 int8_t *panel, size_t r, size_t count) {
    size_t i = count / ROWS * ROWS;
    quantize_fours(src, stride, dtype, k, panel, r, i / ROWS);
    for (; i < count; i++)
        go_quantize_row(go_at(src, (ptrdiff_t)i * stride, dtype), dtype, k, panel, r + i);
}

#endif
