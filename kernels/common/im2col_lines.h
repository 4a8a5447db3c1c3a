/* im2col of windows that overlap in an image: a line of outputs at a time, whose pixels become
 * narrow once, in scratch memory, zeros around the image included. Windows are copied from there.
 *
 * int8: the windows of a line share a quantizer, that of the range of all that they read
 * (quantize_rows in kernels/reference.py). A line that holds NaN is no number as a whole.
 *
 * A task is a few lines of one image. Scratch of a thread (im2col_scratch_bytes): the narrow
 * pixels of a line, a window, and the ranges of the rows of the image that the task reads.
 */
#ifndef GO_IM2COL_LINES_H
#define GO_IM2COL_LINES_H

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "quantize_row.h"
#include "split.h"
#include "window.h"

enum {
    GO_TASK_LINES = 4,    /* at most */
    GO_COPY_BYTES = 16,   /* at once; so much may be read and written behind an end */
    GO_MOST_PADDING = 32, /* bytes of a packed row behind its values, or more */
    GO_GROUP_BYTES = 8,   /* of a row that are neighbours in a panel of several rows */
    GO_PANEL_ROWS = GO_QA8_MR,
    GO_COPY_UNIT = GO_PANEL_ROWS == 1 ? GO_COPY_BYTES : GO_GROUP_BYTES,
};

_Static_assert((int)GO_BF16_MR == (int)GO_QA8_MR, "rows of both formats are placed alike");

/* Whether windows are made so. */
GO_INLINE int go_im2col_shares(const go_im2col_args *a) {
    return a->kh > 1 && a->dilation_w == 1 && a->stride_w < a->kw;
}

/* Sizes in bytes, but for the rows of the image that a task reads. */
typedef struct {
    size_t pixel, run, line; /* a pixel, the taps of a row of a window, the pixels of a tap row */
    size_t window, depth;    /* and with its padding */
    size_t rows;
} go_line_sizes;

GO_INLINE go_line_sizes go_line_sizes_of(const go_im2col_args *a, size_t value, size_t depth) {
    go_line_sizes s = {.pixel = a->channels * value, .depth = depth};
    s.run = a->kw * s.pixel, s.window = a->kh * s.run;
    s.line = ((a->out_w - 1) * a->stride_w + a->kw) * s.pixel;
    s.rows = (GO_TASK_LINES - 1) * a->stride_h + (a->kh - 1) * a->dilation_h + 1;
    return s;
}

/* Of a thread. */
GO_INLINE size_t go_line_scratch(const go_im2col_args *a, const go_line_sizes *s) {
    const size_t bytes = a->kh * s->line + s->window + GO_MOST_PADDING + 2 * GO_COPY_BYTES;
    return go_ceil_div(bytes + s->rows * sizeof(go_limits), 64) * 64;
}

typedef struct {
    char *pixels, *window;
    go_limits *ranges;
} go_line_memory;

GO_INLINE go_line_memory go_line_memory_of(const go_team *team, const go_im2col_args *a,
                                           const go_line_sizes *s) {
    char *at = (char *)a->scratch + team->rank * go_line_scratch(a, s);
    char *pixels = at + s->rows * sizeof(go_limits);
    return (go_line_memory){pixels, pixels + a->kh * s->line + GO_COPY_BYTES, (go_limits *)at};
}

/* Row y of the image in item b, from the first to the last column that windows read. */
typedef struct {
    ptrdiff_t at;  /* of the first value */
    size_t before; /* columns outside the image before it */
    size_t count;  /* columns, 0 in a row outside */
} go_line_row;

GO_INLINE go_line_row go_line_row_of(const go_im2col_args *a, size_t b, ptrdiff_t y) {
    const go_windows w = GO_WINDOWS_OF(a);
    const ptrdiff_t x = -a->pad_left;
    const ptrdiff_t columns = (ptrdiff_t)((a->out_w - 1) * a->stride_w + a->kw);
    const ptrdiff_t from = x < 0 ? (-x < columns ? -x : columns) : 0;
    const ptrdiff_t end = (ptrdiff_t)a->in_w - x, to = end < columns ? end : columns;
    if (y < 0 || y >= (ptrdiff_t)a->in_h || to <= from) return (go_line_row){0, (size_t)from, 0};
    return (go_line_row){go_pixel(&w, b, y, x + from), (size_t)from, (size_t)(to - from)};
}

/* Runs of values that lie side by side: their number, and how many values each has. */
GO_INLINE size_t go_line_runs(const go_im2col_args *a, const go_line_row *row, size_t *values) {
    const int together = a->src_stride[2] == (ptrdiff_t)a->channels;
    *values = a->channels * (together ? row->count : 1);
    return together ? row->count > 0 : row->count;
}

GO_INLINE go_limits go_line_limits(const go_im2col_args *a, const go_line_row *row, go_dtype type) {
    go_range range = go_range_init();
    size_t n;
    const size_t runs = go_line_runs(a, row, &n);
    for (size_t r = 0; r < runs; r++) {
        const ptrdiff_t at = row->at + (ptrdiff_t)r * a->src_stride[2];
        size_t j = 0;
        for (; j + GO_LANES <= n; j += GO_LANES)
            go_range_add(&range, go_load_as(a->src, at + (ptrdiff_t)j, type, GO_LANES));
        if (j < n) go_range_add(&range, go_load_as(a->src, at + (ptrdiff_t)j, type, n - j));
    }
    return go_range_limits(&range);
}

/* The range of two; what is not finite shows. */
GO_INLINE go_limits go_wider(go_limits x, go_limits y) {
    const float finite = x.finite + y.finite + (y.hi - y.lo) * 0.0f;
    return (go_limits){y.lo < x.lo ? y.lo : x.lo, y.hi > x.hi ? y.hi : x.hi, finite};
}

/* Sixteen values as int8 by a quantizer (valid), or as bf16 without one. */
GO_INLINE void go_narrow_16(char *dst, go_f32x16 v, const go_quantizer *z, const float *addend) {
#if defined(__aarch64__)
    if (z) { /* the multiply-add overwrites the addend, and a load is cheaper than a copy */
        int16x8_t half[2];
        GO_UNROLLED (h, 2) {
            float32x4_t x, y;
            memcpy(&x, (const char *)&v + 32 * h, 16);
            memcpy(&y, (const char *)&v + 32 * h + 16, 16);
            GO_OPAQUE(addend);
            x = vfmaq_n_f32(vld1q_f32(addend), x, z->s);
            GO_OPAQUE(addend);
            y = vfmaq_n_f32(vld1q_f32(addend), y, z->s);
            half[h] = vuzp1q_s16(vreinterpretq_s16_f32(x), vreinterpretq_s16_f32(y));
        }
        vst1q_s8((int8_t *)dst, vqmovn_high_s16(vqmovn_s16(half[0]), half[1]));
        return;
    }
#endif
    (void)addend;
    if (z) {
        const go_i8x16 bytes = go_quantize_bytes(z, v);
        memcpy(dst, &bytes, 16);
    } else {
        go_store_bf16((uint16_t *)dst, v);
    }
}

/* n values from element `at` on. */
GO_INLINE void go_narrow(const go_im2col_args *a, ptrdiff_t at, size_t n, go_dtype type,
                         const go_quantizer *z, char *dst) {
    const size_t value = z ? 1 : 2;
    const float rounder = z ? go_quantizer_addend(z) : 0;
    const float addend[4] = {rounder, rounder, rounder, rounder};
    size_t j = 0;
    if (!z && type == GO_BF16) { /* copied, so that even NaN payloads stay as they are */
        memcpy(dst, (const uint16_t *)a->src + at, n * value);
        return;
    }
    for (; j + GO_LANES <= n; j += GO_LANES)
        go_narrow_16(dst + j * value, go_load_as(a->src, at + (ptrdiff_t)j, type, GO_LANES), z,
                     addend);
    if (j == n) return;
    char rest[2 * GO_LANES];
    go_narrow_16(rest, go_load_as(a->src, at + (ptrdiff_t)j, type, n - j), z, addend);
    memcpy(dst + j * value, rest, (n - j) * value);
}

/* All that the windows of line h read, narrow. Outside the image lie zeros. */
GO_INLINE void go_narrow_line(const go_im2col_args *a, const go_line_sizes *s, size_t b, size_t h,
                              go_dtype type, const go_quantizer *z, char *pixels) {
    const int zero = z ? z->zp : 0;
    for (size_t i = 0; i < a->kh; i++, pixels += s->line) {
        const ptrdiff_t y = go_input_at(h, a->stride_h, i, a->dilation_h, a->pad_top);
        const go_line_row row = go_line_row_of(a, b, y);
        const size_t before = row.before * s->pixel, inside = row.count * s->pixel;
        memset(pixels, zero, before);
        memset(pixels + before + inside, zero, s->line - before - inside);
        size_t n;
        const size_t runs = go_line_runs(a, &row, &n);
        for (size_t r = 0; r < runs; r++)
            go_narrow(a, row.at + (ptrdiff_t)r * a->src_stride[2], n, type, z,
                      pixels + before + r * s->pixel);
    }
}

/* Bytes, a multiple of GO_COPY_UNIT, to where they lie in a packed row. */
GO_INLINE char *go_place(char *to, const char *from, size_t bytes) {
    if (GO_PANEL_ROWS == 1) {
        for (size_t j = 0; j < bytes; j += GO_COPY_BYTES) memcpy(to + j, from + j, GO_COPY_BYTES);
        return to + bytes;
    }
    enum { STEP = GO_PANEL_ROWS * GO_GROUP_BYTES, AT_ONCE = 4 };
    size_t groups = bytes / GO_GROUP_BYTES;
    for (; groups >= AT_ONCE; groups -= AT_ONCE, from += AT_ONCE * GO_GROUP_BYTES) {
        uint64_t group[AT_ONCE];
        GO_UNROLLED (i, AT_ONCE) memcpy(group + i, from + i * GO_GROUP_BYTES, GO_GROUP_BYTES);
        GO_UNROLLED (i, AT_ONCE) memcpy(to + i * STEP, group + i, GO_GROUP_BYTES);
        to += AT_ONCE * STEP;
    }
    for (; groups; groups--, from += GO_GROUP_BYTES, to += STEP) memcpy(to, from, GO_GROUP_BYTES);
    return to;
}

/* The window whose first pixel is at `pixels`, and the padding behind it, to its row. */
GO_INLINE void go_place_window(const go_im2col_args *a, const go_line_sizes *s, const char *pixels,
                               char *window, char *to) {
    static const char zeros[4 * GO_COPY_BYTES];
    if (s->run % GO_COPY_UNIT == 0) {
        for (size_t i = 0; i < a->kh; i++) to = go_place(to, pixels + i * s->line, s->run);
        go_place(to, zeros, s->depth - s->window);
        return;
    }
    for (size_t i = 0; i < a->kh; i++)
        for (size_t j = 0; j < s->run; j += GO_COPY_BYTES)
            memcpy(window + i * s->run + j, pixels + i * s->line + j, GO_COPY_BYTES);
    memset(window + s->window, 0, s->depth - s->window);
    go_place(to, window, s->depth);
}

/* Lines of a task: several, if that leaves tasks enough. */
GO_INLINE size_t go_task_lines(const go_team *team, const go_im2col_args *a) {
    const size_t fit = a->batch * a->out_h / (4 * team->size);
    return fit < 1 ? 1 : go_min_size(fit, GO_TASK_LINES);
}

/* A task: lines begin .. end - 1 of item b. */
typedef struct {
    size_t b, begin, end;
    int is_last;
} go_line_task;

/* Takes the next task of a team; 0 if none is left. */
GO_INLINE int go_next_lines(go_team *team, const go_im2col_args *a, go_line_task *t) {
    const size_t lines = go_task_lines(team, a), some = go_ceil_div(a->out_h, lines);
    const size_t tasks = a->batch * some, task = go_next(team, tasks);
    if (task >= tasks) return 0;
    t->b = task / some, t->begin = task % some * lines;
    t->end = go_min_size(t->begin + lines, a->out_h), t->is_last = task + 1 == tasks;
    return 1;
}

#endif
