/* The contract between generated code and kernels.
 *
 * A kernel is a function `void NAME(go_team *team, const go_<op>_args *args)`
 * that every thread of the team calls with equal arguments. The caller puts a
 * go_barrier() behind it; a kernel that needs barriers inside calls them itself.
 * Strides are in elements. The innermost stride is 1 unless a field says so.
 * Kernels allocate nothing; scratch memory comes from the caller's arena.
 * Numerical definitions live in kernels/reference.py and kernels/reference_ops.py.
 */
#ifndef GO_KERNEL_H
#define GO_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include "go_team.h"

typedef enum {
    GO_F32 = 0,
    GO_BF16 = 1,
    GO_F64 = 2,
    GO_BOOL = 3,
    GO_U8 = 4,
    GO_I8 = 5,
    GO_I16 = 6,
    GO_I32 = 7,
    GO_I64 = 8,
    GO_F16 = 9,
} go_dtype;

typedef enum {
    GO_ACT_NONE = 0,
    GO_ACT_RELU = 1,
    GO_ACT_GELU_ERF = 2,
    GO_ACT_GELU_TANH = 3,
    GO_ACT_SILU = 4,
    GO_ACT_SIGMOID = 5,
    GO_ACT_TANH = 6,
    GO_ACT_RELU6 = 7,
    GO_ACT_HARDSIGMOID = 8,
    GO_ACT_HARDSWISH = 9,
    GO_ACT_LEAKY_RELU = 10, /* x * slope below 0 */
} go_activation;

/* What happens to a finished f32 row before it is stored:
 *   y = last(activation(x + bias) * factor + residual[0] + residual[1])
 * in this order, every step rounded to f32, then one conversion to the type of
 * the destination. A null pointer leaves its step out. */
typedef struct {
    const float *bias; /* [n] */
    go_activation activation;
    const void *factor; /* [m][n], such as the other half of a gated linear unit */
    ptrdiff_t factor_stride;
    go_dtype factor_dtype;   /* GO_F32 or GO_BF16 */
    const void *residual[2]; /* [m][n], row strides below */
    ptrdiff_t residual_stride[2];
    go_dtype residual_dtype[2]; /* GO_F32 or GO_BF16 */
    go_activation last;
    float slope; /* of either activation */
} go_epilogue;

/* dst[m][n] = epilogue(lhs[m][k] x rhs[k][n]). What `lhs` and `rhs` hold depends
 * on the kernel's operand tokens:
 *   f32    lhs: rows of f32 (lhs_stride); rhs: packed f32 panels
 *   bf16   lhs: packed bf16 panels;       rhs: packed bf16 panels
 *   qa8r   lhs: packed int8 panels;       rhs: packed qs8c, qs4c or qs4b panels
 * Layouts: kernels/packing.py.
 * If `packed` is not null the f32 results are quantized into qa8r panels, exactly as the
 * pack kernel would, and stored nowhere else: `dst` is scratch of GO_F32, see
 * quantized_result_bytes in kernels/scratch.py, and what it holds afterwards has no meaning. */
typedef struct {
    size_t m, n, k;
    size_t group; /* qs4b only: values along k that share a scale, 32, 64 .. 1024 */
    const void *lhs;
    ptrdiff_t lhs_stride; /* f32 only */
    const void *rhs;
    void *dst;
    ptrdiff_t dst_stride;
    go_dtype dst_dtype; /* GO_F32 or GO_BF16 */
    go_epilogue epilogue;
    void *packed; /* or null */
} go_gemm_args;

/* Stores values first .. end - 1 of a row as f32 to y + first, the same bits however the row
 * is cut. Generated for an element-wise op. */
typedef void go_row_values(const void *operands, int64_t row, int64_t first, int64_t end, float *y);

/* Rows of f32 or bf16 into the packed left operand of a GEMM.
 * go_quantize_rows alone: with `values` it computes its rows where it quantizes them and
 * does not read src. `scratch`: see row_values_scratch_bytes in kernels/scratch.py. */
typedef struct {
    size_t m, k;
    const void *src;
    ptrdiff_t src_stride;
    go_dtype src_dtype;    /* GO_F32 or GO_BF16 */
    void *dst;             /* packed panels */
    go_row_values *values; /* or null */
    const void *operands;  /* of values */
    void *scratch;         /* with values */
} go_pack_lhs_args;

/* The windows of a dense convolution as packed rows [batch * out_h * out_w][kh * kw *
 * channels], 0 outside the image; channels innermost (a 1-D image has h = 1). A window is
 * packed exactly as the pack kernel would a row of f32; but windows of a line of an image that
 * overlap (Geometry.shares_lines in kernels/reference_ops.py) are quantized with one scale and
 * zero point. `scratch`: see im2col_scratch_bytes in kernels/scratch.py. */
typedef struct {
    size_t batch, channels, in_h, in_w, out_h, out_w, kh, kw;
    size_t stride_h, stride_w, dilation_h, dilation_w;
    ptrdiff_t pad_top, pad_left;
    const void *src;
    ptrdiff_t src_stride[3]; /* batch, h, w */
    go_dtype src_dtype;      /* GO_F32 or GO_BF16 */
    void *dst;               /* packed panels */
    void *scratch;
} go_im2col_args;

/* Layer norm (mean and variance, then weight and bias) or RMS norm (rms != 0)
 * over the last axis. If `packed` is not null the normalized row is also
 * quantized into qa8r panels, exactly as the pack kernel would from f32; `dst`
 * may then be null. */
typedef struct {
    size_t rows, cols;
    const void *src;
    ptrdiff_t src_stride;
    go_dtype src_dtype;
    const float *weight; /* [cols] or null */
    const float *bias;   /* [cols] or null */
    float eps;
    int rms;
    void *dst;
    ptrdiff_t dst_stride;
    go_dtype dst_dtype;
    void *packed;
} go_norm_args;

/* Softmax (or log-softmax) over the last axis of rows. */
typedef struct {
    size_t rows, cols;
    const void *src;
    ptrdiff_t src_stride;
    go_dtype src_dtype;
    int log;
    void *dst;
    ptrdiff_t dst_stride;
    go_dtype dst_dtype;
} go_softmax_args;

/* Which keys a query sees: all, those up to its own number counted from the ends of both, or
 * counted from the first. */
typedef enum { GO_SEES_ALL, GO_CAUSAL_LAST, GO_CAUSAL_FIRST } go_causal;

/* out[b,t,h,:] = softmax(scale * q[b,t,h,:] . k[b,s,h / (heads / kv_heads),:]
 *                        + mask[b,h,t,s]) v[b,s,...,:]
 * causal additionally hides s > t (GO_CAUSAL_FIRST) or s > t + (tk - tq) (GO_CAUSAL_LAST).
 * replaces != 0: a mask value that is not 0 takes the place of the score instead. A row whose
 * scores are all -inf gives NaN, as softmax does; with unseen_zero != 0 it gives 0, as torch's
 * scaled_dot_product_attention does. Without keys all is 0, as a sum of nothing.
 * past and start not null: k and v are a cache, and item b has its rows start[b] ..
 * past[b] + tq - 1, tk at most, as its keys; causal counts them. No mask then.
 * k_scale and v_scale not null: k and v are int8, which count times the scale of their
 * row and head (q stays GO_BF16); scales are for the axes batch, head, and dense rows.
 * Strides are for the axes batch, time,
 * head of q, k, v, dst and batch, head, query, key of the mask (0 broadcasts;
 * the key axis may have any stride). `scratch`: see attention_scratch_bytes in
 * kernels/scratch.py. */
typedef struct {
    size_t batch, heads, kv_heads, tq, tk, dim, dim_v;
    float scale;
    go_causal causal;
    int replaces, unseen_zero;
    go_dtype dtype; /* of q, k, v: GO_F32 or GO_BF16 */
    const void *q, *k, *v;
    ptrdiff_t q_stride[3], k_stride[3], v_stride[3];
    const int64_t *past, *start;    /* [batch], or null */
    const float *k_scale, *v_scale; /* or null */
    ptrdiff_t scale_stride[2];
    const float *mask; /* or null */
    ptrdiff_t mask_stride[4];
    void *dst;
    ptrdiff_t dst_stride[3];
    go_dtype dst_dtype;
    void *scratch;
} go_attention_args;

/* Rotary position embedding, and the new rows of a cache of keys and values. For
 * token t of sequence b, whose cache row is position[b] + t:
 *   dst[b,t,h,:] = rotated q[b,t,h,:]
 *   keys[b, position[b] + t, h,:] = rotated k[b,t,h,:];  values[...] = v[b,t,h,:]
 * dim is even; pairs are (i, i + dim / 2). cos and sin are dense [batch][time][dim / 2].
 * key_scales and value_scales not null: keys and values are int8, by quantize_heads of
 * kernels/reference.py, with their scales for the axes batch, head, and dense rows; dst
 * is bf16.
 * Strides are for the axes batch, time (or row of the cache), head. */
typedef struct {
    size_t batch, time, heads, kv_heads, dim;
    const float *q, *k, *v;
    ptrdiff_t q_stride[3], k_stride[3], v_stride[3];
    const float *cos, *sin;
    const int64_t *position; /* [batch] */
    void *dst;
    ptrdiff_t dst_stride[3];
    void *keys, *values;
    ptrdiff_t cache_stride[3];
    float *key_scales, *value_scales; /* or null */
    ptrdiff_t scale_stride[2];
    go_dtype dst_dtype; /* of dst and, without scales, keys and values: GO_F32 or GO_BF16 */
} go_rope_args;

/* Depthwise convolution along time, channels innermost:
 *   u[b,t,c] = src[b,t,c] * mask_in[b,t]            (0 outside 0 <= t < t_in)
 *   y[b,t,c] = sum_j weight[j][c] * u[b, t*stride + j*dilation - pad_left, c] + bias[c]
 *   z        = activation(y + (identity == 1 ? u[b,t,c] : identity == 2 ? src[b,t,c] : 0))
 *              * mask_out[b,t]
 *   dst[b,t,c] = z + residual[b,t,c]
 * A null mask, bias or residual leaves its step out. identity needs stride 1 and
 * t_out <= t_in. */
typedef struct {
    size_t batch, t_in, t_out, channels, kernel, stride, dilation;
    ptrdiff_t pad_left;
    const void *src;
    ptrdiff_t src_stride[2]; /* batch, time */
    go_dtype src_dtype;
    const float *weight; /* [kernel][channels] */
    const float *bias;   /* [channels] or null */
    const float *mask_in;
    const float *mask_out;
    ptrdiff_t mask_in_stride[2], mask_out_stride[2];
    int identity;
    go_activation activation;
    const void *residual;
    ptrdiff_t residual_stride[2];
    go_dtype residual_dtype;
    void *dst;
    ptrdiff_t dst_stride[2];
    go_dtype dst_dtype;
} go_depthwise_args;

/* 2-D convolution, channels innermost (a 1-D one has h = 1): dense, grouped or
 * depthwise. `rhs` holds, group after group, the packed f32 GEMM operand with
 * k = kh * kw * (in_c / groups), in this order, and n = out_c / groups. For a
 * depthwise convolution (groups == in_c == out_c) it holds [kh][kw][out_c].
 * At most `tile_rows` output positions and `tile_cols` channels of a group (a multiple of 32;
 * a depthwise one counts as one group) make one task (chosen by parallelize_conv).
 * go_winograd takes 3 x 3 taps with stride, dilation and groups of 1, and in_c a multiple of 16:
 * `rhs` is the packed operand with k = 36 * in_c of transformed weights (kernels/winograd.py), and
 * `tile_rows` counts tiles of 4 x 4 positions of an image.
 * `scratch`: see conv_scratch_bytes and winograd_scratch_bytes in kernels/scratch.py. */
typedef struct {
    size_t batch, groups, in_c, out_c, in_h, in_w, out_h, out_w, kh, kw;
    size_t stride_h, stride_w, dilation_h, dilation_w;
    ptrdiff_t pad_top, pad_left;
    size_t tile_rows, tile_cols;
    const void *src;
    ptrdiff_t src_stride[3]; /* batch, h, w */
    go_dtype src_dtype;
    const void *rhs;
    void *dst;
    ptrdiff_t dst_stride[3];
    go_dtype dst_dtype;
    go_epilogue epilogue; /* residual strides: one row per output position in order */
    void *scratch;
} go_conv_args;

/* A recurrent layer over time, in one or two directions, the second back in time. Units come in
 * blocks of 16; columns, of which there are `gates` times the padded units, and the order of gates
 * are those of kernels/reference_recurrent.py. A step, for state h (width) and cell c (hidden):
 *   p = product of h by weight, + bias; x = gates of the step
 *   GO_CELL_LSTM  c = s(x1 + p1) * c + s(x0 + p0) * tanh(x2 + p2); y = s(x3 + p3) * tanh(c)
 *   GO_CELL_GRU   n = tanh(x2 + s(x0 + p0) * p2); y = n + s(x1 + p1) * (h - n)
 *   GO_CELL_TANH  y = tanh(x + p);   GO_CELL_RELU  y = max(x + p, 0)
 * with s the logistic function; h is y, or the product of y by `projection`. Where t >= lengths[b]
 * states stay and the result is 0. Without `projection`, width == hidden.
 * `product` is the GEMM of the format of the weights and `pack` that which makes its left operand,
 * null for rows of f32. Weights of a direction follow those of the other, `*_bytes` each, a
 * multiple of the bytes of 16 columns.
 * `scratch`: see recurrent_scratch_bytes in kernels/scratch.py. */
typedef enum {
    GO_CELL_LSTM = 0,
    GO_CELL_GRU = 1,
    GO_CELL_TANH = 2,
    GO_CELL_RELU = 3,
} go_cell;

typedef struct {
    size_t batch, time, directions, hidden, width;
    go_cell cell_kind;
    const float *gates;        /* per step [directions][columns] */
    ptrdiff_t gates_stride[2]; /* batch, time */
    const void *weight;
    size_t weight_bytes;
    const float *bias;      /* [directions][columns] or null */
    const void *projection; /* or null */
    size_t projection_bytes;
    void (*pack)(go_team *team, const go_pack_lhs_args *args);
    void (*product)(go_team *team, const go_gemm_args *args);
    const float *state;            /* dense [directions][batch][width] */
    const float *cell;             /* dense [directions][batch][hidden], of an LSTM */
    const int64_t *lengths;        /* [batch] or null */
    float *dst;                    /* per step [directions][width] */
    ptrdiff_t dst_stride[2];       /* batch, time */
    float *last_state, *last_cell; /* as state and cell */
    void *scratch;
} go_recurrent_args;

/* Continuous integrate-and-fire: frames hidden[b,t,:] with weights alphas[b,t] to
 * tokens dst[b,n,:], whose number is computed too. A token is the sum of now[t] *
 * hidden[t] over its frames and of next[t] * hidden[t] of the frame that fired
 * before it; `now` is alphas where nothing fires.
 *   GO_CIF_INTEGRATE  level += alphas; fires where level >= threshold, then level -= 1;
 *                     now = 1 - level before the frame, next = alphas - now
 *   GO_CIF_PREFIX     p = f32(sum of alphas in f64); fires where floor(p) grows;
 *                     next = the fraction of the peak, now = alphas - next; no threshold
 * peaks[b,t] is level before the subtraction, or p - floor(p), plus 1 where it fires.
 * counts[b] is the sum of alphas (f64, to f32) rounded down or to nearest even, or the
 * number of fires. *tokens is the largest count, -1 if a sum is not below 1e9 (NaN);
 * dst is dense [batch][min(*tokens, max_tokens)][channels], zero behind the last fire
 * of an item. hidden and alphas are f32. `scratch`: cif_scratch_bytes in scratch.py. */
typedef enum { GO_CIF_INTEGRATE = 0, GO_CIF_PREFIX = 1 } go_cif_rule;
typedef enum {
    GO_CIF_COUNT_FLOOR = 0,
    GO_CIF_COUNT_ROUND = 1,
    GO_CIF_COUNT_FIRES = 2,
} go_cif_count;

typedef struct {
    size_t batch, frames, channels, max_tokens;
    go_cif_rule rule;
    go_cif_count count;
    float threshold;
    const float *hidden;
    ptrdiff_t hidden_stride[2]; /* batch, time */
    const float *alphas;
    ptrdiff_t alphas_stride[2]; /* batch, time */
    float *dst;
    float *peaks;    /* dense [batch][frames] */
    int32_t *counts; /* [batch] */
    int64_t *tokens;
    void *scratch;
} go_cif_args;

#endif
