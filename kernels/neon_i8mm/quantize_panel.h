/* Quantizes eight rows into one qa8r panel: the definition in quantize_row.h, four rows
 * at a time and without its general loops. */
#include <arm_neon.h>

#include "quantize_row.h"

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

/* go_quantizer of four rows. */
typedef struct {
    float32x4_t s, scale;
    int32x4_t zp;
    uint32x4_t valid;
} quantizers;

GO_INLINE quantizers quantizers_of(ranges x) {
    const float32x4_t magic = vdupq_n_f32(12582912.0f), zero = vdupq_n_f32(0);
    float32x4_t range = vsubq_f32(x.hi, x.lo), s, scale, zp;
    /* A NaN, an infinity or an overflow shows in the range. */
    uint32x4_t valid = vceqq_f32(vmulq_f32(range, zero), zero);
    uint32x4_t used = vandq_u32(valid, vcgeq_f32(range, vdupq_n_f32(1e-30f)));
    s = vbslq_f32(used, vdivq_f32(vdupq_n_f32(255.0f), range), zero);
    scale = vbslq_f32(used, vdivq_f32(range, vdupq_n_f32(255.0f)), zero);
    scale = vbslq_f32(valid, scale, vdupq_n_f32(__builtin_nanf("")));
    zp = vsubq_f32(vdupq_n_f32(-128.0f), vmulq_f32(vbslq_f32(used, x.lo, zero), s));
    zp = vsubq_f32(vaddq_f32(zp, magic), magic);
    zp = vminq_f32(vmaxq_f32(zp, vdupq_n_f32(-128.0f)), vdupq_n_f32(127.0f));
    int32x4_t zeros = vandq_s32(vcvtq_s32_f32(zp), vreinterpretq_s32_u32(valid));
    return (quantizers){s, scale, zeros, valid};
}

/* rint(x * s) of eight values as 16-bit integers: the low half of the bits of x * s +
 * 1.5 * 2^23, for |x * s| < 2^15. */
GO_INLINE int16x8_t rint_8(float32x4x2_t x, float s) {
    const float32x4_t magic = vdupq_n_f32(12582912.0f);
    float32x4_t lo = vaddq_f32(vmulq_n_f32(x.val[0], s), magic);
    float32x4_t hi = vaddq_f32(vmulq_n_f32(x.val[1], s), magic);
    return vuzp1q_s16(vreinterpretq_s16_f32(lo), vreinterpretq_s16_f32(hi));
}

/* Values k .. k + 7 of four rows of `n` to their place in a panel. */
GO_INLINE void quantize_8_by_4(const void *const rows[ROWS], go_dtype dtype, size_t k,
                               const int whole, size_t n, const float s[ROWS],
                               const int16x8_t zp[ROWS], int8_t *to) {
    const size_t left = whole ? 8 : n - k;
    const int8x16_t lane = vreinterpretq_s8_u64(vdupq_n_u64(0x0706050403020100));
    const uint8x16_t exists = vcltq_s8(lane, vdupq_n_s8((int8_t)left));
    GO_UNROLLED_BY (i, ROWS, 2) {
        int16x8_t a = rint_8(load_8(rows[i], dtype, k, whole, n), s[i]);
        int16x8_t b = rint_8(load_8(rows[i + 1], dtype, k, whole, n), s[i + 1]);
        int8x8_t q = vqmovn_s16(vaddq_s16(a, zp[i]));
        int8x16_t both = vqmovn_high_s16(q, vaddq_s16(b, zp[i + 1]));
        if (!whole) both = vandq_s8(both, vreinterpretq_s8_u8(exists));
        vst1q_s8(to + 8 * i, both);
    }
}

/* Rows r .. r + 3 of a panel. */
GO_INLINE void quantize_4_rows(const void *const rows[ROWS], go_dtype dtype, size_t k,
                               int8_t *panel, size_t r) {
    const size_t depth = go_qa8_depth(k);
    const quantizers z = quantizers_of(ranges_of(rows, dtype, k));
    float s[ROWS];
    int32_t zp[ROWS], valid[ROWS];
    int16x8_t zps[ROWS];
    vst1q_f32(s, z.s);
    vst1q_s32(zp, z.zp);
    vst1q_s32(valid, vreinterpretq_s32_u32(z.valid));
    for (int i = 0; i < ROWS; i++) zps[i] = vdupq_n_s16((int16_t)zp[i]);
    int8_t *const to = panel + 8 * r;
    size_t j = 0;
    for (; j + 8 <= k; j += 8) quantize_8_by_4(rows, dtype, j, 1, k, s, zps, to + 8 * j);
    if (j < k) quantize_8_by_4(rows, dtype, j, 0, k, s, zps, to + 8 * j), j += 8;
    for (; j < depth; j += 8) memset(to + 8 * j, 0, 8 * ROWS);
    for (int i = 0; i < ROWS; i++)
        for (j = valid[i] ? depth : 0; j < depth; j += 8) memset(to + 8 * j + 8 * i, 0, 8);
    int32_t *tail = (int32_t *)(panel + 8 * depth) + 2 * r;
    int32x4_t neg_zp = vnegq_s32(z.zp);
    vst1q_s32(tail, vzip1q_s32(neg_zp, neg_zp));
    vst1q_s32(tail + 4, vzip2q_s32(neg_zp, neg_zp));
    vst1q_f32((float *)tail + 16, vzip1q_f32(z.scale, z.scale));
    vst1q_f32((float *)tail + 20, vzip2q_f32(z.scale, z.scale));
}

/* The panel that starts with row `first`. */
GO_INLINE void quantize_panel(const go_pack_lhs_args *args, size_t first, go_dtype dtype) {
    int8_t *panel = (int8_t *)args->dst + first / 8 * go_qa8_panel_bytes(args->k);
    const size_t left = args->m - first, exist = left < 8 ? left : 8;
    const void *rows[8];
    for (size_t r = 0; r < exist; r++)
        rows[r] = go_at(args->src, (ptrdiff_t)(first + r) * args->src_stride, dtype);
    size_t r = 0;
    go_qa8_begin_row(panel, first, args->m, args->k);
    for (; r + ROWS <= exist; r += ROWS) quantize_4_rows(rows + r, dtype, args->k, panel, r);
    for (; r < exist; r++) go_quantize_row(rows[r], dtype, args->k, panel, r);
}

/* Defines the kernel `symbol`. */
#define GO_QUANTIZE_ROWS(symbol)                                   \
    void symbol(go_team *team, const go_pack_lhs_args *args);      \
    void symbol(go_team *team, const go_pack_lhs_args *args) {     \
        for (size_t task; (task = go_next(team)) * 8 < args->m;) { \
            if (args->src_dtype == GO_BF16)                        \
                quantize_panel(args, task * 8, GO_BF16);           \
            else                                                   \
                quantize_panel(args, task * 8, GO_F32);            \
        }                                                          \
    }
