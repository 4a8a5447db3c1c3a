/* go_norm: layer norm or RMS norm over the rows of a matrix.
 *
 * layer: mean = sum x / cols;  var = sum (x - mean)^2 / cols  (two passes)
 * rms:   mean = 0;             var = sum x^2 / cols
 * y = (x - mean) * (1 / sqrt(var + eps)), then * weight + bias as one fused
 * multiply-add (a product or a sum where only one of them is given).
 * Sums run over 16 lanes, folded in the order of go_sum. A NaN or an infinity
 * makes the whole row NaN under layer norm, as in torch.
 *
 * With `packed`, y (as f32, before any rounding to bf16) is also quantized into
 * qa8r panels, a few rows at once while they are in the first cache.
 */
#include "go_vec_math.h"
#include "quantize_rows.h"
#include "rows.h"

typedef struct {
    float mean, scale;
} row_stats;

/* What makes loops without a branch: layer norm and RMS norm as models have them. */
typedef enum {
    OTHER,
    LAYER, /* weight and bias (under RMS norm with a mean of 0) */
    RMS,   /* weight alone */
} norm_kind;

GO_INLINE float row_mean(const void *src, size_t cols, go_dtype t) {
    go_f32x16 sum = go_zero();
    size_t c = 0;
    for (; c + GO_LANES <= cols; c += GO_LANES) sum += go_load_as(src, (ptrdiff_t)c, t, GO_LANES);
    if (c < cols) sum += go_load_as(src, (ptrdiff_t)c, t, cols - c);
    return go_sum(sum) / (float)cols;
}

/* x - mean; there is none under RMS norm. */
GO_INLINE go_f32x16 centred(go_f32x16 x, float mean, const norm_kind kind) {
    return kind == RMS ? x : x - go_splat(mean);
}

GO_INLINE float row_scale(const go_norm_args *a, const void *src, float mean, go_dtype t,
                          const norm_kind kind) {
    size_t c = 0, cols = a->cols;
    go_f32x16 sum = go_zero();
    for (; c + GO_LANES <= cols; c += GO_LANES) {
        go_f32x16 d = centred(go_load_as(src, (ptrdiff_t)c, t, GO_LANES), mean, kind);
        sum = go_fma(d, d, sum);
    }
    if (c < cols) {
        go_f32x16 d = centred(go_load_as(src, (ptrdiff_t)c, t, cols - c), mean, kind);
        d = go_keep_lanes(d, cols - c, 0.0f);
        sum = go_fma(d, d, sum);
    }
    return go_rsqrtf(go_sum(sum) / (float)cols + a->eps);
}

/* First all means: what follows the sum over a row waits, and the next row can fill that. */
GO_INLINE void statistics_of(const go_norm_args *a, size_t first, size_t count, row_stats *s,
                             go_dtype t, const norm_kind kind) {
    const void *src = go_at(a->src, (ptrdiff_t)first * a->src_stride, t);
    for (size_t i = 0; i < count; i++)
        s[i].mean =
            kind == RMS ? 0.0f : row_mean(go_at(src, (ptrdiff_t)i * a->src_stride, t), a->cols, t);
    for (size_t i = 0; i < count; i++)
        s[i].scale = row_scale(a, go_at(src, (ptrdiff_t)i * a->src_stride, t), s[i].mean, t, kind);
}

/* Of rows first .. first + count - 1. A call, since loops copied into each of the functions
 * below keep a compiler busy for seconds. */
static __attribute__((noinline)) void row_statistics(const go_norm_args *a, size_t first,
                                                     size_t count, row_stats *s) {
    if (a->src_dtype == GO_BF16)
        (a->rms ? statistics_of(a, first, count, s, GO_BF16, RMS)
                : statistics_of(a, first, count, s, GO_BF16, LAYER));
    else
        (a->rms ? statistics_of(a, first, count, s, GO_F32, RMS)
                : statistics_of(a, first, count, s, GO_F32, LAYER));
}

GO_INLINE go_f32x16 normalized(const go_norm_args *a, const void *src, row_stats s, size_t c,
                               size_t n, go_dtype t, const norm_kind kind) {
    go_f32x16 y = go_load_as(src, (ptrdiff_t)c, t, n);
    y = centred(y, s.mean, kind) * go_splat(s.scale);
    if (kind == RMS) return y * go_load_n(a->weight + c, n);
    if (kind == LAYER) return go_fma(y, go_load_n(a->weight + c, n), go_load_n(a->bias + c, n));
    if (a->weight) return y * go_load_n(a->weight + c, n);
    if (a->bias) return y + go_load_n(a->bias + c, n);
    return y;
}

GO_INLINE void store_row(const go_norm_args *a, const void *src, void *dst, row_stats s,
                         go_dtype from, go_dtype to, const norm_kind kind) {
    size_t c = 0;
    for (; c + GO_LANES <= a->cols; c += GO_LANES)
        go_store_as(dst, (ptrdiff_t)c, to, normalized(a, src, s, c, GO_LANES, from, kind),
                    GO_LANES);
    if (c < a->cols)
        go_store_as(dst, (ptrdiff_t)c, to, normalized(a, src, s, c, a->cols - c, from, kind),
                    a->cols - c);
}

/* Values of a row that are kept between its passes. */
enum { KEPT = 2048 };

/* Quantizes `count` rows of f32 into rows row .. of a panel; stores them as bf16 where dst
 * holds that. One copy for all kinds. */
static __attribute__((noinline)) void quantize_kept(const go_norm_args *a, const float *y,
                                                    ptrdiff_t stride, size_t first, size_t count) {
    int8_t *panel = (int8_t *)a->packed + first / GO_QA8_MR * go_qa8_panel_bytes(a->cols);
    go_quantize_group(y, stride, GO_F32, a->cols, panel, first % GO_QA8_MR, count);
    if (!a->dst || a->dst_dtype != GO_BF16) return;
    for (size_t i = 0; i < count; i++, y += stride) {
        void *dst = go_at_mut(a->dst, (ptrdiff_t)(first + i) * a->dst_stride, GO_BF16);
        for (size_t c = 0; c < a->cols; c += GO_LANES) {
            const size_t n = go_min_size(GO_LANES, a->cols - c);
            go_store_as(dst, (ptrdiff_t)c, GO_BF16, go_load_n(y + c, n), n);
        }
    }
}

/* Rows begin .. end - 1, a few at once, into panels: from where the result lies as f32, or from
 * a copy. dst may be src. */
GO_INLINE void pack_rows(const go_norm_args *a, size_t begin, size_t end, go_dtype from,
                         const norm_kind kind) {
    float kept[GO_QUANTIZE_GROUP * KEPT];
    const int copied = !a->dst || a->dst_dtype == GO_BF16;
    const ptrdiff_t stride = copied ? (ptrdiff_t)a->cols : a->dst_stride;
    const size_t step = a->cols <= KEPT / 2 ? GO_QUANTIZE_AT_ONCE : GO_QUANTIZE_GROUP;
    for (size_t r = begin, count; r < end; r += count) {
        count = go_min_size(step - r % step, end - r); /* of one panel */
        float *const y = copied ? kept : (float *)a->dst + (ptrdiff_t)r * stride;
        row_stats s[GO_QUANTIZE_AT_ONCE];
        row_statistics(a, r, count, s);
        for (size_t i = 0; i < count; i++) {
            const void *src = go_at(a->src, (ptrdiff_t)(r + i) * a->src_stride, from);
            store_row(a, src, y + (ptrdiff_t)i * stride, s[i], from, GO_F32, kind);
        }
        quantize_kept(a, y, stride, r, count);
    }
}

/* Quantizes row r, too wide to be kept: computes it twice. */
GO_INLINE void pack_wide_row(const go_norm_args *a, size_t r, go_dtype from, const norm_kind kind) {
    const void *src = go_at(a->src, (ptrdiff_t)r * a->src_stride, from);
    row_stats s;
    row_statistics(a, r, 1, &s);
    int8_t *panel = (int8_t *)a->packed + r / GO_QA8_MR * go_qa8_panel_bytes(a->cols);
    size_t row = r % GO_QA8_MR, full = a->cols / GO_LANES * GO_LANES, rest = a->cols - full;
    go_f32x16 tail = go_zero();
    if (rest) tail = go_keep_lanes(normalized(a, src, s, full, rest, from, kind), rest, 0.0f);
    go_range range = go_range_init();
    for (size_t c = 0; c < full; c += GO_LANES)
        go_range_add(&range, normalized(a, src, s, c, GO_LANES, from, kind));
    go_range_add(&range, tail);
    go_quantizer z = go_quantizer_of_range(&range);
    go_i32x16 sum = {0};
    for (size_t c = 0; c < full; c += GO_LANES)
        go_quantize_store(&z, panel, row, c, normalized(a, src, s, c, GO_LANES, from, kind),
                          GO_LANES, &sum);
    if (rest) go_quantize_store(&z, panel, row, full, tail, rest, &sum);
    go_qa8_finish_row(&z, panel, row, a->cols, sum);
}

GO_INLINE void norm_rows(const go_norm_args *a, size_t begin, size_t end, go_dtype from,
                         go_dtype to, const norm_kind kind) {
    for (size_t r = begin; r < end; r++) {
        const void *src = go_at(a->src, (ptrdiff_t)r * a->src_stride, from);
        void *dst = go_at_mut(a->dst, (ptrdiff_t)r * a->dst_stride, to);
        row_stats s;
        row_statistics(a, r, 1, &s);
        store_row(a, src, dst, s, from, to, kind);
    }
}

/* The panels come first: dst may be src. */
GO_INLINE void norm_from(const go_norm_args *a, size_t begin, size_t end, go_dtype from,
                         const norm_kind kind) {
    if (a->packed && a->cols <= KEPT) {
        pack_rows(a, begin, end, from, kind);
        return;
    }
    if (a->packed)
        for (size_t r = begin; r < end; r++) pack_wide_row(a, r, from, kind);
    if (a->dst && a->dst_dtype == GO_BF16)
        norm_rows(a, begin, end, from, GO_BF16, kind);
    else if (a->dst)
        norm_rows(a, begin, end, from, GO_F32, kind);
}

GO_INLINE void norm_task(const go_norm_args *a, size_t begin, size_t end, const norm_kind kind) {
    if (a->src_dtype == GO_BF16)
        norm_from(a, begin, end, GO_BF16, kind);
    else
        norm_from(a, begin, end, GO_F32, kind);
}

void GO_NAME(norm)(go_team *team, const go_norm_args *a);

void GO_NAME(norm)(go_team *team, const go_norm_args *a) {
    size_t step = go_task_rows(a->rows, a->cols, a->packed ? GO_QA8_ROWS : 1, team->size);
    const size_t tasks = go_ceil_div(a->rows, step);
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        size_t begin = task * step;
        size_t end = begin + step < a->rows ? begin + step : a->rows;
        if (a->packed) go_qa8_begin_rows(a->packed, begin, end, a->rows, a->cols);
        if (a->weight && a->bias)
            norm_task(a, begin, end, LAYER);
        else if (a->rms && a->weight)
            norm_task(a, begin, end, RMS);
        else
            norm_task(a, begin, end, OTHER);
    }
}
