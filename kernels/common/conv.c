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
#include "conv_depthwise.h"
#include "split.h"
#include "tile_f32.h"

enum { UNIT = 6, BAND = 48, DEPTH = 512 };

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

/* Floats of a thread's windows in the scratch memory. */
GO_INLINE size_t window_floats(const go_conv_args *a) {
    return go_ceil_div(a->tile_rows * a->kh * a->kw * (a->in_c / a->groups), 16) * 16;
}

/* Depthwise loops do LINE outputs of a line of the image at once, where that comes out even. */
GO_INLINE go_positions_cut cut_positions(const go_conv_args *a, int depthwise) {
    const size_t unit = depthwise && a->out_w % LINE == 0 ? LINE : UNIT;
    return go_cut_positions(a->batch * a->out_h * a->out_w, unit, a->tile_rows);
}

void GO_NAME(conv)(go_team *team, const go_conv_args *a);

void GO_NAME(conv)(go_team *team, const go_conv_args *a) {
    const int depthwise = a->groups == a->in_c && a->groups == a->out_c;
    const size_t groups = depthwise ? 1 : a->groups, cols = a->out_c / groups;
    const go_positions_cut cut = cut_positions(a, depthwise);
    const size_t pieces = go_ceil_div(cols, a->tile_cols), tasks = cut.lines * pieces * groups;
    float *windows = (float *)a->scratch + team->rank * window_floats(a);
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        const size_t line = task / pieces % cut.lines, col = task % pieces * a->tile_cols;
        const size_t first = go_first_position(&cut, line),
                     last = go_first_position(&cut, line + 1);
        const size_t end = go_min_size(col + a->tile_cols, cols);
        if (depthwise)
            depthwise_tile(a, first, last, col, end);
        else
            dense_tile(a, task / pieces / cut.lines, first, last - first, col, end, windows);
    }
}
