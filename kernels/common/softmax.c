/* go_softmax: softmax or log-softmax over the rows of a matrix.
 *
 * m = max x;  s = sum e^(x - m), 16 lanes folded in the order of go_sum
 * softmax:     y = e^(x - m) * (1 / s)
 * log-softmax: y = (x - m) - log s
 * A NaN or +inf in a row makes all of it NaN, as does a row of -inf only.
 * Elements whose e^(x - m) is 0 at the end of a row change no bit of the others.
 */
#include "go_vec_math.h"
#include "rows.h"

/* The largest element; NaNs are passed over here and come back through the sum. */
GO_INLINE float row_max(const void *src, size_t cols, go_dtype t) {
    go_f32x16 top = go_splat(-__builtin_inff());
    size_t c = 0;
    for (; c + GO_LANES <= cols; c += GO_LANES)
        top = go_max_skip_nan(go_load_as(src, (ptrdiff_t)c, t, GO_LANES), top);
    if (c < cols) {
        go_f32x16 v = go_load_as(src, (ptrdiff_t)c, t, cols - c);
        top = go_max_skip_nan(go_keep_lanes(v, cols - c, -__builtin_inff()), top);
    }
    return go_hmax(top);
}

/* The sum of e^(x - top); also stores the terms where `terms` is not null. */
GO_INLINE float row_exp_sum(const void *src, float *terms, size_t cols, float top, go_dtype t) {
    go_f32x16 sum = go_zero();
    size_t c = 0;
    for (; c + GO_LANES <= cols; c += GO_LANES) {
        go_f32x16 e = go_exp_lanes(go_load_as(src, (ptrdiff_t)c, t, GO_LANES) - go_splat(top));
        sum += e;
        if (terms) go_store(terms + c, e);
    }
    if (c < cols) {
        go_f32x16 v = go_load_as(src, (ptrdiff_t)c, t, cols - c);
        go_f32x16 e = go_keep_lanes(go_exp_lanes(v - go_splat(top)), cols - c, 0.0f);
        sum += e;
        if (terms) go_store_n(terms + c, e, cols - c);
    }
    return go_sum(sum);
}

GO_INLINE void log_softmax_row(const go_softmax_args *a, const void *src, void *dst,
                               go_dtype from, go_dtype to) {
    float top = row_max(src, a->cols, from);
    float log_sum = go_logf(row_exp_sum(src, NULL, a->cols, top, from));
    for (size_t c = 0; c < a->cols; c += GO_LANES) {
        size_t n = a->cols - c < GO_LANES ? a->cols - c : GO_LANES;
        go_f32x16 v = go_load_as(src, (ptrdiff_t)c, from, n);
        go_store_as(dst, (ptrdiff_t)c, to, (v - go_splat(top)) - go_splat(log_sum), n);
    }
}

/* An f32 destination holds the exponentials between the two passes; for bf16
 * they are computed twice, to be rounded once. */
GO_INLINE void softmax_row(const go_softmax_args *a, const void *src, void *dst, go_dtype from,
                           go_dtype to) {
    float *terms = to == GO_F32 ? dst : NULL;
    float top = row_max(src, a->cols, from);
    go_f32x16 scale = go_splat(1.0f / row_exp_sum(src, terms, a->cols, top, from));
    for (size_t c = 0; c < a->cols; c += GO_LANES) {
        size_t n = a->cols - c < GO_LANES ? a->cols - c : GO_LANES;
        go_f32x16 e = terms ? go_load_n(terms + c, n)
                            : go_exp_lanes(go_load_as(src, (ptrdiff_t)c, from, n) - go_splat(top));
        go_store_as(dst, (ptrdiff_t)c, to, e * scale, n);
    }
}

GO_INLINE void softmax_rows(const go_softmax_args *a, size_t begin, size_t end, go_dtype from,
                            go_dtype to) {
    for (size_t r = begin; r < end; r++) {
        const void *src = go_at(a->src, (ptrdiff_t)r * a->src_stride, from);
        void *dst = go_at_mut(a->dst, (ptrdiff_t)r * a->dst_stride, to);
        if (a->log)
            log_softmax_row(a, src, dst, from, to);
        else
            softmax_row(a, src, dst, from, to);
    }
}

void GO_NAME(softmax)(go_team *team, const go_softmax_args *a);

void GO_NAME(softmax)(go_team *team, const go_softmax_args *a) {
    size_t step = go_task_rows(a->rows, a->cols, 1, team->size);
    for (size_t task; (task = go_next(team)) * step < a->rows;) {
        size_t begin = task * step;
        size_t end = begin + step < a->rows ? begin + step : a->rows;
        if (a->src_dtype == GO_BF16) {
            if (a->dst_dtype == GO_BF16)
                softmax_rows(a, begin, end, GO_BF16, GO_BF16);
            else
                softmax_rows(a, begin, end, GO_BF16, GO_F32);
        } else {
            if (a->dst_dtype == GO_BF16)
                softmax_rows(a, begin, end, GO_F32, GO_BF16);
            else
                softmax_rows(a, begin, end, GO_F32, GO_F32);
        }
    }
}
