/* The windows that a convolution reads, channels innermost, as rows in memory. */
#ifndef GO_WINDOW_H
#define GO_WINDOW_H

#include "go_vec.h"

/* Where the windows lie: of a convolution, or of im2col. Strides: batch, h, w. */
typedef struct {
    size_t in_h, in_w, out_h, out_w, kh, kw;
    size_t stride_h, stride_w, dilation_h, dilation_w;
    ptrdiff_t pad_top, pad_left;
    const void *src;
    ptrdiff_t src_stride[3];
    go_dtype src_dtype;
} go_windows;

/* From the arguments of a kernel with fields of these names. */
#define GO_WINDOWS_OF(a)                                                        \
    ((go_windows){(a)->in_h,                                                    \
                  (a)->in_w,                                                    \
                  (a)->out_h,                                                   \
                  (a)->out_w,                                                   \
                  (a)->kh,                                                      \
                  (a)->kw,                                                      \
                  (a)->stride_h,                                                \
                  (a)->stride_w,                                                \
                  (a)->dilation_h,                                              \
                  (a)->dilation_w,                                              \
                  (a)->pad_top,                                                 \
                  (a)->pad_left,                                                \
                  (a)->src,                                                     \
                  {(a)->src_stride[0], (a)->src_stride[1], (a)->src_stride[2]}, \
                  (a)->src_dtype})

typedef struct {
    size_t batch, h, w; /* of the output */
} go_position;

GO_INLINE go_position go_position_of(size_t out_h, size_t out_w, size_t index) {
    return (go_position){index / out_w / out_h, index / out_w % out_h, index % out_w};
}

/* Input row or column that tap `tap` of output `out` reads; may lie outside. */
GO_INLINE ptrdiff_t go_input_at(size_t out, size_t stride, size_t tap, size_t dilation,
                                ptrdiff_t pad) {
    return (ptrdiff_t)(out * stride + tap * dilation) - pad;
}

GO_INLINE int go_is_inside(const go_windows *w, ptrdiff_t y, ptrdiff_t x) {
    return y >= 0 && y < (ptrdiff_t)w->in_h && x >= 0 && x < (ptrdiff_t)w->in_w;
}

/* Element offset of a pixel of batch entry b. */
GO_INLINE ptrdiff_t go_pixel(const go_windows *w, size_t b, ptrdiff_t y, ptrdiff_t x) {
    return (ptrdiff_t)b * w->src_stride[0] + y * w->src_stride[1] + x * w->src_stride[2];
}

/* Whether every tap of `count` outputs side by side from p on lies in the image. */
GO_INLINE int go_is_interior(const go_windows *w, go_position p, size_t count) {
    ptrdiff_t y = go_input_at(p.h, w->stride_h, 0, w->dilation_h, w->pad_top);
    ptrdiff_t x = go_input_at(p.w, w->stride_w, 0, w->dilation_w, w->pad_left);
    ptrdiff_t last_y = y + (ptrdiff_t)((w->kh - 1) * w->dilation_h);
    ptrdiff_t last_x = x + (ptrdiff_t)((count - 1) * w->stride_w + (w->kw - 1) * w->dilation_w);
    return go_is_inside(w, y, x) && go_is_inside(w, last_y, last_x);
}

/* n < 16 values; where there are four or more in two pieces, which may overlap. */
GO_INLINE void go_copy_few(float *dst, const float *src, size_t n) {
    if (n >= 8) {
        memcpy(dst, src, 8 * sizeof(float));
        memcpy(dst + n - 8, src + n - 8, 8 * sizeof(float));
    } else if (n >= 4) {
        memcpy(dst, src, 4 * sizeof(float));
        memcpy(dst + n - 4, src + n - 4, 4 * sizeof(float));
    } else {
        for (size_t i = 0; i < n; i++) dst[i] = src[i];
    }
}

/* n values side by side; the last vector of many may overlap the one before. */
GO_INLINE void go_copy_channels(float *dst, const void *src, ptrdiff_t at, size_t n,
                                go_dtype type) {
    size_t c = 0;
    for (; c + GO_LANES <= n; c += GO_LANES)
        go_store(dst + c, go_load_as(src, at + (ptrdiff_t)c, type, GO_LANES));
    if (c && c < n) {
        const size_t last = n - GO_LANES;
        go_store(dst + last, go_load_as(src, at + (ptrdiff_t)last, type, GO_LANES));
        return;
    }
    if (c < n && type == GO_F32) go_copy_few(dst + c, (const float *)src + at + c, n - c);
    if (type == GO_F32) return;
    for (; c < n; c++) dst[c] = go_f32_from_bf16(((const uint16_t *)src)[at + (ptrdiff_t)c]);
}

/* The same for taps of which each begins where the one before ends. */
GO_INLINE void go_copy_side_by_side(const go_windows *w, go_position p, float *row, size_t channels,
                                    go_dtype type) {
    const ptrdiff_t taps = (ptrdiff_t)w->kw, in_w = (ptrdiff_t)w->in_w;
    const ptrdiff_t x = go_input_at(p.w, w->stride_w, 0, 1, w->pad_left);
    const ptrdiff_t from = x < 0 ? (-x < taps ? -x : taps) : 0;
    const ptrdiff_t to = x + taps > in_w ? (in_w - x > from ? in_w - x : from) : taps;
    const size_t before = (size_t)from * channels, end = (size_t)to * channels;
    const size_t all = (size_t)taps * channels;
    for (size_t i = 0; i < w->kh; i++, row += all) {
        const ptrdiff_t y = go_input_at(p.h, w->stride_h, i, w->dilation_h, w->pad_top);
        if (y < 0 || y >= (ptrdiff_t)w->in_h || from == to) {
            memset(row, 0, all * sizeof(float));
            continue;
        }
        if (before) memset(row, 0, before * sizeof(float));
        go_copy_channels(row + before, w->src, go_pixel(w, p.batch, y, x + from), end - before,
                         type);
        if (end < all) memset(row + end, 0, (all - end) * sizeof(float));
    }
}

/* The window of one output position as f32 [kh][kw][channels] for the channels from
 * `channel` on; 0 outside the image. */
GO_INLINE void go_copy_window(const go_windows *w, go_position p, size_t channel, size_t channels,
                              float *row, go_dtype type) {
    if (w->dilation_w == 1 && w->src_stride[2] == (ptrdiff_t)channels) {
        go_copy_side_by_side(w, p, row, channels, type);
        return;
    }
    for (size_t i = 0; i < w->kh; i++) {
        ptrdiff_t y = go_input_at(p.h, w->stride_h, i, w->dilation_h, w->pad_top);
        for (size_t j = 0; j < w->kw; j++, row += channels) {
            ptrdiff_t x = go_input_at(p.w, w->stride_w, j, w->dilation_w, w->pad_left);
            if (go_is_inside(w, y, x))
                go_copy_channels(row, w->src, go_pixel(w, p.batch, y, x) + (ptrdiff_t)channel,
                                 channels, type);
            else
                memset(row, 0, channels * sizeof(float));
        }
    }
}

#endif
