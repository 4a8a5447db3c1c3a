/* go_winograd: 3 x 3 convolution of stride 1 with a quarter of the multiplications.
 *
 * A task is at most `tile_rows` tiles of 4 x 4 outputs, counted over the batch, and `tile_cols`
 * output channels. It brings the 6 x 6 pixels of its tiles to 36 values (winograd_tile.h), and for
 * 32 channels at a time multiplies the tiles' values at each of the 36 points by the packed weights
 * of that point, one chain of fused multiply-adds over channels from 0, and brings 36 products to
 * 16 outputs. All of it stays in the second cache of a core. What a tile computes depends on its
 * own pixels alone.
 *
 * Scratch: winograd_scratch_bytes; in_c is a multiple of 16. dst must not overlap src.
 */
#include "conv_outputs.h"
#include "split.h"
#include "tile_f32.h"
#include "winograd_tile.h"

enum { TILES = 6, MOST_COLS = 32, OUT = GO_WINOGRAD_OUT, IN = GO_WINOGRAD_IN };
enum { POINTS = GO_WINOGRAD_POINTS };

/* A thread's scratch memory, in floats. Values: [point][tile][channel]; products:
 * [tile][point][GO_TILE_COLS]; patch: [6][6][channel], of a tile that is not all inside.
 * Points are an odd number of cache lines apart, so that they do not fall on a few places of it. */
typedef struct {
    size_t point; /* from values to values */
    float *values, *products, *patch;
} scratch_memory;

GO_INLINE scratch_memory scratch_of(size_t thread, const go_conv_args *a) {
    scratch_memory s = {.point = (a->tile_rows * a->in_c / 16 | 1) * 16};
    const size_t products = a->tile_rows * POINTS * MOST_COLS, patch = POINTS * a->in_c;
    s.values = (float *)a->scratch + thread * (POINTS * s.point + products + patch);
    s.products = s.values + POINTS * s.point;
    s.patch = s.products + products;
    return s;
}

/* The tiles of an image as positions of a 6 x 6 window with a stride of 4. */
GO_INLINE go_windows tiles_of(const go_conv_args *a) {
    go_windows w = GO_WINDOWS_OF(a);
    w.kh = w.kw = IN, w.stride_h = w.stride_w = OUT;
    w.out_h = go_ceil_div(a->out_h, OUT), w.out_w = go_ceil_div(a->out_w, OUT);
    return w;
}

static void transform_inputs(const go_conv_args *a, const go_windows *tiles, size_t first,
                             size_t count, const scratch_memory *s) {
    const ptrdiff_t channels = (ptrdiff_t)a->in_c;
    for (size_t t = 0; t < count; t++) {
        const go_position p = go_position_of(tiles->out_h, tiles->out_w, first + t);
        const float *src = s->patch;
        ptrdiff_t line = IN * channels, pixel = channels;
        if (a->src_dtype == GO_F32 && go_is_interior(tiles, p, 1)) {
            src = (const float *)a->src + go_pixel(tiles, p.batch,
                                                   go_input_at(p.h, OUT, 0, 1, a->pad_top),
                                                   go_input_at(p.w, OUT, 0, 1, a->pad_left));
            line = a->src_stride[1], pixel = a->src_stride[2];
        } else if (a->src_dtype == GO_F32)
            go_copy_window(tiles, p, 0, a->in_c, s->patch, GO_F32);
        else
            go_copy_window(tiles, p, 0, a->in_c, s->patch, GO_BF16);
        for (size_t c = 0; c < a->in_c; c += GO_REG_LANES)
            go_winograd_input(src + c, line, pixel, s->values + t * a->in_c + c, s->point);
    }
}

/* Products of `count` tiles at all points, for `cols` output channels from `col` on. */
static void multiply_tiles(const go_conv_args *a, size_t count, size_t col, size_t cols,
                           const scratch_memory *s) {
    const size_t depth = POINTS * a->in_c;
    go_f32_operands o = {.a_stride = (ptrdiff_t)a->in_c, .ldb = GO_LANES, .k = a->in_c};
    o.b_next = (ptrdiff_t)(GO_LANES * depth);
    for (size_t point = 0; point < POINTS; point++) {
        o.a = s->values + point * s->point;
        o.b = (const float *)a->rhs + col * depth + point * a->in_c * GO_LANES;
        go_tile_f32(&o, count, cols, s->products + point * GO_TILE_COLS, POINTS * GO_TILE_COLS);
    }
}

static void store_outputs(const go_conv_args *a, const go_windows *tiles, size_t first,
                          size_t count, size_t col, size_t cols, const scratch_memory *s) {
    float sums[OUT * OUT * GO_TILE_COLS];
    for (size_t t = 0; t < count; t++) {
        const go_position p = go_position_of(tiles->out_h, tiles->out_w, first + t);
        const float *products = s->products + t * POINTS * GO_TILE_COLS;
        for (size_t c = 0; c < cols; c += GO_REG_LANES)
            go_winograd_output(products + c, GO_TILE_COLS, sums + c, GO_TILE_COLS);
        const size_t lines = go_min_size(OUT, a->out_h - OUT * p.h);
        const size_t width = go_min_size(OUT, a->out_w - OUT * p.w);
        for (size_t i = 0; i < lines; i++) {
            const size_t at = (p.batch * a->out_h + OUT * p.h + i) * a->out_w + OUT * p.w;
            store_sums(a, at, width, col, cols, sums + i * OUT * GO_TILE_COLS, GO_TILE_COLS);
        }
    }
}

void GO_NAME(winograd)(go_team *team, const go_conv_args *a);

void GO_NAME(winograd)(go_team *team, const go_conv_args *a) {
    const go_windows tiles = tiles_of(a);
    const scratch_memory s = scratch_of(team->rank, a);
    const go_positions_cut cut =
        go_cut_positions(a->batch * tiles.out_h * tiles.out_w, TILES, a->tile_rows);
    const size_t pieces = go_ceil_div(a->out_c, a->tile_cols), tasks = cut.lines * pieces;
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        const size_t line = task / pieces, first = go_first_position(&cut, line);
        const size_t count = go_first_position(&cut, line + 1) - first;
        size_t col = task % pieces * a->tile_cols;
        const size_t end = go_min_size(col + a->tile_cols, a->out_c);
        transform_inputs(a, &tiles, first, count, &s);
        for (; col < end; col += GO_TILE_COLS) {
            const size_t cols = go_min_size(GO_TILE_COLS, end - col);
            multiply_tiles(a, count, col, cols, &s);
            store_outputs(a, &tiles, first, count, col, cols, &s);
        }
    }
}
