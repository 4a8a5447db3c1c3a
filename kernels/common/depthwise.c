/* go_depthwise: depthwise convolution along time, channels innermost, with the
 * masks, the identity and the residual of an FSMN memory block fused.
 *
 * Each output is one chain of fused multiply-adds in order of the kernel tap,
 * starting from 0. Frames outside 0 <= t < t_in enter the chain as 0, so a frame
 * beyond the end and a finite frame hidden by the mask give the same bits. A mask
 * is a factor: NaN * 0 stays NaN. dst must not overlap src.
 *
 * A task is a block of times and channels of one batch entry. With stride and
 * dilation 1, GO_TIMES outputs are computed together and share their inputs.
 */
#include "go_epilogue.h"

#if defined(__AVX512F__)
enum { GO_TIMES = 8 };
#else
enum { GO_TIMES = 4 };
#endif

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

/* Everything behind the sum of the taps. */
GO_INLINE void store_output(const column *k, size_t t, go_f32x16 y, size_t n, go_dtype type) {
    const go_depthwise_args *a = k->a;
    ptrdiff_t b = (ptrdiff_t)k->batch, c = (ptrdiff_t)k->channel, time = (ptrdiff_t)t;
    if (a->bias) y += go_load_n(a->bias + c, n);
    if (a->identity == 1) y += load_masked(k, time, n, type);
    if (a->identity == 2) y += load_src(k, time, n, type);
    y = go_activate(y, a->activation);
    if (k->mask_out) y *= go_splat(k->mask_out[time * a->mask_out_stride[1]]);
    if (a->residual) {
        ptrdiff_t at = b * a->residual_stride[0] + time * a->residual_stride[1] + c;
        y += go_load_as(a->residual, at, a->residual_dtype, n);
    }
    go_store_as(a->dst, b * a->dst_stride[0] + time * a->dst_stride[1] + c, a->dst_dtype, y, n);
}

/* GO_TIMES outputs from t on, stride and dilation 1: input number i serves output
 * j with tap i - j. */
GO_INLINE void adjacent_outputs(const column *k, size_t t, size_t n, go_dtype type) {
    size_t taps = k->a->kernel;
    ptrdiff_t first = (ptrdiff_t)t - k->a->pad_left;
    go_f32x16 sum[GO_TIMES];
    for (int j = 0; j < GO_TIMES; j++) sum[j] = go_zero();
    size_t i = 0;
    for (; i < taps + GO_TIMES - 1; i++) {
        go_f32x16 u = load_masked(k, first + (ptrdiff_t)i, n, type);
        if (i + 1 >= GO_TIMES && i < taps) {
            const float *w = k->weight + i * k->a->channels;
            for (size_t j = 0; j < GO_TIMES; j++)
                sum[j] = go_fma(go_load_n(w - j * k->a->channels, n), u, sum[j]);
        } else {
#pragma GCC unroll 8
            for (size_t j = 0; j < GO_TIMES; j++)
                if (i >= j && i - j < taps) sum[j] = go_fma(load_weight(k, i - j, n), u, sum[j]);
        }
    }
    for (size_t j = 0; j < GO_TIMES; j++) store_output(k, t + j, sum[j], n, type);
}

GO_INLINE void single_output(const column *k, size_t t, size_t n, go_dtype type) {
    const go_depthwise_args *a = k->a;
    go_f32x16 sum = go_zero();
    for (size_t tap = 0; tap < a->kernel; tap++) {
        ptrdiff_t at = (ptrdiff_t)(t * a->stride + tap * a->dilation) - a->pad_left;
        sum = go_fma(load_weight(k, tap, n), load_masked(k, at, n, type), sum);
    }
    store_output(k, t, sum, n, type);
}

GO_INLINE void run_column(const column *k, size_t begin, size_t end, size_t n, go_dtype type) {
    size_t t = begin;
    if (k->a->stride == 1 && k->a->dilation == 1)
        for (; t + GO_TIMES <= end; t += GO_TIMES) adjacent_outputs(k, t, n, type);
    for (; t < end; t++) single_output(k, t, n, type);
}

/* Constant arguments turn the loads of run_column into plain vector loads. */
static void run_any_column(const column *k, size_t begin, size_t end) {
    if (k->a->src_dtype == GO_BF16) {
        if (k->n == GO_LANES)
            run_column(k, begin, end, GO_LANES, GO_BF16);
        else
            run_column(k, begin, end, k->n, GO_BF16);
    } else {
        if (k->n == GO_LANES)
            run_column(k, begin, end, GO_LANES, GO_F32);
        else
            run_column(k, begin, end, k->n, GO_F32);
    }
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
            run_any_column(&k, begin, end);
        }
    }
}
