/* go_rope: rotary position embedding of queries and keys; keys and values of the
 * new tokens go to their rows of the cache. Pairs are (i, i + dim / 2), as in
 * transformers:
 *
 *   y[i]       = fma(-x[i + half], sin[i], x[i] * cos[i])
 *   y[i+half]  = fma( x[i], sin[i], x[i + half] * cos[i])
 *
 * A task is one token of one sequence.
 */
#include "quantize_row.h"

/* Up to 16 values of a head and those half a head behind them. */
typedef struct {
    go_f32x16 first, second;
} value_pairs;

/* Rotated if there are angles, else as they are. */
GO_INLINE value_pairs load_pairs(const float *x, const float *cos, const float *sin, size_t half,
                                 size_t i, size_t n) {
    const go_f32x16 a = go_load_n(x + i, n), b = go_load_n(x + half + i, n);
    if (!cos) return (value_pairs){a, b};
    const go_f32x16 c = go_load_n(cos + i, n), s = go_load_n(sin + i, n);
    return (value_pairs){go_fma(-b, s, a * c), go_fma(a, s, b * c)};
}

/* One head as f32 or bf16. */
GO_INLINE void store_head(const float *x, const float *cos, const float *sin, size_t half,
                          void *dst, ptrdiff_t at, go_dtype to) {
    for (size_t i = 0; i < half; i += GO_LANES) {
        const size_t n = half - i < GO_LANES ? half - i : GO_LANES;
        const value_pairs y = load_pairs(x, cos, sin, half, i, n);
        go_store_as(dst, at + (ptrdiff_t)i, to, y.first, n);
        go_store_as(dst, at + (ptrdiff_t)(half + i), to, y.second, n);
    }
}

/* One head as int8: rotated once for its largest value and once more to be stored. */
GO_INLINE void quantize_head(const float *x, const float *cos, const float *sin, size_t half,
                             int8_t *dst, float *scale) {
    go_range range = go_range_init();
    for (size_t i = 0; i < half; i += GO_LANES) {
        const size_t n = half - i < GO_LANES ? half - i : GO_LANES;
        const value_pairs y = load_pairs(x, cos, sin, half, i, n);
        go_range_add(&range, y.first), go_range_add(&range, y.second);
    }
    const go_quantizer z = go_symmetric_quantizer(&range);
    for (size_t i = 0; i < half; i += GO_LANES) {
        const size_t n = half - i < GO_LANES ? half - i : GO_LANES;
        const value_pairs y = load_pairs(x, cos, sin, half, i, n);
        const go_i8x16 first = __builtin_convertvector(go_quantize16(&z, y.first), go_i8x16);
        const go_i8x16 second = __builtin_convertvector(go_quantize16(&z, y.second), go_i8x16);
        memcpy(dst + i, &first, n), memcpy(dst + half + i, &second, n);
    }
    *scale = z.scale;
}

GO_INLINE ptrdiff_t row_of(const ptrdiff_t *stride, size_t batch, size_t time) {
    return (ptrdiff_t)batch * stride[0] + (ptrdiff_t)time * stride[1];
}

/* Head h of a key (part 0) or value (part 1) for row `row` of sequence b. */
GO_INLINE void cache_head(const go_rope_args *a, int part, size_t b, size_t row, size_t h,
                          const float *x, const float *cos, const float *sin, go_dtype kept) {
    const ptrdiff_t head = (ptrdiff_t)h;
    const ptrdiff_t at = row_of(a->cache_stride, b, row) + head * a->cache_stride[2];
    void *dst = part ? a->values : a->keys;
    if (kept != GO_I8) {
        store_head(x, cos, sin, a->dim / 2, dst, at, kept);
        return;
    }
    float *scales = part ? a->value_scales : a->key_scales;
    scales += (ptrdiff_t)b * a->scale_stride[0] + head * a->scale_stride[1] + (ptrdiff_t)row;
    quantize_head(x, cos, sin, a->dim / 2, (int8_t *)dst + at, scales);
}

GO_INLINE void one_token(const go_rope_args *a, size_t b, size_t t, go_dtype to, go_dtype kept) {
    const size_t half = a->dim / 2, token = b * a->time + t, row = (size_t)a->position[b] + t;
    const float *cos = a->cos + token * half, *sin = a->sin + token * half;
    const float *q = a->q + row_of(a->q_stride, b, t);
    const float *k = a->k + row_of(a->k_stride, b, t);
    const float *v = a->v + row_of(a->v_stride, b, t);
    const ptrdiff_t dst = row_of(a->dst_stride, b, t);
    for (size_t h = 0; h < a->heads; h++)
        store_head(q + (ptrdiff_t)h * a->q_stride[2], cos, sin, half, a->dst,
                   dst + (ptrdiff_t)h * a->dst_stride[2], to);
    for (size_t h = 0; h < a->kv_heads; h++) {
        cache_head(a, 0, b, row, h, k + (ptrdiff_t)h * a->k_stride[2], cos, sin, kept);
        cache_head(a, 1, b, row, h, v + (ptrdiff_t)h * a->v_stride[2], NULL, NULL, kept);
    }
}

void GO_NAME(rope)(go_team *team, const go_rope_args *a);

void GO_NAME(rope)(go_team *team, const go_rope_args *a) {
    size_t tasks = a->batch * a->time;
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        const size_t b = task / a->time, t = task % a->time;
        if (a->key_scales)
            one_token(a, b, t, GO_BF16, GO_I8);
        else if (a->dst_dtype == GO_BF16)
            one_token(a, b, t, GO_BF16, GO_BF16);
        else
            one_token(a, b, t, GO_F32, GO_F32);
    }
}
