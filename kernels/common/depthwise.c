/* go_depthwise: depthwise convolution along time, channels innermost, with the
 * masks, the identity and the residual of an FSMN memory block fused.
 *
 * Each output is one chain of fused multiply-adds in order of the kernel tap,
 * starting from 0. Frames outside 0 <= t < t_in enter the chain as 0, so a frame
 * beyond the end and a finite frame hidden by the mask give the same bits. A mask
 * is a factor: NaN * 0 stays NaN. dst must not overlap src.
 *
 * A task is a block of times and channels of one batch entry. It walks 16 channels
 * at a time: their masked inputs and weights are first copied side by side, where
 * GO_TIMES outputs at once reuse them from the first cache level (in place, rows of
 * 512 channels would fall on few cache sets). Kernels too wide for the buffers take
 * their operands from memory one by one.
 */
#include "go_epilogue.h"

#if defined(__AVX512F__)
enum { GO_TIMES = 12 };
#elif defined(__AVX2__) || defined(__aarch64__)
enum { GO_TIMES = 6 };
#else
enum { GO_TIMES = 2 };
#endif

enum { BUFFER_TIMES = 256, BUFFER_TAPS = 64 };

/* Channels per task, and multiply-adds that make a task worth claiming. */
enum { CHANNEL_BLOCK = 128, TASK_WORK = 1 << 18 };

/* One column of up to 16 channels of one batch entry. */
typedef struct {
    const go_depthwise_args *a;
    const void *src; /* of the batch entry, at the first channel of the column */
    const float *weight, *mask_in, *mask_out;
    size_t batch, channel, n;
} column;

GO_INLINE column open_column(const go_depthwise_args *a, size_t batch, size_t channel) {
    ptrdiff_t b = (ptrdiff_t)batch;
    size_t rest = a->channels - channel;
    return (column){
        .a = a,
        .src = go_at(a->src, b * a->src_stride[0] + (ptrdiff_t)channel, a->src_dtype),
        .weight = a->weight + channel,
        .mask_in = a->mask_in ? a->mask_in + b * a->mask_in_stride[0] : NULL,
        .mask_out = a->mask_out ? a->mask_out + b * a->mask_out_stride[0] : NULL,
        .batch = batch,
        .channel = channel,
        .n = rest < GO_LANES ? rest : GO_LANES,
    };
}

GO_INLINE go_f32x16 load_src(const column *k, ptrdiff_t t, size_t n, go_dtype type) {
    return go_load_as(k->src, t * k->a->src_stride[1], type, n);
}

/* u[t]: the masked input, 0 outside the signal. */
GO_INLINE go_f32x16 load_masked(const column *k, ptrdiff_t t, size_t n, go_dtype type) {
    if (t < 0 || t >= (ptrdiff_t)k->a->t_in) return go_zero();
    go_f32x16 u = load_src(k, t, n, type);
    return k->mask_in ? u * go_splat(k->mask_in[t * k->a->mask_in_stride[1]]) : u;
}

GO_INLINE go_f32x16 load_weight(const column *k, size_t tap, size_t n) {
    return go_load_n(k->weight + tap * k->a->channels, n);
}

/* Everything behind the sum of the taps; u is the masked input at time t. */
GO_INLINE void store_output(const column *k, size_t t, go_f32x16 y, go_f32x16 u, size_t n,
                            go_dtype type) {
    const go_depthwise_args *a = k->a;
    ptrdiff_t b = (ptrdiff_t)k->batch, c = (ptrdiff_t)k->channel, time = (ptrdiff_t)t;
    if (a->bias) y += go_load_n(a->bias + c, n);
    if (a->identity == 1) y += u;
    if (a->identity == 2) y += load_src(k, time, n, type);
    y = go_activate(y, a->activation);
    if (k->mask_out) y *= go_splat(k->mask_out[time * a->mask_out_stride[1]]);
    if (a->residual) {
        ptrdiff_t at = b * a->residual_stride[0] + time * a->residual_stride[1] + c;
        y += go_load_as(a->residual, at, a->residual_dtype, n);
    }
    go_store_as(a->dst, b * a->dst_stride[0] + time * a->dst_stride[1] + c, a->dst_dtype, y, n);
}

/* Masked inputs [time][16] from time `first` on, and the weights [tap][16]. */
typedef struct {
    float inputs[BUFFER_TIMES * GO_LANES], weights[BUFFER_TAPS * GO_LANES];
    ptrdiff_t first, count;
} window;

/* Times from the first to the last tap, both included. */
GO_INLINE size_t reach_of(const go_depthwise_args *a) { return (a->kernel - 1) * a->dilation + 1; }

GO_INLINE void fill_window(const column *k, window *w, size_t begin, size_t end, size_t n,
                           go_dtype type) {
    w->first = (ptrdiff_t)(begin * k->a->stride) - k->a->pad_left;
    w->count = (ptrdiff_t)((end - begin - 1) * k->a->stride + reach_of(k->a));
    for (ptrdiff_t i = 0; i < w->count; i++)
        go_store(w->inputs + i * GO_LANES, load_masked(k, w->first + i, n, type));
}

/* `count` outputs (a constant) from t on. */
GO_INLINE void window_outputs(const column *k, const window *w, size_t t, size_t begin,
                              const size_t count, size_t n, go_dtype type) {
    const size_t step = k->a->stride * GO_LANES, tap_step = k->a->dilation * GO_LANES;
    const float *inputs = w->inputs + (t - begin) * step;
    go_f32x16 sum[GO_TIMES];
    for (size_t j = 0; j < count; j++) sum[j] = go_zero();
    for (size_t tap = 0; tap < k->a->kernel; tap++, inputs += tap_step) {
        go_f32x16 weight = go_load(w->weights + tap * GO_LANES);
        for (size_t j = 0; j < count; j++)
            sum[j] = go_fma(weight, go_load(inputs + j * step), sum[j]);
    }
    for (size_t j = 0; j < count; j++) {
        go_f32x16 u = go_zero();
        if (k->a->identity == 1) {
            ptrdiff_t at = (ptrdiff_t)(t + j) - w->first;
            u = at >= 0 && at < w->count ? go_load(w->inputs + at * GO_LANES)
                                         : load_masked(k, (ptrdiff_t)(t + j), n, type);
        }
        store_output(k, t + j, sum[j], u, n, type);
    }
}

GO_INLINE void run_windows(const column *k, size_t begin, size_t end, size_t n, go_dtype type) {
    window w;
    for (size_t tap = 0; tap < k->a->kernel; tap++)
        go_store(w.weights + tap * GO_LANES, load_weight(k, tap, n));
    size_t times = (BUFFER_TIMES - reach_of(k->a)) / k->a->stride + 1;
    if (times > GO_TIMES) times -= times % GO_TIMES;
    for (; begin < end; begin += times) {
        size_t stop = end - begin < times ? end : begin + times, t = begin;
        fill_window(k, &w, begin, stop, n, type);
        for (; t + GO_TIMES <= stop; t += GO_TIMES)
            window_outputs(k, &w, t, begin, GO_TIMES, n, type);
        for (; t + 2 <= stop; t += 2) window_outputs(k, &w, t, begin, 2, n, type);
        if (t < stop) window_outputs(k, &w, t, begin, 1, n, type);
    }
}

GO_INLINE void run_directly(const column *k, size_t begin, size_t end, size_t n, go_dtype type) {
    const go_depthwise_args *a = k->a;
    for (size_t t = begin; t < end; t++) {
        go_f32x16 sum = go_zero();
        for (size_t tap = 0; tap < a->kernel; tap++) {
            ptrdiff_t at = (ptrdiff_t)(t * a->stride + tap * a->dilation) - a->pad_left;
            sum = go_fma(load_weight(k, tap, n), load_masked(k, at, n, type), sum);
        }
        go_f32x16 u = a->identity == 1 ? load_masked(k, (ptrdiff_t)t, n, type) : go_zero();
        store_output(k, t, sum, u, n, type);
    }
}

/* Constant arguments turn the loads of f32 and of whole vectors into plain ones. */
static void run_column(const column *k, size_t begin, size_t end) {
    go_dtype type = k->a->src_dtype;
    if (k->a->kernel > BUFFER_TAPS || reach_of(k->a) > BUFFER_TIMES)
        run_directly(k, begin, end, k->n, type);
    else if (k->n < GO_LANES)
        run_windows(k, begin, end, k->n, type);
    else if (type == GO_BF16)
        run_windows(k, begin, end, GO_LANES, GO_BF16);
    else
        run_windows(k, begin, end, GO_LANES, GO_F32);
}

static size_t times_per_task(const go_depthwise_args *a) {
    size_t channels = a->channels < CHANNEL_BLOCK ? a->channels : CHANNEL_BLOCK;
    size_t times = TASK_WORK / (channels * a->kernel + 1) + 1;
    return (times + GO_TIMES - 1) / GO_TIMES * GO_TIMES;
}

void GO_NAME(depthwise)(go_team *team, const go_depthwise_args *a);

void GO_NAME(depthwise)(go_team *team, const go_depthwise_args *a) {
    size_t times = times_per_task(a);
    size_t time_blocks = (a->t_out + times - 1) / times;
    size_t channel_blocks = (a->channels + CHANNEL_BLOCK - 1) / CHANNEL_BLOCK;
    size_t tasks = a->batch * time_blocks * channel_blocks;
    for (size_t task; (task = go_next(team)) < tasks;) {
        size_t first = task % channel_blocks * CHANNEL_BLOCK;
        size_t begin = task / channel_blocks % time_blocks * times;
        size_t batch = task / channel_blocks / time_blocks;
        size_t last = first + CHANNEL_BLOCK < a->channels ? first + CHANNEL_BLOCK : a->channels;
        size_t end = begin + times < a->t_out ? begin + times : a->t_out;
        for (size_t c = first; c < last; c += GO_LANES) {
            column k = open_column(a, batch, c);
            run_column(&k, begin, end);
        }
    }
}
