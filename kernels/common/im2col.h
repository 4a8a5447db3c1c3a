/* im2col: windows of an image as the packed left operand of a GEMM: the windows of a dense
 * convolution, whose products are then plain rows times columns. */
#ifndef GO_IM2COL_H
#define GO_IM2COL_H

#include "split.h"
#include "window.h"

/* GO_NAME_IM2COL(pack_bf16_1x2) is go_pack_bf16_1x2_avx2_im2col at the level avx2. */
#define GO_NAME_IM2COL_3(op, isa) go_##op##_##isa##_im2col
#define GO_NAME_IM2COL_2(op, isa) GO_NAME_IM2COL_3(op, isa)
#define GO_NAME_IM2COL(op) GO_NAME_IM2COL_2(op, GO_ISA)

enum { GO_IM2COL_ROWS = 8 }; /* of a task: a panel, or several */

/* Packs all rows of the arguments, at most GO_IM2COL_ROWS. */
typedef void go_pack_few(const go_pack_lhs_args *args);

/* Whether the windows of `count` positions from p on lie in memory as they are, at equal
 * distance: whole pixels side by side. */
GO_INLINE int go_im2col_lie(const go_im2col_args *a, const go_windows *w, go_position p,
                            size_t count) {
    int together = a->kw == 1 || (a->dilation_w == 1 && a->src_stride[2] == (ptrdiff_t)a->channels);
    return a->kh == 1 && together && p.w + count <= a->out_w && go_is_interior(w, p, count);
}

/* Floats of a thread's windows, of k values each, in the scratch memory. */
GO_INLINE size_t go_im2col_floats(size_t k) { return go_ceil_div(GO_IM2COL_ROWS * k, 16) * 16; }

/* A task is GO_IM2COL_ROWS positions: their windows go to scratch memory of the thread,
 * unless they can be read where they are, and from there to the panels. */
GO_INLINE void go_pack_im2col(go_team *team, const go_im2col_args *a, size_t row_bytes,
                              go_pack_few *pack) {
    const size_t positions = a->batch * a->out_h * a->out_w, k = a->kh * a->kw * a->channels;
    const go_windows w = GO_WINDOWS_OF(a);
    float *rows = (float *)a->scratch + team->rank * go_im2col_floats(k);
    const size_t tasks = go_ceil_div(positions, GO_IM2COL_ROWS);
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        const size_t first = task * GO_IM2COL_ROWS;
        go_pack_lhs_args few = {.m = go_min_size(GO_IM2COL_ROWS, positions - first), .k = k};
        few.dst = (char *)a->dst + first * row_bytes;
        go_position p = go_position_of(a->out_h, a->out_w, first);
        if (go_im2col_lie(a, &w, p, few.m)) {
            ptrdiff_t y = go_input_at(p.h, a->stride_h, 0, 1, a->pad_top);
            ptrdiff_t x = go_input_at(p.w, a->stride_w, 0, 1, a->pad_left);
            few.src = go_at(a->src, go_pixel(&w, p.batch, y, x), a->src_dtype);
            few.src_stride = (ptrdiff_t)a->stride_w * a->src_stride[2];
            few.src_dtype = a->src_dtype;
        } else {
            few.src = rows, few.src_stride = (ptrdiff_t)k, few.src_dtype = GO_F32;
            for (size_t r = 0; r < few.m; r++) {
                p = go_position_of(a->out_h, a->out_w, first + r);
                if (a->src_dtype == GO_BF16)
                    go_copy_window(&w, p, 0, a->channels, rows + r * k, GO_BF16);
                else
                    go_copy_window(&w, p, 0, a->channels, rows + r * k, GO_F32);
            }
        }
        pack(&few);
    }
}

#endif
