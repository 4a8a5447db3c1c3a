/* go_rope: rotary position embedding of queries and keys; keys and values of the
 * new tokens go to their rows of the cache. Pairs are (i, i + dim / 2), as in
 * transformers:
 *
 *   y[i]       = fma(-x[i + half], sin[i], x[i] * cos[i])
 *   y[i+half]  = fma( x[i], sin[i], x[i + half] * cos[i])
 *
 * A task is one token of one sequence.
 */
#include "go_vec.h"

/* One head of f32. */
GO_INLINE void rotate(const float *x, const float *cos, const float *sin, size_t half, void *dst,
                      ptrdiff_t at, go_dtype to) {
    for (size_t i = 0; i < half; i += GO_LANES) {
        size_t n = half - i < GO_LANES ? half - i : GO_LANES;
        go_f32x16 a = go_load_n(x + i, n), b = go_load_n(x + half + i, n);
        go_f32x16 c = go_load_n(cos + i, n), s = go_load_n(sin + i, n);
        go_store_as(dst, at + (ptrdiff_t)i, to, go_fma(-b, s, a * c), n);
        go_store_as(dst, at + (ptrdiff_t)(half + i), to, go_fma(a, s, b * c), n);
    }
}

GO_INLINE void copy_row(const float *x, size_t n, void *dst, ptrdiff_t at, go_dtype to) {
    for (size_t i = 0; i < n; i += GO_LANES) {
        size_t lanes = n - i < GO_LANES ? n - i : GO_LANES;
        go_store_as(dst, at + (ptrdiff_t)i, to, go_load_n(x + i, lanes), lanes);
    }
}

GO_INLINE ptrdiff_t row_of(const ptrdiff_t *stride, size_t batch, size_t time) {
    return (ptrdiff_t)batch * stride[0] + (ptrdiff_t)time * stride[1];
}

GO_INLINE void one_token(const go_rope_args *a, size_t b, size_t t, go_dtype to, go_dtype kept) {
    size_t half = a->dim / 2, token = b * a->time + t;
    const float *cos = a->cos + token * half, *sin = a->sin + token * half;
    const float *q = a->q + row_of(a->q_stride, b, t);
    const float *k = a->k + row_of(a->k_stride, b, t);
    const float *v = a->v + row_of(a->v_stride, b, t);
    ptrdiff_t dst = row_of(a->dst_stride, b, t);
    ptrdiff_t row = row_of(a->cache_stride, b, (size_t)a->position[b] + t);
    for (size_t h = 0; h < a->heads; h++)
        rotate(q + (ptrdiff_t)h * a->q_stride[2], cos, sin, half, a->dst,
               dst + (ptrdiff_t)h * a->dst_stride[2], to);
    for (size_t h = 0; h < a->kv_heads; h++) {
        ptrdiff_t at = row + (ptrdiff_t)h * a->cache_stride[2];
        rotate(k + (ptrdiff_t)h * a->k_stride[2], cos, sin, half, a->keys, at, kept);
        copy_row(v + (ptrdiff_t)h * a->v_stride[2], a->dim, a->values, at, kept);
    }
}

void GO_NAME(rope)(go_team *team, const go_rope_args *a);

void GO_NAME(rope)(go_team *team, const go_rope_args *a) {
    size_t tasks = a->batch * a->time;
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        if (a->dst_dtype == GO_BF16)
            one_token(a, task / a->time, task % a->time, GO_BF16, GO_BF16);
        else
            one_token(a, task / a->time, task % a->time, GO_F32, GO_F32);
    }
}
