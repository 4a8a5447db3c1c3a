/* go_conv: 1-D and 2-D convolution, channels innermost.
 *
 * Dense and grouped: a task is at most `tile_rows` output positions and `tile_cols` output
 * channels of one group. It copies the windows, widened to f32 and 0 outside the image, as
 * rows [kh][kw][in_c / groups] into its thread's scratch memory and multiplies them by the
 * packed weights: one chain of fused multiply-adds per output, in this order, from 0. So a
 * position outside the image and a stored 0 give the same bits. Products run over BAND rows
 * and DEPTH values at once: weights come from a far cache once for all rows of a band.
 *
 * Depthwise (one channel per group): the same chain on 16 channels at a time, without
 * the copy. Windows of common widths have loops that load an input once for neighbouring
 * outputs.
 *
 * Scratch, in floats: threads * tile_rows * kh * kw * in_c / groups, each thread's
 * part rounded up to 16; none for depthwise (conv_scratch_bytes). dst must not
 * overlap src.
 */
#include "split.h"
#include "tile_f32.h"
#include "window.h"

/* Outputs of a depthwise convolution whose sums, with the weights of a line of taps, are in
 * registers. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define GO_LINE 8
#else
#define GO_LINE 4
#endif

enum { UNIT = 6, BAND = 48, DEPTH = 512, NEIGHBOURS = 4, LINE = GO_LINE, WIDEST = 7 };

GO_INLINE go_position position_of(const go_conv_args *a, size_t index) {
    return go_position_of(a->out_h, a->out_w, index);
}

/* The position behind p in order. */
GO_INLINE go_position after(const go_conv_args *a, go_position p) {
    if (++p.w < a->out_w) return p;
    p.w = 0;
    if (++p.h < a->out_h) return p;
    p.h = 0, p.batch++;
    return p;
}

GO_INLINE void *dst_of(const go_conv_args *a, go_position p) {
    ptrdiff_t at = (ptrdiff_t)p.batch * a->dst_stride[0] + (ptrdiff_t)p.h * a->dst_stride[1] +
                   (ptrdiff_t)p.w * a->dst_stride[2];
    return go_at_mut(a->dst, at, a->dst_dtype);
}

/* Epilogue and store of rows x cols sums, at output channel `channel`. */
static void store_sums(const go_conv_args *a, size_t first, size_t rows, size_t channel,
                       size_t cols, const float *sums, size_t ld) {
    go_gemm_args one = {.dst_dtype = a->dst_dtype, .epilogue = a->epilogue};
    const ptrdiff_t step = a->dst_stride[2];
    if (a->dst_stride[1] == (ptrdiff_t)a->out_w * step &&
        a->dst_stride[0] == (ptrdiff_t)a->out_h * a->dst_stride[1]) {
        one.dst = a->dst, one.dst_stride = step;
        go_epilogue_tile(&one, first, rows, channel, cols, sums, ld);
        return;
    }
    go_position p = position_of(a, first);
    for (size_t r = 0; r < rows; r++, p = after(a, p)) {
        one.dst = dst_of(a, p); /* of every row: its stride is 0 */
        go_epilogue_tile(&one, first + r, 1, channel, cols, sums + r * ld, ld);
    }
}

static void copy_windows(const go_conv_args *a, size_t group, size_t first, size_t rows,
                         float *windows) {
    const size_t channels = a->in_c / a->groups, depth = a->kh * a->kw * channels;
    const go_windows w = GO_WINDOWS_OF(a);
    go_position p = position_of(a, first);
    for (size_t r = 0; r < rows; r++, p = after(a, p)) {
        if (a->src_dtype == GO_BF16)
            go_copy_window(&w, p, group * channels, channels, windows + r * depth, GO_BF16);
        else
            go_copy_window(&w, p, group * channels, channels, windows + r * depth, GO_F32);
    }
}

/* Output positions first .. first + rows - 1 and channels col .. end - 1 of one group. */
static void dense_tile(const go_conv_args *a, size_t group, size_t first, size_t rows, size_t col,
                       size_t end, float *windows) {
    const size_t cols = a->out_c / a->groups, depth = a->kh * a->kw * (a->in_c / a->groups);
    copy_windows(a, group, first, rows, windows);
    float sums[BAND * GO_TILE_COLS];
    const float *rhs = (const float *)a->rhs + group * go_ceil_div(cols, 16) * 16 * depth;
    go_f32_operands o = {.a_stride = (ptrdiff_t)depth, .ldb = GO_LANES};
    o.b_next = (ptrdiff_t)(GO_LANES * depth);
    for (; col < end; col += GO_TILE_COLS)
        for (size_t r = 0; r < rows; r += BAND) {
            const size_t some_rows = go_min_size(BAND, rows - r);
            const size_t some_cols = go_min_size(GO_TILE_COLS, end - col);
            for (size_t k = 0; k < depth; k += DEPTH) {
                o.a = windows + r * depth + k, o.b = rhs + col * depth + k * GO_LANES;
                o.k = go_min_size(DEPTH, depth - k);
                if (k)
                    go_more_tile_f32(&o, some_rows, some_cols, sums, GO_TILE_COLS);
                else
                    go_tile_f32(&o, some_rows, some_cols, sums, GO_TILE_COLS);
            }
            store_sums(a, first + r, some_rows, group * cols + col, some_cols, sums, GO_TILE_COLS);
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

/* Whether results are final behind the bias but for a relu. */
GO_INLINE int is_plain(const go_conv_args *a) {
    const go_gemm_args one = {.dst_dtype = a->dst_dtype, .epilogue = a->epilogue};
    return go_epilogue_is_plain(&one);
}

/* `count` outputs side by side from p on, all of whose taps lie in columns of the image, 16
 * channels from c on. An input is loaded once for all outputs that read it; the chains are
 * those of depthwise_sums. count, kw, step (of columns) and plain must be constants. */
GO_INLINE void line_outputs(const go_conv_args *a, go_position p, size_t index, size_t c,
                            const int count, const int kw, const int step, const int plain) {
    static const float outside[GO_LANES];
    const ptrdiff_t x = (ptrdiff_t)(p.w * (size_t)step) - a->pad_left;
    const float *row[WIDEST], *bias = a->epilogue.bias;
    ptrdiff_t pixel[WIDEST]; /* from column to column; 0 in a row outside the image */
    for (size_t i = 0; i < a->kh; i++) {
        const ptrdiff_t y = go_input_at(p.h, a->stride_h, i, a->dilation_h, a->pad_top);
        const int inside = y >= 0 && y < (ptrdiff_t)a->in_h;
        const ptrdiff_t at = (ptrdiff_t)p.batch * a->src_stride[0] + y * a->src_stride[1] +
                             x * a->src_stride[2] + (ptrdiff_t)c;
        row[i] = inside ? (const float *)a->src + at : outside;
        pixel[i] = inside ? a->src_stride[2] : 0;
    }
    float tile[LINE * GO_LANES];
    float *dst = plain ? (float *)dst_of(a, p) + c : tile;
    const ptrdiff_t dst_step = plain ? a->dst_stride[2] : GO_LANES;
    const size_t weights = a->out_c;
    GO_UNROLLED (q, GO_REGS) {
        const size_t at = (size_t)q * GO_REG_LANES;
        const float *weight = (const float *)a->rhs + c + at;
        go_reg sum[LINE];
        GO_UNROLLED (k, count) sum[k] = go_reg_zero();
        for (size_t i = 0; i < a->kh; i++) {
            const float *u = row[i] + at;
            go_reg w[WIDEST];
            GO_UNROLLED (j, kw) {
                w[j] = go_reg_load(weight);
                weight += weights;
            }
            GO_UNROLLED (s, (count - 1) * step + kw) {
                const go_reg v = go_reg_load(u);
                u += pixel[i];
                GO_UNROLLED (k, count)
                    if (s >= k * step && s < k * step + kw)
                        sum[k] = go_reg_fma(w[s - k * step], v, sum[k]);
            }
        }
        if (plain && bias) {
            const go_reg shift = go_reg_load(bias + c + at);
            GO_UNROLLED (k, count) sum[k] += shift;
        }
        if (plain && a->epilogue.activation)
            GO_UNROLLED (k, count) sum[k] = go_reg_relu(sum[k]);
        GO_UNROLLED (k, count) go_reg_store(dst + k * dst_step + at, sum[k]);
    }
    if (!plain) store_sums(a, index, (size_t)count, c, GO_LANES, tile, GO_LANES);
}

/* Positions begin .. end - 1 of 16 channels of f32, with taps side by side. */
GO_INLINE void depthwise_lines(const go_conv_args *a, size_t begin, size_t end, size_t c,
                               const int kw, const int step, const int plain) {
    const int count = step == 1 ? LINE : LINE / 2;
    const size_t pad = a->pad_left > 0 ? (size_t)a->pad_left : 0;
    const size_t from = go_ceil_div(pad, (size_t)step);
    const ptrdiff_t last = (ptrdiff_t)a->in_w + a->pad_left - kw;
    const size_t to = last < 0 ? 0 : go_min_size((size_t)last / (size_t)step + 1, a->out_w);
    go_position p = position_of(a, begin);
    for (size_t i = begin; i < end;) {
        const size_t line = go_min_size(end - i, to > p.w ? to - p.w : 0);
        size_t done = 1;
        if (p.w >= from && line >= (size_t)count)
            line_outputs(a, p, i, c, count, kw, step, plain), done = (size_t)count;
        else if (p.w >= from && line >= (size_t)count / 2)
            line_outputs(a, p, i, c, count / 2, kw, step, plain), done = (size_t)count / 2;
        else
            depthwise_outputs(a, i, c, GO_LANES, 1, GO_F32);
        i += done;
        p.w += done - 1;
        p = after(a, p);
    }
}

/* The loops for windows that are common; 0 if there is none for these. */
static int depthwise_common(const go_conv_args *a, size_t begin, size_t end, size_t c) {
    if (a->dilation_w != 1 || a->kh > WIDEST) return 0;
    const int plain = is_plain(a);
#define LINES(width, step)                                     \
    if (a->kw == (width) && a->stride_w == (step)) {           \
        if (plain)                                             \
            depthwise_lines(a, begin, end, c, width, step, 1); \
        else                                                   \
            depthwise_lines(a, begin, end, c, width, step, 0); \
        return 1;                                              \
    }
    LINES(3, 1)
    LINES(3, 2)
    LINES(5, 1)
    LINES(5, 2)
    LINES(7, 1)
#undef LINES
    return 0;
}

static void depthwise_tile(const go_conv_args *a, size_t begin, size_t end, size_t col,
                           size_t last) {
    for (size_t c = col; c < last; c += GO_LANES) {
        size_t n = go_min_size(GO_LANES, last - c);
        if (a->src_dtype == GO_BF16)
            depthwise_run(a, begin, end, c, n, GO_BF16);
        else if (n < GO_LANES)
            depthwise_run(a, begin, end, c, n, GO_F32);
        else if (!depthwise_common(a, begin, end, c))
            depthwise_run(a, begin, end, c, GO_LANES, GO_F32);
    }
}

/* Floats of a thread's windows in the scratch memory. */
GO_INLINE size_t window_floats(const go_conv_args *a) {
    return go_ceil_div(a->tile_rows * a->kh * a->kw * (a->in_c / a->groups), 16) * 16;
}

/* Positions in lines of tasks, as equal as units of UNIT allow. */
typedef struct {
    size_t positions, unit, units, lines;
} positions_cut;

GO_INLINE positions_cut cut_positions(const go_conv_args *a) {
    positions_cut c = {.positions = a->batch * a->out_h * a->out_w};
    c.unit = go_min_size(UNIT, a->tile_rows);
    c.units = go_ceil_div(c.positions, c.unit);
    c.lines = go_ceil_div(c.units, a->tile_rows / c.unit);
    return c;
}

GO_INLINE size_t first_position(const positions_cut *c, size_t line) {
    return go_min_size(c->units * line / c->lines * c->unit, c->positions);
}

void GO_NAME(conv)(go_team *team, const go_conv_args *a);

void GO_NAME(conv)(go_team *team, const go_conv_args *a) {
    const int depthwise = a->groups == a->in_c && a->groups == a->out_c;
    const size_t groups = depthwise ? 1 : a->groups, cols = a->out_c / groups;
    const positions_cut cut = cut_positions(a);
    const size_t pieces = go_ceil_div(cols, a->tile_cols), tasks = cut.lines * pieces * groups;
    float *windows = (float *)a->scratch + team->rank * window_floats(a);
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        const size_t line = task / pieces % cut.lines, col = task % pieces * a->tile_cols;
        const size_t first = first_position(&cut, line), last = first_position(&cut, line + 1);
        const size_t end = go_min_size(col + a->tile_cols, cols);
        if (depthwise)
            depthwise_tile(a, first, last, col, end);
        else
            dense_tile(a, task / pieces / cut.lines, first, last - first, col, end, windows);
    }
}
