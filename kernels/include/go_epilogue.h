/* What happens to a finished f32 result before it is stored: go_epilogue of
 * go_kernel.h on 16 columns of one row at a time. */
#ifndef GO_EPILOGUE_H
#define GO_EPILOGUE_H

#include "go_math.h"
#include "go_vec.h"

/* go_math.h is scalar and free of branches: called on 16 lanes in a loop, the
 * compiler turns it into vector code. */
#define GO_EACH_LANE(v, function)                                                \
    do {                                                                         \
        float lanes_[GO_LANES];                                                  \
        go_store(lanes_, v);                                                     \
        for (int i_ = 0; i_ < GO_LANES; i_++) lanes_[i_] = function(lanes_[i_]); \
        v = go_load(lanes_);                                                     \
    } while (0)

/* Activations that are such functions: EACH(name, function). */
#define GO_ELEMENTARY_ACTIVATIONS(EACH) \
    EACH(GELU_ERF, go_gelu_erff)        \
    EACH(GELU_TANH, go_gelu_tanhf)      \
    EACH(SILU, go_siluf)                \
    EACH(SIGMOID, go_sigmoidf)          \
    EACH(TANH, go_tanhf)

/* Not inlined: the fast paths stay small, and a call costs little next to 16 lanes
 * of a transcendental function. */
static __attribute__((noinline, unused)) void go_activate_lanes(go_f32x16 *v, go_activation act) {
    go_f32x16 x = *v;
#define GO_CASE(name, function)    \
    case GO_ACT_##name:            \
        GO_EACH_LANE(x, function); \
        break;
    switch (act) {
        GO_ELEMENTARY_ACTIVATIONS(GO_CASE)
        default:
            break;
    }
#undef GO_CASE
    *v = x;
}

/* Between 0 and 6. This and relu keep NaN, as torch does. */
GO_INLINE go_f32x16 go_relu6(go_f32x16 v) {
    const go_f32x16 six = go_splat(6.0f);
    v = go_select(v < go_zero(), go_zero(), v);
    return go_select(v > six, six, v);
}

/* `slope` is that of GO_ACT_LEAKY_RELU. */
GO_INLINE go_f32x16 go_activate(go_f32x16 v, go_activation act, float slope) {
    if (act == GO_ACT_NONE) return v;
    if (act == GO_ACT_RELU) return go_select(v < go_zero(), go_zero(), v);
    if (act == GO_ACT_RELU6) return go_relu6(v);
    if (act == GO_ACT_HARDSIGMOID) return go_relu6(v + go_splat(3.0f)) / go_splat(6.0f);
    if (act == GO_ACT_HARDSWISH) return v * go_relu6(v + go_splat(3.0f)) / go_splat(6.0f);
    if (act == GO_ACT_LEAKY_RELU) return go_select(v > go_zero(), v, v * go_splat(slope));
    go_activate_lanes(&v, act);
    return v;
}

/* out[r * GO_LANES + i] = act(values[r * ld + i] + shift[i]) for `rows` rows; `shift` is added if
 * not null. */
#define GO_EACH_ROW(expression)                    \
    for (size_t r_ = 0; r_ < rows; r_++) {         \
        go_f32x16 v = go_load(values + r_ * ld);   \
        if (shift) v += *shift;                    \
        go_store(out + r_ * GO_LANES, expression); \
    }
#define GO_CASE(name, function)                                                      \
    case GO_ACT_##name:                                                              \
        for (size_t i_ = 0; i_ < rows * GO_LANES; i_++) out[i_] = function(out[i_]); \
        return;

/* The loops of activations that take more than a comparison: the choice is made once for all
 * rows, so that values of several rows are on their way at once. */
static __attribute__((noinline, unused)) void go_activate_rows(const go_epilogue *e, size_t rows,
                                                               const float *values, size_t ld,
                                                               const go_f32x16 *shift, float *out) {
    switch (e->activation) {
        case GO_ACT_RELU6:
            GO_EACH_ROW(go_relu6(v))
            return;
        case GO_ACT_HARDSIGMOID:
            GO_EACH_ROW(go_activate(v, GO_ACT_HARDSIGMOID, 0))
            return;
        case GO_ACT_HARDSWISH:
            GO_EACH_ROW(go_activate(v, GO_ACT_HARDSWISH, 0))
            return;
        case GO_ACT_LEAKY_RELU:
            GO_EACH_ROW(go_activate(v, GO_ACT_LEAKY_RELU, e->slope))
            return;
        default:
            GO_EACH_ROW(v)
    }
    switch (e->activation) {
        GO_ELEMENTARY_ACTIVATIONS(GO_CASE)
        default:
            return;
    }
}

#undef GO_EACH_ROW
#undef GO_CASE

/* Everything behind the bias: activation, factor, residuals, conversion, store of
 * columns col .. col + n - 1 (n <= 16) of row `row`. */
GO_INLINE void go_epilogue_store(const go_epilogue *e, void *dst, ptrdiff_t dst_stride,
                                 go_dtype dst_dtype, size_t row, size_t col, go_f32x16 v,
                                 size_t n) {
    v = go_activate(v, e->activation, e->slope);
    if (e->factor)
        v *= go_load_as(e->factor, (ptrdiff_t)row * e->factor_stride + (ptrdiff_t)col,
                        e->factor_dtype, n);
    for (int i = 0; i < 2; i++) {
        if (!e->residual[i]) continue;
        ptrdiff_t at = (ptrdiff_t)row * e->residual_stride[i] + (ptrdiff_t)col;
        v += go_load_as(e->residual[i], at, e->residual_dtype[i], n);
    }
    v = go_activate(v, e->last, e->slope);
    go_store_as(dst, (ptrdiff_t)row * dst_stride + (ptrdiff_t)col, dst_dtype, v, n);
}

/* Whether f32 results are final behind the bias but for a relu. */
GO_INLINE int go_epilogue_is_plain(const go_gemm_args *args) {
    const go_epilogue *e = &args->epilogue;
    return args->dst_dtype == GO_F32 && e->activation <= GO_ACT_RELU && !e->factor &&
           !e->residual[0] && !e->residual[1] && !e->last;
}

/* Whether rows take the loop for everything, not one of those for what is common. */
GO_INLINE int go_epilogue_is_rare(const go_epilogue *e) {
    return e->factor || e->last > GO_ACT_RELU || (e->last && !e->residual[0]);
}

/* The epilogue with what is constant in a loop over rows: the activation, and how many
 * residuals there can be (2 if there can be a factor); without one nothing comes last. */
GO_INLINE go_epilogue go_epilogue_of(const go_gemm_args *args, const int act, const int residuals) {
    go_epilogue e = args->epilogue;
    e.activation = (go_activation)act;
    if (residuals < 2) {
        e.factor = NULL, e.residual[1] = NULL;
        if (e.last) e.last = GO_ACT_RELU;
    }
    if (residuals < 1) e.residual[0] = NULL, e.last = GO_ACT_NONE;
    return e;
}

/* Values first .. first + count - 1 of a row. */
GO_INLINE void go_prefetch(const void *row, ptrdiff_t first, size_t count, go_dtype t) {
    const char *at = go_at(row, first, t);
    for (size_t b = 0, bytes = count * (size_t)go_size_of(t); b < bytes; b += 64)
        __builtin_prefetch(at + b);
}

/* Fetches what the epilogue of a tile reads and writes, while its products are summed. */
GO_INLINE void go_epilogue_prefetch(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                                    size_t cols) {
    const go_epilogue *e = &args->epilogue;
    for (size_t r = row; r < row + rows; r++) {
        const ptrdiff_t i = (ptrdiff_t)r, c = (ptrdiff_t)col;
        go_prefetch(args->dst, i * args->dst_stride + c, cols, args->dst_dtype);
        for (int n = 0; n < 2; n++)
            if (e->residual[n])
                go_prefetch(e->residual[n], i * e->residual_stride[n] + c, cols,
                            e->residual_dtype[n]);
    }
}

/* Row `row` of an f32 destination. */
GO_INLINE float *go_gemm_row(const go_gemm_args *args, size_t row) {
    return (float *)args->dst + (ptrdiff_t)row * args->dst_stride;
}

/* The same for one row after another of values[r * ld + c], 16 columns of which n exist.
 * What the epilogue asks for is constant in the call: no branch in the loop. `residuals`
 * is how many there can be, and 2 if there can be a factor. `bias` is added, if not null. */
GO_INLINE void go_epilogue_lanes(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                                 size_t n, const float *values, size_t ld, const float *bias,
                                 const int act, const int residuals, const go_dtype dtype) {
    const go_epilogue e = go_epilogue_of(args, act, residuals);
    const go_f32x16 shift = bias ? go_load_n(bias, n) : go_zero();
    for (size_t r = 0; r < rows; r++) {
        go_f32x16 v = go_load(values + r * ld);
        if (bias) v += shift;
        go_epilogue_store(&e, args->dst, args->dst_stride, dtype, row + r, col, v, n);
    }
}

/* rows x cols (cols <= 16) results that are final but for a relu and what follows it: loops
 * for what transformers and convolutional networks ask for, and one for everything else. */
GO_INLINE void go_epilogue_simple(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                                  size_t cols, const float *values, size_t ld, const float *bias,
                                  const int act) {
    const go_epilogue *e = &args->epilogue;
#define STORE(n, residuals, dtype) \
    go_epilogue_lanes(args, row, rows, col, n, values, ld, bias, act, residuals, dtype)
    if (cols < GO_LANES || go_epilogue_is_rare(e))
        STORE(cols, 2, args->dst_dtype);
    else if (e->residual[1])
        STORE(GO_LANES, 2, args->dst_dtype);
    else if (e->residual[0])
        STORE(GO_LANES, 1, args->dst_dtype);
    else if (args->dst_dtype == GO_BF16)
        STORE(GO_LANES, 0, GO_BF16);
    else
        STORE(GO_LANES, 0, GO_F32);
#undef STORE
}

enum { GO_ACTIVATED_ROWS = 16 };

/* The same for results before any activation, or before the `bias` of their columns. */
GO_INLINE void go_epilogue_biased(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                                  size_t cols, const float *values, size_t ld, const float *bias) {
    const go_epilogue *e = &args->epilogue;
    if (e->activation <= GO_ACT_RELU) {
        go_epilogue_simple(args, row, rows, col, cols, values, ld, bias, (int)e->activation);
        return;
    }
    const go_f32x16 shift = bias ? go_load_n(bias, cols) : go_zero();
    float activated[GO_ACTIVATED_ROWS * GO_LANES];
    for (size_t r = 0; r < rows; r += GO_ACTIVATED_ROWS) {
        const size_t some = rows - r < GO_ACTIVATED_ROWS ? rows - r : GO_ACTIVATED_ROWS;
        go_activate_rows(e, some, values + r * ld, ld, bias ? &shift : NULL, activated);
        go_epilogue_simple(args, row + r, some, col, cols, activated, GO_LANES, NULL, GO_ACT_NONE);
    }
}

/* The same for results that have their bias. */
GO_INLINE void go_epilogue_rows(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                                size_t cols, const float *values, size_t ld) {
    go_epilogue_biased(args, row, rows, col, cols, values, ld, NULL);
}

/* rows x cols finished sums, tile[r * ld + c], go to row `row`, column `col` of
 * the destination. */
static __attribute__((noinline, unused)) void go_epilogue_tile(const go_gemm_args *args, size_t row,
                                                               size_t rows, size_t col, size_t cols,
                                                               const float *tile, size_t ld) {
    const float *bias = args->epilogue.bias;
    for (size_t c = 0; c < cols; c += GO_LANES) {
        const size_t n = cols - c < GO_LANES ? cols - c : GO_LANES;
        go_epilogue_biased(args, row, rows, col + c, n, tile + c, ld, bias ? bias + col + c : NULL);
    }
}

#endif
