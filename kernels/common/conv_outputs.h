/* Where the outputs of go_conv lie, and how they are stored. */
#ifndef GO_CONV_OUTPUTS_H
#define GO_CONV_OUTPUTS_H

#include "go_epilogue.h"
#include "window.h"

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

#endif
