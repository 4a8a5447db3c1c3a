/* go_conv: 1-D and 2-D convolution, channels innermost.
 *
 * Dense and grouped: a task is `tile_rows` output positions of one group. It copies
 * their windows, widened to f32 and 0 outside the image, as rows [kh][kw][in_c /
 * groups] into its thread's scratch memory and multiplies them by the packed weights:
 * one chain of fused multiply-adds per output, in this order, from 0. So a position
 * outside the image and a stored 0 give the same bits.
 *
 * Depthwise (one channel per group): the same chain on 16 channels at a time, without
 * the copy; a task is `tile_rows` positions of all channels.
 *
 * Scratch, in floats: threads * tile_rows * kh * kw * in_c / groups, each thread's
 * part rounded up to 16; none for depthwise (conv_scratch_bytes). dst must not
 * overlap src.
 */
#include "tile_f32.h"
#include "window.h"

enum { STORE_ROWS = 2 * GO_TILE_ROWS, NEIGHBOURS = 4 };

GO_INLINE go_position position_of(const go_conv_args *a, size_t index) {
    return go_position_of(a->out_h, a->out_w, index);
}

GO_INLINE void *dst_of(const go_conv_args *a, go_position p) {
    ptrdiff_t at = (ptrdiff_t)p.batch * a->dst_stride[0] + (ptrdiff_t)p.h * a->dst_stride[1] +
                   (ptrdiff_t)p.w * a->dst_stride[2];
    return go_at_mut(a->dst, at, a->dst_dtype);
}

/* Epilogue and store of rows x cols sums, at output channel `channel`. */
static void store_sums(const go_conv_args *a, size_t first, size_t rows, size_t channel,
                       size_t cols, const float *tile) {
    for (size_t c = 0; c < cols; c += GO_LANES) {
        size_t n = go_min_size(GO_LANES, cols - c);
        const float *bias = a->epilogue.bias;
        go_f32x16 shift = bias ? go_load_n(bias + channel + c, n) : go_zero();
        for (size_t r = 0; r < rows; r++) {
            go_f32x16 v = go_load(tile + r * GO_TILE_COLS + c);
            if (bias) v += shift;
            void *dst = dst_of(a, position_of(a, first + r));
            go_epilogue_store(&a->epilogue, dst, 0, a->dst_dtype, first + r, channel + c, v, n);
        }
    }
}

/* Output positions first .. first + rows - 1 of one group. */
static void dense_tile(const go_conv_args *a, size_t group, size_t first, size_t rows,
                       float *windows) {
    size_t channels = a->in_c / a->groups, cols = a->out_c / a->groups;
    size_t depth = a->kh * a->kw * channels;
    const go_windows w = GO_WINDOWS_OF(a);
    for (size_t r = 0; r < rows; r++) {
        go_position p = position_of(a, first + r);
        if (a->src_dtype == GO_BF16)
            go_copy_window(&w, p, group * channels, channels, windows + r * depth, GO_BF16);
        else
            go_copy_window(&w, p, group * channels, channels, windows + r * depth, GO_F32);
    }
    float tile[STORE_ROWS * GO_TILE_COLS];
    const float *rhs = (const float *)a->rhs + group * go_ceil_div(cols, 16) * 16 * depth;
    go_f32_operands o = {.a_stride = (ptrdiff_t)depth, .ldb = GO_LANES, .k = depth};
    o.b_next = (ptrdiff_t)(GO_LANES * depth);
    for (size_t c = 0; c < cols; c += GO_TILE_COLS)
        for (size_t r = 0; r < rows; r += STORE_ROWS) {
            size_t some_rows = go_min_size(STORE_ROWS, rows - r);
            size_t some_cols = go_min_size(GO_TILE_COLS, cols - c);
            o.a = windows + r * depth, o.b = rhs + c * depth;
            go_tile_f32(&o, some_rows, some_cols, tile, GO_TILE_COLS);
            store_sums(a, first + r, some_rows, group * cols + c, some_cols, tile);
        }
}

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

static void depthwise_tile(const go_conv_args *a, size_t begin, size_t end) {
    for (size_t c = 0; c < a->out_c; c += GO_LANES) {
        size_t n = go_min_size(GO_LANES, a->out_c - c);
        if (a->src_dtype == GO_BF16)
            depthwise_run(a, begin, end, c, n, GO_BF16);
        else if (n == GO_LANES)
            depthwise_run(a, begin, end, c, GO_LANES, GO_F32);
        else
            depthwise_run(a, begin, end, c, n, GO_F32);
    }
}

/* Floats of a thread's windows in the scratch memory. */
GO_INLINE size_t window_floats(const go_conv_args *a) {
    return go_ceil_div(a->tile_rows * a->kh * a->kw * (a->in_c / a->groups), 16) * 16;
}

void GO_NAME(conv)(go_team *team, const go_conv_args *a);

void GO_NAME(conv)(go_team *team, const go_conv_args *a) {
    size_t positions = a->batch * a->out_h * a->out_w;
    size_t tiles = go_ceil_div(positions, a->tile_rows);
    int depthwise = a->groups == a->in_c && a->groups == a->out_c;
    size_t groups = depthwise ? 1 : a->groups, tasks = tiles * groups;
    float *windows = (float *)a->scratch + team->rank * window_floats(a);
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        size_t first = task % tiles * a->tile_rows;
        size_t rows = go_min_size(a->tile_rows, positions - first);
        if (depthwise)
            depthwise_tile(a, first, first + rows);
        else
            dense_tile(a, task / tiles, first, rows, windows);
    }
}
