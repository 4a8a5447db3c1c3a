/* go_depthwise: depthwise convolution along time, channels innermost, with the
 * masks, the identity and the residual of an FSMN memory block fused.
 *
 * Each output is one chain of fused multiply-adds in order of the kernel tap,
 * starting from 0. Frames outside 0 <= t < t_in enter the chain as 0, so a frame
 * beyond the end and a finite frame hidden by the mask give the same bits. A mask
 * is a factor: NaN * 0 stays NaN. dst must not overlap src.
 *
 * A task is a block of times and channels of one batch entry. GO_TIMES outputs of 16
 * channels (a column) share every weight. Where all taps lie in the signal, the input
 * is f32 and its mask all ones, they read it in place, one group of rows after another,
 * so that rows are read from beginning to end. Elsewhere the masked input of a column
 * is first copied to a window of its own. Kernels too wide for the buffers take their
 * operands from memory one by one.
 */
#include "go_epilogue.h"
#include "go_reg.h"
#include "split.h"

#if defined(__AVX512F__)
enum { GO_TIMES = 12 };
#elif defined(__AVX2__) || defined(__aarch64__)
enum { GO_TIMES = 6 };
#else
enum { GO_TIMES = 2 };
#endif

enum { FEW_TIMES = (GO_TIMES + 1) / 3 }; /* at once, of those that are left */
enum { BUFFER_TIMES = 256, BUFFER_TAPS = 64 };

/* Channels of a task, its most groups of GO_TIMES outputs, and what it costs to begin one,
 * in sixteenths of such a group. */
enum { CHANNEL_BLOCK = 64, TASK_GROUPS = 24, TASK_COST = 8 };
enum { TASK_COLUMNS = CHANNEL_BLOCK / GO_LANES };

/* Times begin .. end - 1 of one batch entry. A mask of ones is left out. */
typedef struct {
    const go_depthwise_args *a;
    size_t batch, begin, end;
    const void *src; /* of the batch entry */
    const float *mask_in, *mask_out;
} span;

/* Up to 16 channels of a span and their weights [tap][16]. */
typedef struct {
    const span *s;
    const go_depthwise_args *a;
    const void *src; /* at the first channel */
    const float *weights;
    size_t channel, n;
} column;

/* Masked inputs of a column: time t at rows + (t - first) * step. */
typedef struct {
    const float *rows;
    ptrdiff_t step, first, count;
} window;

GO_INLINE ptrdiff_t clamp(ptrdiff_t t, ptrdiff_t low, ptrdiff_t high) {
    return t < low ? low : t > high ? high : t;
}

/* Times from the first to the last tap, both included. */
GO_INLINE size_t reach_of(const go_depthwise_args *a) { return (a->kernel - 1) * a->dilation + 1; }

/* The first time that output t reads. */
GO_INLINE ptrdiff_t input_of(const go_depthwise_args *a, size_t t) {
    return (ptrdiff_t)(t * a->stride) - a->pad_left;
}

GO_INLINE int is_buffered(const go_depthwise_args *a) {
    return a->kernel <= BUFFER_TAPS && reach_of(a) <= BUFFER_TIMES;
}

/* The mask, or null if it is 1 at all times begin .. end - 1. */
static const float *unless_ones(const float *mask, ptrdiff_t stride, ptrdiff_t begin,
                                ptrdiff_t end) {
    if (mask)
        for (ptrdiff_t t = begin; t < end; t++)
            if (mask[t * stride] != 1.0f) return mask;
    return NULL;
}

static span open_span(const go_depthwise_args *a, size_t batch, size_t begin, size_t end) {
    ptrdiff_t b = (ptrdiff_t)batch, t_in = (ptrdiff_t)a->t_in;
    span s = {.a = a, .batch = batch, .begin = begin, .end = end};
    s.src = go_at(a->src, b * a->src_stride[0], a->src_dtype);
    if (a->mask_in) {
        ptrdiff_t first = input_of(a, begin), last = input_of(a, end - 1) + (ptrdiff_t)reach_of(a);
        if (a->identity && first > (ptrdiff_t)begin) first = (ptrdiff_t)begin;
        if (a->identity && last < (ptrdiff_t)end) last = (ptrdiff_t)end;
        s.mask_in = unless_ones(a->mask_in + b * a->mask_in_stride[0], a->mask_in_stride[1],
                                clamp(first, 0, t_in), clamp(last, 0, t_in));
    }
    if (a->mask_out)
        s.mask_out = unless_ones(a->mask_out + b * a->mask_out_stride[0], a->mask_out_stride[1],
                                 (ptrdiff_t)begin, (ptrdiff_t)end);
    return s;
}

/* `weights` has room for the taps of a column; a kernel too wide for it has none. */
static column open_column(const span *s, size_t channel, float *weights) {
    const go_depthwise_args *a = s->a;
    column k = {.s = s, .a = a, .weights = weights, .channel = channel};
    k.src = go_at(s->src, (ptrdiff_t)channel, a->src_dtype);
    k.n = go_min_size(GO_LANES, a->channels - channel);
    if (is_buffered(a))
        for (size_t tap = 0; tap < a->kernel; tap++)
            go_store(weights + tap * GO_LANES,
                     go_load_n(a->weight + tap * a->channels + channel, k.n));
    return k;
}

GO_INLINE go_f32x16 load_src(const column *k, ptrdiff_t t, size_t n, go_dtype type) {
    return go_load_as(k->src, t * k->a->src_stride[1], type, n);
}

/* u[t]: the masked input, 0 outside the signal. */
GO_INLINE go_f32x16 load_masked(const column *k, ptrdiff_t t, size_t n, go_dtype type) {
    if (t < 0 || t >= (ptrdiff_t)k->a->t_in) return go_zero();
    go_f32x16 u = load_src(k, t, n, type);
    const float *mask = k->s->mask_in;
    return mask ? u * go_splat(mask[t * k->a->mask_in_stride[1]]) : u;
}

/* Everything behind the sums[count][16] of the taps of outputs t .. t + count - 1. */
static __attribute__((noinline)) void store_outputs(const column *k, size_t t, size_t count,
                                                    size_t n, const float *sums) {
    const go_depthwise_args *a = k->a;
    const ptrdiff_t b = (ptrdiff_t)k->s->batch, c = (ptrdiff_t)k->channel;
    const go_f32x16 bias = a->bias ? go_load_n(a->bias + c, n) : go_zero();
    const float *mask = k->s->mask_out;
    for (size_t j = 0; j < count; j++) {
        const ptrdiff_t time = (ptrdiff_t)(t + j);
        go_f32x16 y = go_load(sums + j * GO_LANES);
        if (a->bias) y += bias;
        if (a->identity == 1) y += load_masked(k, time, n, a->src_dtype);
        if (a->identity == 2) y += load_src(k, time, n, a->src_dtype);
        y = go_activate(y, a->activation, 0);
        if (mask) y *= go_splat(mask[time * a->mask_out_stride[1]]);
        if (a->residual) {
            ptrdiff_t at = b * a->residual_stride[0] + time * a->residual_stride[1] + c;
            y += go_load_as(a->residual, at, a->residual_dtype, n);
        }
        go_store_as(a->dst, b * a->dst_stride[0] + time * a->dst_stride[1] + c, a->dst_dtype, y, n);
    }
}

typedef go_reg block[GO_TIMES][GO_REGS]; /* outputs of a column */

GO_INLINE void sum_taps(const int count, size_t taps, const float *weights, const float *rows,
                        ptrdiff_t step, ptrdiff_t tap_step, block y) {
    const float *at[GO_TIMES];
    GO_UNROLLED (j, count) {
        at[j] = rows + j * step;
        GO_OPAQUE(at[j]);
        GO_UNROLLED (q, GO_REGS) y[j][q] = go_reg_zero();
    }
    for (size_t tap = 0; tap < taps; tap++, weights += GO_LANES) {
        go_reg weight[GO_REGS];
        GO_UNROLLED (q, GO_REGS) weight[q] = go_reg_load(weights + q * GO_REG_LANES);
        GO_UNROLLED (j, count) {
            GO_UNROLLED (q, GO_REGS)
                y[j][q] = go_reg_fma(weight[q], go_reg_load(at[j] + q * GO_REG_LANES), y[j][q]);
            at[j] += tap_step;
        }
    }
}

GO_INLINE void add_rows(const int count, const float *rows, ptrdiff_t step, block y) {
    GO_UNROLLED (j, count)
        GO_UNROLLED (q, GO_REGS) y[j][q] += go_reg_load(rows + j * step + q * GO_REG_LANES);
}

GO_INLINE void store_rows(const int count, float *rows, ptrdiff_t step, const block y) {
    GO_UNROLLED (j, count)
        GO_UNROLLED (q, GO_REGS) go_reg_store(rows + j * step + q * GO_REG_LANES, y[j][q]);
}

/* Outputs with nothing behind the sums but f32 rows to add and to store: where they
 * read, add (or null) and write, and the steps from one to the next. A value, because
 * stores could change what a pointer leads to. */
typedef struct {
    size_t taps;
    const float *rows, *same, *residual;
    float *dst;
    ptrdiff_t tap_step, step, same_step, residual_step, dst_step;
} plain;

GO_INLINE void plain_outputs(const int count, plain p, const float *weights) {
    block y;
    sum_taps(count, p.taps, weights, p.rows, p.step, p.tap_step, y);
    if (p.same) add_rows(count, p.same, p.same_step, y);
    if (p.residual) add_rows(count, p.residual, p.residual_step, y);
    store_rows(count, p.dst, p.dst_step, y);
}

/* The same `times` times and `channels` channels further. */
GO_INLINE plain advance(plain p, ptrdiff_t times, ptrdiff_t channels) {
    p.rows += times * p.step + channels;
    p.dst += times * p.dst_step + channels;
    if (p.same) p.same += times * p.same_step + channels;
    if (p.residual) p.residual += times * p.residual_step + channels;
    return p;
}

/* Output t .. end - 1 of a column from a window in which all their taps lie: whether they
 * are plain, and how. */
GO_INLINE int find_plain(const column *k, const window *w, size_t t, size_t end, plain *p) {
    const go_depthwise_args *a = k->a;
    const ptrdiff_t b = (ptrdiff_t)k->s->batch, c = (ptrdiff_t)k->channel, time = (ptrdiff_t)t;
    *p = (plain){.taps = a->kernel, .tap_step = (ptrdiff_t)a->dilation * w->step};
    p->rows = w->rows + (input_of(a, t) - w->first) * w->step;
    p->step = (ptrdiff_t)a->stride * w->step;
    if (a->identity) p->same = w->rows + (time - w->first) * w->step;
    p->same_step = w->step;
    p->residual_step = a->residual_stride[1];
    if (a->residual)
        p->residual =
            (const float *)a->residual + b * a->residual_stride[0] + time * p->residual_step + c;
    p->dst_step = a->dst_stride[1];
    p->dst = (float *)a->dst + b * a->dst_stride[0] + time * p->dst_step + c;
    int seen = !a->identity ||
               (a->identity == 1 && time >= w->first && (ptrdiff_t)end - w->first <= w->count);
    return seen && k->n == GO_LANES && !a->bias && !a->activation && !k->s->mask_out &&
           a->dst_dtype == GO_F32 && (!a->residual || a->residual_dtype == GO_F32);
}

/* `count` outputs (a constant) from t on. */
GO_INLINE void window_outputs(const column *k, const window *w, size_t t, const int count,
                              size_t n) {
    const go_depthwise_args *a = k->a;
    const float *rows = w->rows + (input_of(a, t) - w->first) * w->step;
    float tile[GO_TIMES * GO_LANES];
    block y;
    sum_taps(count, a->kernel, k->weights, rows, (ptrdiff_t)a->stride * w->step,
             (ptrdiff_t)a->dilation * w->step, y);
    store_rows(count, tile, GO_LANES, y);
    store_outputs(k, t, (size_t)count, n, tile);
}

/* Outputs begin .. end - 1, all of whose taps are in the window. */
GO_INLINE void run_window(const column *k, const window *w, size_t begin, size_t end, size_t n) {
    plain p;
    if (find_plain(k, w, begin, end, &p)) {
        for (; begin + GO_TIMES <= end; begin += GO_TIMES, p = advance(p, GO_TIMES, 0))
            plain_outputs(GO_TIMES, p, k->weights);
        for (; begin + FEW_TIMES <= end; begin += FEW_TIMES, p = advance(p, FEW_TIMES, 0))
            plain_outputs(FEW_TIMES, p, k->weights);
        for (; begin < end; begin++, p = advance(p, 1, 0)) plain_outputs(1, p, k->weights);
    } else {
        for (; begin + GO_TIMES <= end; begin += GO_TIMES) window_outputs(k, w, begin, GO_TIMES, n);
        for (; begin + FEW_TIMES <= end; begin += FEW_TIMES)
            window_outputs(k, w, begin, FEW_TIMES, n);
        for (; begin < end; begin++) window_outputs(k, w, begin, 1, n);
    }
}

/* Outputs begin .. end - 1 by way of copied windows. */
GO_INLINE void run_copied(const column *k, size_t begin, size_t end, size_t n, go_dtype type) {
    float rows[BUFFER_TIMES * GO_LANES];
    size_t times = (BUFFER_TIMES - reach_of(k->a)) / k->a->stride + 1;
    if (times > GO_TIMES) times -= times % GO_TIMES;
    for (; begin < end; begin += times) {
        size_t stop = end - begin < times ? end : begin + times;
        window w = {.rows = rows, .step = GO_LANES, .first = input_of(k->a, begin)};
        w.count = input_of(k->a, stop - 1) + (ptrdiff_t)reach_of(k->a) - w.first;
        for (ptrdiff_t i = 0; i < w.count; i++)
            go_store(rows + i * GO_LANES, load_masked(k, w.first + i, n, type));
        run_window(k, &w, begin, stop, n);
    }
}

/* Constant arguments turn the loads of f32 and of whole vectors into plain ones. */
static void copy_column(const column *k, size_t begin, size_t end) {
    if (k->n < GO_LANES)
        run_copied(k, begin, end, k->n, k->a->src_dtype);
    else if (k->a->src_dtype == GO_BF16)
        run_copied(k, begin, end, GO_LANES, GO_BF16);
    else
        run_copied(k, begin, end, GO_LANES, GO_F32);
}

/* Outputs from .. to - 1 of whole columns from the input as it is. */
static void read_columns(const column *columns, size_t count, size_t from, size_t to) {
    const column *k = columns;
    window w = {.rows = k->src, .step = k->a->src_stride[1], .count = (ptrdiff_t)k->a->t_in};
    plain p;
    if (find_plain(k, &w, from, to, &p)) {
        for (; from < to; from += GO_TIMES, p = advance(p, GO_TIMES, 0))
            for (size_t i = 0; i < count; i++)
                plain_outputs(GO_TIMES, advance(p, 0, (ptrdiff_t)i * GO_LANES), columns[i].weights);
    } else {
        for (; from < to; from += GO_TIMES)
            for (size_t i = 0; i < count; i++) {
                w.rows = columns[i].src;
                window_outputs(&columns[i], &w, from, GO_TIMES, GO_LANES);
            }
    }
}

static void run_unbuffered(const column *k) {
    const go_depthwise_args *a = k->a;
    for (size_t t = k->s->begin; t < k->s->end; t++) {
        float sum[GO_LANES];
        go_f32x16 y = go_zero();
        for (size_t tap = 0; tap < a->kernel; tap++) {
            ptrdiff_t at = input_of(a, t) + (ptrdiff_t)(tap * a->dilation);
            go_f32x16 weight = go_load_n(a->weight + tap * a->channels + k->channel, k->n);
            y = go_fma(weight, load_masked(k, at, k->n, a->src_dtype), y);
        }
        go_store(sum, y);
        store_outputs(k, t, 1, k->n, sum);
    }
}

/* Outputs *from .. *to - 1 of the span, whole groups of GO_TIMES, can read the input as
 * it is. */
static void find_readable(const span *s, size_t *from, size_t *to) {
    const go_depthwise_args *a = s->a;
    const ptrdiff_t times = (ptrdiff_t)(s->end - s->begin), stride = (ptrdiff_t)a->stride;
    ptrdiff_t before = -input_of(a, s->begin); /* times outside that the first output reads */
    ptrdiff_t after = (ptrdiff_t)a->t_in - (ptrdiff_t)reach_of(a) + before;
    ptrdiff_t first = before > 0 ? (before + stride - 1) / stride : 0;
    ptrdiff_t last = after >= 0 ? clamp(after / stride + 1, 0, times) : 0;
    if (a->src_dtype != GO_F32 || s->mask_in) last = 0;
    first = (first + GO_TIMES - 1) / GO_TIMES * GO_TIMES;
    if (last < first + GO_TIMES) last = first = 0;
    last -= (last - first) % GO_TIMES;
    *from = s->begin + (size_t)first;
    *to = s->begin + (size_t)last;
}

static void run_span(const span *s, size_t channel, size_t channels) {
    float weights[TASK_COLUMNS][BUFFER_TAPS * GO_LANES];
    column columns[TASK_COLUMNS];
    size_t count = 0, whole = channels / GO_LANES, from, to;
    for (size_t c = 0; c < channels; c += GO_LANES, count++)
        columns[count] = open_column(s, channel + c, weights[count]);
    find_readable(s, &from, &to);
    for (size_t i = 0; i < count; i++) {
        if (!is_buffered(s->a)) {
            run_unbuffered(&columns[i]);
        } else {
            size_t stop = i < whole ? from : s->end;
            if (s->begin < stop) copy_column(&columns[i], s->begin, stop);
            if (i < whole && to < s->end) copy_column(&columns[i], to, s->end);
        }
    }
    if (is_buffered(s->a) && whole) read_columns(columns, whole, from, to);
}

void GO_NAME(depthwise)(go_team *team, const go_depthwise_args *a);

void GO_NAME(depthwise)(go_team *team, const go_depthwise_args *a) {
    size_t channel_blocks = go_ceil_div(a->channels, CHANNEL_BLOCK);
    size_t groups = go_cut_lines(team->size, a->batch * channel_blocks,
                                 go_ceil_div(a->t_out, GO_TIMES), TASK_GROUPS, TASK_COST)
                        .step;
    size_t times = groups * GO_TIMES, time_blocks = go_ceil_div(a->t_out, times);
    size_t tasks = a->batch * time_blocks * channel_blocks;
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        size_t channel = task % channel_blocks * CHANNEL_BLOCK;
        size_t begin = task / channel_blocks % time_blocks * times;
        size_t batch = task / channel_blocks / time_blocks;
        span s = open_span(a, batch, begin, go_min_size(begin + times, a->t_out));
        run_span(&s, channel, go_min_size(CHANNEL_BLOCK, a->channels - channel));
    }
}
