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

/* A row as whole vectors and the last, partial one, kept in a register with -inf in
 * its unused lanes. */
typedef struct {
    const void *src;
    size_t full, rest; /* elements in whole vectors, and behind them */
    go_f32x16 tail;
    float top; /* largest element; NaNs are passed over and come back through the sum */
} row;

GO_INLINE row open_row(const void *src, size_t cols, go_dtype t) {
    const float least = -__builtin_inff();
    row x = {.src = src, .full = cols / GO_LANES * GO_LANES, .rest = cols % GO_LANES};
    x.tail = go_splat(least);
    if (x.rest)
        x.tail = go_keep_lanes(go_load_as(src, (ptrdiff_t)x.full, t, x.rest), x.rest, least);
    go_f32x16 top = go_max_skip_nan(x.tail, go_splat(least));
    for (size_t c = 0; c < x.full; c += GO_LANES)
        top = go_max_skip_nan(go_load_as(src, (ptrdiff_t)c, t, GO_LANES), top);
    x.top = go_fold_max(top);
    return x;
}

GO_INLINE go_f32x16 shifted(const row *x, size_t c, go_dtype t) {
    return go_load_as(x->src, (ptrdiff_t)c, t, GO_LANES) - go_splat(x->top);
}

/* e^(x - top) of the partial vector, 0 in its unused lanes. */
GO_INLINE go_f32x16 tail_terms(const row *x) {
    return go_keep_lanes(go_exp_lanes(x->tail - go_splat(x->top)), x->rest, 0.0f);
}

/* The sum of e^(x - top); also stores the terms of whole vectors where `terms` is
 * not null. */
GO_INLINE float exp_sum(const row *x, float *terms, go_dtype t) {
    go_f32x16 sum = go_zero();
    for (size_t c = 0; c < x->full; c += GO_LANES) {
        go_f32x16 e = go_exp_lanes(shifted(x, c, t));
        sum += e;
        if (terms) go_store(terms + c, e);
    }
    return go_sum(x->rest ? sum + tail_terms(x) : sum);
}

GO_INLINE void log_softmax_row(const row *x, void *dst, go_dtype from, go_dtype to) {
    go_f32x16 log_sum = go_splat(go_logf(exp_sum(x, NULL, from)));
    for (size_t c = 0; c < x->full; c += GO_LANES)
        go_store_as(dst, (ptrdiff_t)c, to, shifted(x, c, from) - log_sum, GO_LANES);
    if (x->rest)
        go_store_as(dst, (ptrdiff_t)x->full, to, (x->tail - go_splat(x->top)) - log_sum, x->rest);
}

/* An f32 destination holds the exponentials between the two passes; for bf16
 * they are computed twice, to be rounded once. */
GO_INLINE void softmax_row(const row *x, void *dst, go_dtype from, go_dtype to) {
    float *terms = to == GO_F32 ? dst : NULL;
    go_f32x16 scale = go_splat(1.0f / exp_sum(x, terms, from));
    for (size_t c = 0; c < x->full; c += GO_LANES) {
        go_f32x16 e = terms ? go_load(terms + c) : go_exp_lanes(shifted(x, c, from));
        go_store_as(dst, (ptrdiff_t)c, to, e * scale, GO_LANES);
    }
    if (x->rest) go_store_as(dst, (ptrdiff_t)x->full, to, tail_terms(x) * scale, x->rest);
}

GO_INLINE void softmax_rows(const go_softmax_args *a, size_t begin, size_t end, go_dtype from,
                            go_dtype to) {
    for (size_t r = begin; r < end; r++) {
        const void *src = go_at(a->src, (ptrdiff_t)r * a->src_stride, from);
        void *dst = go_at_mut(a->dst, (ptrdiff_t)r * a->dst_stride, to);
        row x = open_row(src, a->cols, from);
        if (a->log)
            log_softmax_row(&x, dst, from, to);
        else
            softmax_row(&x, dst, from, to);
    }
}

void GO_NAME(softmax)(go_team *team, const go_softmax_args *a);

void GO_NAME(softmax)(go_team *team, const go_softmax_args *a) {
    size_t step = go_task_rows(a->rows, a->cols, 1, team->size);
    const size_t tasks = go_ceil_div(a->rows, step);
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
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
