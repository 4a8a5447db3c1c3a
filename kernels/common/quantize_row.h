/* Dynamic int8 quantization of f32 rows into qa8r panels ("qa8r": asymmetric,
 * 8 bits, one scale and zero point per row). The arithmetic is the definition of
 * quantize_rows in kernels/reference.py, bit for bit; the panel layout is that
 * of kernels/packing.py.
 *
 * Use: go_range_init, go_range_add for every 16 values, go_quantizer_of_range,
 * then go_quantize_store for every 16 values (the last one partial) and
 * go_qa8_finish_row. A kernel that computes its row on the fly (norm) may do the
 * second half in a second pass.
 */
#ifndef GO_QUANTIZE_ROW_H
#define GO_QUANTIZE_ROW_H

#include "go_vec.h"
#include "layouts.h"

GO_INLINE size_t go_qa8_depth(size_t k) { return (k + 31) / 32 * 32; }

GO_INLINE size_t go_qa8_panel_bytes(size_t k) { return GO_QA8_MR * (go_qa8_depth(k) + 16); }

/* Running minimum, maximum (both starting at 0) and lanes that turn NaN when a value is
 * not finite, unless the first two show it. */
typedef struct {
    go_f32x16 lo, hi, finite;
} go_range;

typedef struct {
    float s, scale; /* q = rint(x * s + zp), x ~ scale * (q - zp) */
    int32_t zp;
    int valid; /* 0: the row holds NaN or Inf, or its range overflows */
} go_quantizer;

GO_INLINE go_range go_range_init(void) { return (go_range){go_zero(), go_zero(), go_zero()}; }

GO_INLINE void go_range_add(go_range *r, go_f32x16 v) {
#if defined(__aarch64__) && defined(__clang__) /* one instruction each, which keeps NaN */
    r->lo = __builtin_elementwise_minimum(v, r->lo);
    r->hi = __builtin_elementwise_maximum(v, r->hi);
#else
    r->lo = go_min_skip_nan(v, r->lo);
    r->hi = go_max_skip_nan(v, r->hi);
    r->finite = go_fma(v, go_zero(), r->finite);
#endif
}

/* Lowest and highest value, and 0 or, if a value is not finite, perhaps NaN. */
typedef struct {
    float lo, hi, finite;
} go_limits;

GO_INLINE go_limits go_range_limits(const go_range *r) {
#if defined(__aarch64__) && defined(__clang__)
    float lo = __builtin_reduce_minimum(r->lo), hi = __builtin_reduce_maximum(r->hi);
#else
    float lo = -go_fold_max(-r->lo), hi = go_fold_max(r->hi);
#endif
    return (go_limits){lo, hi, go_sum(r->finite)};
}

/* The quantizer of quantize_heads in kernels/reference.py: zp = 0, q in [-127, 127]. */
GO_INLINE go_quantizer go_symmetric_quantizer(const go_range *r) {
    const go_limits m = go_range_limits(r);
    const float top = m.hi > -m.lo ? m.hi : -m.lo;
    if (m.finite + top * 0.0f != 0.0f) return (go_quantizer){0.0f, __builtin_nanf(""), 0, 0};
    if (top < 5e-31f) return (go_quantizer){0.0f, 0.0f, 0, 1};
    return (go_quantizer){127.0f / top, top / 127.0f, 0, 1};
}

GO_INLINE go_quantizer go_quantizer_of_limits(go_limits m) {
    const float lo = m.lo, range = m.hi - lo, finite = m.finite + range * 0.0f;
    if (finite != 0.0f) return (go_quantizer){0.0f, __builtin_nanf(""), 0, 0};
    if (range < 1e-30f) return (go_quantizer){0.0f, 0.0f, -128, 1};
    float s = 255.0f / range;
    /* 0 <= -lo * s <= 255 up to rounding, so the small rint is in range. */
    float zp = go_rint_small(go_splat(-128.0f - lo * s))[0];
    zp = zp < -128.0f ? -128.0f : zp > 127.0f ? 127.0f : zp;
    return (go_quantizer){s, range / 255.0f, (int32_t)zp, 1};
}

GO_INLINE go_quantizer go_quantizer_of_range(const go_range *r) {
    return go_quantizer_of_limits(go_range_limits(r));
}

/* 1.5 * 2^23 and its bits: floats of this size are integers, and consecutive ones differ by
 * 1 in their bits. The low half of the bits is 0. */
#define GO_ROUNDER 12582912.0f
enum { GO_ROUNDER_BITS = 0x4b400000 };

/* What x * s is added to: the sum, rounded once, is q before it is clamped. */
GO_INLINE float go_quantizer_addend(const go_quantizer *z) { return GO_ROUNDER + (float)z->zp; }

/* Sixteen quantized values as integers; 0 in rows that are not valid. */
GO_INLINE go_i32x16 go_quantize16(const go_quantizer *z, go_f32x16 v) {
    if (!z->valid) return (go_i32x16){0};
    go_f32x16 sum = go_fma(v, go_splat(z->s), go_splat(go_quantizer_addend(z)));
    go_i32x16 q = (go_i32x16)sum - GO_ROUNDER_BITS;
    const go_i32x16 below = q < -128, above = q > 127;
    q = (below & -128) | (~below & q);
    return (above & 127) | (~above & q);
}

/* The same as bytes, by way of 16-bit integers. Rows that are not valid get anything. */
GO_INLINE go_i8x16 go_quantize_bytes(const go_quantizer *z, go_f32x16 v) {
    go_f32x16 sum = go_fma(v, go_splat(z->s), go_splat(go_quantizer_addend(z)));
    go_i16x16 q = __builtin_convertvector((go_i32x16)sum, go_i16x16);
    const go_i16x16 below = q < -128, above = q > 127;
    q = (below & -128) | (~below & q);
    q = (above & 127) | (~above & q);
    return __builtin_convertvector(q, go_i8x16);
}

/* Where value j of row r of a panel lies; values of one KR group are adjacent. */
GO_INLINE size_t go_qa8_offset(size_t r, size_t j) {
    return j / GO_QA8_KR * (GO_QA8_MR * GO_QA8_KR) + r * GO_QA8_KR + j % GO_QA8_KR;
}

/* Quantizes values j .. j + n - 1 (j a multiple of 16, n <= 16) of row r; values
 * beyond n are stored as 0. Adds what it stored to *sum (MR = 1). */
GO_INLINE void go_quantize_store(const go_quantizer *z, int8_t *panel, size_t r, size_t j,
                                 go_f32x16 v, size_t n, go_i32x16 *sum) {
    static const int32_t lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const go_i32x16 exists = go_load_i32(lane) < go_splat_i32((int32_t)n);
    if (GO_QA8_MR == 1) {
        go_i32x16 q = go_quantize16(z, v);
        if (n < GO_LANES) q &= exists;
        *sum += q;
        *(go_i8x16_mem *)(panel + j) = __builtin_convertvector(q, go_i8x16);
    } else { /* tails without sums */
        go_i8x16 bytes = go_quantize_bytes(z, v);
        if (n < GO_LANES) bytes &= __builtin_convertvector(exists, go_i8x16);
        memcpy(panel + go_qa8_offset(r, j), &bytes, 8);
        memcpy(panel + go_qa8_offset(r, j + 8), (const char *)&bytes + 8, 8);
    }
}

/* Writes the tail of row r: -zp, sum of q, scale, 0 (MR = 1), or -zp twice and scale
 * twice, which is how the 2 x 2 sums of a matrix multiply-add want them. */
GO_INLINE void go_qa8_store_tail(int8_t *panel, size_t r, size_t depth, int32_t neg_zp, int32_t sum,
                                 float scale) {
    int32_t bits, *word = (int32_t *)(panel + GO_QA8_MR * depth);
    memcpy(&bits, &scale, sizeof bits);
    if (GO_QA8_MR == 1) {
        memcpy(word, (int32_t[4]){neg_zp, sum, bits, 0}, 16);
    } else {
        memcpy(word + 2 * r, (int32_t[2]){neg_zp, neg_zp}, 8);
        memcpy(word + 2 * (GO_QA8_MR + r), (int32_t[2]){bits, bits}, 8);
    }
}

/* Zeroes the padding of row r beyond its last group of 16, or all of a row that is not
 * valid, and writes its tail. */
GO_INLINE void go_qa8_finish_row(const go_quantizer *z, int8_t *panel, size_t r, size_t k,
                                 go_i32x16 sum) {
    size_t depth = go_qa8_depth(k);
    for (size_t j = z->valid ? (k + 15) / 16 * 16 : 0; j < depth; j += GO_QA8_KR)
        memset(panel + go_qa8_offset(r, j), 0, GO_QA8_KR);
    go_qa8_store_tail(panel, r, depth, -z->zp, go_sum_i32(sum), z->scale);
}

/* Before a task packs rows begin .. end - 1 of `rows`: zeroes what they leave of the last
 * panel. Where no other task has rows of it, one stream of zeros costs less than the places
 * between the rows. */
GO_INLINE void go_qa8_begin_rows(int8_t *packed, size_t begin, size_t end, size_t rows, size_t k) {
    const size_t filled = rows % GO_QA8_MR, depth = go_qa8_depth(k);
    if (end < rows || filled == 0) return;
    int8_t *panel = packed + rows / GO_QA8_MR * go_qa8_panel_bytes(k);
    if (begin <= rows - filled) {
        memset(panel, 0, go_qa8_panel_bytes(k));
        return;
    }
    for (size_t j = 0; j < depth; j += GO_QA8_KR)
        memset(panel + go_qa8_offset(filled, j), 0, (GO_QA8_MR - filled) * GO_QA8_KR);
    for (size_t r = filled; r < GO_QA8_MR; r++) go_qa8_store_tail(panel, r, depth, 0, 0, 0.0f);
}

/* A whole row held in memory as f32 or bf16. */
GO_INLINE void go_quantize_row(const void *src, go_dtype dtype, size_t k, int8_t *panel, size_t r) {
    go_range range = go_range_init();
    size_t full = k / GO_LANES * GO_LANES;
    for (size_t j = 0; j < full; j += GO_LANES)
        go_range_add(&range, go_load_as(src, (ptrdiff_t)j, dtype, GO_LANES));
    if (full < k) go_range_add(&range, go_load_as(src, (ptrdiff_t)full, dtype, k - full));
    go_quantizer z = go_quantizer_of_range(&range);
    go_i32x16 sum = {0};
    for (size_t j = 0; j < full; j += GO_LANES)
        go_quantize_store(&z, panel, r, j, go_load_as(src, (ptrdiff_t)j, dtype, GO_LANES), GO_LANES,
                          &sum);
    if (full < k)
        go_quantize_store(&z, panel, r, full, go_load_as(src, (ptrdiff_t)full, dtype, k - full),
                          k - full, &sum);
    go_qa8_finish_row(&z, panel, r, k, sum);
}

#endif
