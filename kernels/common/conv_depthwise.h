/* The depthwise part of go_conv: one channel per group, 16 of them at a time. */
#ifndef GO_CONV_DEPTHWISE_H
#define GO_CONV_DEPTHWISE_H

#include "conv_outputs.h"
#include "go_reg.h"
#include "split.h"

/* Outputs whose sums, with the weights of a line of taps, are in registers. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define GO_LINE 8
#else
#define GO_LINE 4
#endif

enum { NEIGHBOURS = 4, LINE = GO_LINE, WIDEST = 7 };
enum { MOST_COLUMNS = 2 * (LINE - 1) + WIDEST };

/* Channels that are done of a line of outputs before the next line: so much of every pixel
 * is read at once. */
enum { CHANNEL_BLOCK = 128 };

/* Sums of `count` outputs side by side from p on, n channels from c on. count and
 * border (0: every tap is known to lie in the image) must be constants. */
GO_INLINE void depthwise_sums(const go_conv_args *a, const go_windows *windows, go_position p,
                              size_t c, size_t n, const size_t count, const int border,
                              go_dtype type, go_f32x16 *sum) {
    const float *weight = (const float *)a->rhs + c;
    const ptrdiff_t step = (ptrdiff_t)a->stride_w;
    for (size_t k = 0; k < count; k++) sum[k] = go_zero();
    for (size_t i = 0; i < a->kh; i++) {
        ptrdiff_t y = go_input_at(p.h, a->stride_h, i, a->dilation_h, a->pad_top);
        for (size_t j = 0; j < a->kw; j++, weight += a->out_c) {
            ptrdiff_t x = go_input_at(p.w, a->stride_w, j, a->dilation_w, a->pad_left);
            ptrdiff_t at = go_pixel(windows, p.batch, y, x) + (ptrdiff_t)c;
            go_f32x16 w = go_load_n(weight, n);
            for (size_t k = 0; k < count; k++, at += step * a->src_stride[2]) {
                go_f32x16 u = go_zero();
                if (!border || go_is_inside(windows, y, x + (ptrdiff_t)k * step))
                    u = go_load_as(a->src, at, type, n);
                sum[k] = go_fma(w, u, sum[k]);
            }
        }
    }
}

/* The same with bias, epilogue and store; `index` is the number of the first output. */
GO_INLINE void depthwise_outputs(const go_conv_args *a, size_t index, size_t c, size_t n,
                                 const size_t count, go_dtype type) {
    go_position p = position_of(a, index);
    go_f32x16 sum[NEIGHBOURS];
    const go_windows w = GO_WINDOWS_OF(a);
    if (go_is_interior(&w, p, count))
        depthwise_sums(a, &w, p, c, n, count, 0, type, sum);
    else
        depthwise_sums(a, &w, p, c, n, count, 1, type, sum);
    const float *bias = a->epilogue.bias;
    for (size_t k = 0; k < count; k++, p.w++) {
        if (bias) sum[k] += go_load_n(bias + c, n);
        go_epilogue_store(&a->epilogue, dst_of(a, p), 0, a->dst_dtype, index + k, c, sum[k], n);
    }
}

/* Positions begin .. end - 1; groups of neighbours do not cross image rows. */
GO_INLINE void depthwise_run(const go_conv_args *a, size_t begin, size_t end, size_t c, size_t n,
                             go_dtype type) {
    for (size_t i = begin; i < end;) {
        if (i + NEIGHBOURS <= end && i % a->out_w + NEIGHBOURS <= a->out_w) {
            depthwise_outputs(a, i, c, n, NEIGHBOURS, type);
            i += NEIGHBOURS;
        } else {
            depthwise_outputs(a, i, c, n, 1, type);
            i++;
        }
    }
}

/* The pixels that outputs side by side read, by tap row and column; zeros for those outside. */
typedef const char *line_pixels[WIDEST][MOST_COLUMNS];

/* Those of outputs from p on, which read `count` columns, from channel c on. */
static void find_pixels(const go_conv_args *a, go_position p, size_t c, size_t count,
                        line_pixels pixels) {
    static const float zeros[CHANNEL_BLOCK];
    const go_windows w = GO_WINDOWS_OF(a);
    const ptrdiff_t x = go_input_at(p.w, a->stride_w, 0, 1, a->pad_left);
    const ptrdiff_t columns = (ptrdiff_t)count, in_w = (ptrdiff_t)a->in_w;
    const ptrdiff_t from = x < 0 ? -x : 0, end = x + columns > in_w ? in_w - x : columns;
    const ptrdiff_t step = a->src_stride[2] * go_size_of(a->src_dtype);
    for (size_t i = 0; i < a->kh; i++) {
        const ptrdiff_t y = go_input_at(p.h, a->stride_h, i, a->dilation_h, a->pad_top);
        const ptrdiff_t to = y < 0 || y >= (ptrdiff_t)a->in_h || end <= from ? 0 : end;
        const ptrdiff_t first = go_pixel(&w, p.batch, y, x + from) + (ptrdiff_t)c;
        const char *at = to ? go_at(a->src, first, a->src_dtype) : NULL;
        ptrdiff_t s = 0;
        for (; s < from && s < columns; s++) pixels[i][s] = (const char *)zeros;
        for (; s < to; s++, at += step) {
            pixels[i][s] = at;
            GO_OPAQUE(at); /* so few are slower as vectors */
        }
        for (; s < columns; s++) pixels[i][s] = (const char *)zeros;
    }
}

/* What is left of the epilogue behind bias and simple activations, which are done in
 * registers, and whether that is nothing. */
typedef struct {
    go_conv_args args;
    const float *bias;
    go_activation activation;
    int plain;
} outputs_rest;

static outputs_rest rest_of(const go_conv_args *a) {
    outputs_rest r = {.args = *a, .bias = a->epilogue.bias};
    r.args.epilogue.bias = NULL;
    if (a->epilogue.activation == GO_ACT_RELU || a->epilogue.activation == GO_ACT_RELU6 ||
        a->epilogue.activation == GO_ACT_HARDSWISH) {
        r.activation = a->epilogue.activation;
        r.args.epilogue.activation = GO_ACT_NONE;
    }
    const go_gemm_args one = {.dst_dtype = a->dst_dtype, .epilogue = r.args.epilogue};
    r.plain = go_epilogue_is_plain(&one);
    return r;
}

/* `count` outputs side by side of 16 channels, of which the first `some` are stored; the
 * channels are `c`, and `ahead` behind those of `pixels`. An input is loaded once for all
 * outputs that read it; the chains are those of depthwise_sums. count, kw, step (of columns)
 * and type must be constants. */
GO_INLINE void line_outputs(const outputs_rest *rest, const line_pixels pixels, size_t c,
                            size_t ahead, size_t some, const int count, const int kw,
                            const int step, const go_dtype type, float *dst, ptrdiff_t dst_step) {
    const go_conv_args *a = &rest->args;
    for (size_t q = 0; q < GO_LANES; q += GO_REG_LANES) {
        const float *weight = (const float *)a->rhs + c + q;
        const ptrdiff_t byte = (ptrdiff_t)(ahead + q) * go_size_of(type);
        go_reg sum[LINE];
        GO_UNROLLED (k, count) sum[k] = go_reg_zero();
        for (size_t i = 0; i < a->kh; i++) {
            go_reg w[WIDEST];
            GO_UNROLLED (j, kw) {
                w[j] = go_reg_load(weight);
                weight += a->out_c;
            }
            GO_UNROLLED (s, (count - 1) * step + kw) {
                const go_reg v = go_reg_load_as(pixels[i][s] + byte, type);
                GO_UNROLLED (k, count)
                    if (s >= k * step && s < k * step + kw)
                        sum[k] = go_reg_fma(w[s - k * step], v, sum[k]);
            }
        }
        if (rest->bias) {
            const go_reg shift = go_reg_load(rest->bias + c + q);
            GO_UNROLLED (k, count) sum[k] += shift;
        }
        if (rest->activation == GO_ACT_RELU)
            GO_UNROLLED (k, count) sum[k] = go_reg_relu(sum[k]);
        else if (rest->activation == GO_ACT_RELU6)
            GO_UNROLLED (k, count) sum[k] = go_reg_relu6(sum[k]);
        else if (rest->activation == GO_ACT_HARDSWISH)
            GO_UNROLLED (k, count)
                sum[k] = sum[k] * go_reg_relu6(sum[k] + go_reg_splat(3.0f)) / go_reg_splat(6.0f);
        GO_UNROLLED (k, count)
            if ((size_t)k < some) go_reg_store(dst + k * dst_step + q, sum[k]);
    }
}

/* The same for channels c .. end - 1, a block at most; `index` is the number of the first
 * output. The last 16 channels may overlap those before, of which nothing is stored twice. */
GO_INLINE void line_channels(const outputs_rest *rest, go_position p, size_t index, size_t c,
                             size_t end, size_t some, const int count, const int kw, const int step,
                             const go_dtype type) {
    const go_conv_args *a = &rest->args;
    const size_t first = end - c < GO_LANES ? end - GO_LANES : c;
    line_pixels pixels;
    find_pixels(a, p, first, (size_t)((count - 1) * step + kw), pixels);
    float *dst = dst_of(a, p);
    for (; c < end; c += GO_LANES) {
        const size_t n = go_min_size(GO_LANES, end - c), from = c + n - GO_LANES;
        if (rest->plain && n == GO_LANES) {
            line_outputs(rest, pixels, c, c - first, some, count, kw, step, type, dst + c,
                         a->dst_stride[2]);
        } else {
            /* Of every row the epilogue reads 16 columns, from c - from on. */
            float tile[(LINE + 1) * GO_LANES];
            go_store(tile + some * GO_LANES, go_zero());
            line_outputs(rest, pixels, from, from - first, some, count, kw, step, type, tile,
                         GO_LANES);
            store_sums(a, index, some, c, n, tile + (c - from), GO_LANES);
        }
    }
}

/* Positions begin .. end - 1 of channels c .. last - 1, a block at most. The last outputs of
 * a line may be fewer than a loop computes. */
GO_INLINE void depthwise_lines(const outputs_rest *rest, size_t begin, size_t end, size_t c,
                               size_t last, const int kw, const int step, const go_dtype type) {
    const go_conv_args *a = &rest->args;
    go_position p = position_of(a, begin);
    for (size_t i = begin, some; i < end; i += some) {
        some = go_min_size(LINE, go_min_size(end - i, a->out_w - p.w));
        if (some > LINE / 2)
            line_channels(rest, p, i, c, last, some, LINE, kw, step, type);
        else
            line_channels(rest, p, i, c, last, some, LINE / 2, kw, step, type);
        p.w += some - 1;
        p = after(a, p);
    }
}

#define LINES(width, step)                                                           \
    static __attribute__((noinline)) void depthwise_##width##_##step(                \
        const outputs_rest *rest, size_t begin, size_t end, size_t c, size_t last) { \
        if (rest->args.src_dtype == GO_BF16)                                         \
            depthwise_lines(rest, begin, end, c, last, width, step, GO_BF16);        \
        else                                                                         \
            depthwise_lines(rest, begin, end, c, last, width, step, GO_F32);         \
    }
LINES(3, 1)
LINES(3, 2)
LINES(5, 1)
LINES(5, 2)
LINES(7, 1)
#undef LINES

typedef void depthwise_loop(const outputs_rest *rest, size_t begin, size_t end, size_t c,
                            size_t last);

/* The loop for windows that are common; null if there is none for these. */
static depthwise_loop *common_loop(const go_conv_args *a) {
    if (a->dilation_w != 1 || a->kh > WIDEST || a->out_c < GO_LANES) return NULL;
    if (a->kw == 3 && a->stride_w == 1) return depthwise_3_1;
    if (a->kw == 3 && a->stride_w == 2) return depthwise_3_2;
    if (a->kw == 5 && a->stride_w == 1) return depthwise_5_1;
    if (a->kw == 5 && a->stride_w == 2) return depthwise_5_2;
    if (a->kw == 7 && a->stride_w == 1) return depthwise_7_1;
    return NULL;
}

/* Positions begin .. end - 1 and channels col .. last - 1 of a depthwise convolution. */
static void depthwise_tile(const go_conv_args *a, size_t begin, size_t end, size_t col,
                           size_t last) {
    depthwise_loop *loop = common_loop(a);
    if (loop) {
        const outputs_rest rest = rest_of(a);
        for (; col < last; col += CHANNEL_BLOCK)
            loop(&rest, begin, end, col, go_min_size(col + CHANNEL_BLOCK, last));
        return;
    }
    for (size_t c = col; c < last; c += GO_LANES) {
        const size_t n = go_min_size(GO_LANES, last - c);
        if (a->src_dtype == GO_BF16)
            depthwise_run(a, begin, end, c, n, GO_BF16);
        else
            depthwise_run(a, begin, end, c, n, GO_F32);
    }
}

#endif
