/* go_attention: softmax(scale * q k^T + mask) v, a block of query rows at a time.
 *
 * Phase 1 copies k and v, widened to f32, into panels of 16 keys and 16 value
 * columns; phase 2 computes, per task, the scores of up to QUERY_ROWS queries of
 * one head against all keys, their softmax, and the product with v:
 *
 *   dot   one chain of fused multiply-adds over dim, from 0
 *   x     dot * scale (rounded), + mask (rounded); -inf where causal hides a key
 *   m, s  largest x; sum of e^(x - m) over 16 lanes (key mod 16), folded as go_sum
 *   out   (one chain of fused multiply-adds over the keys of e^(x - m) * v) * (1 / s)
 *
 * Hidden keys at the end have e^(x - m) = 0, which changes neither s nor, for
 * finite v, the chain: a padded batch gives the bits of its utterances alone. A
 * query without a visible key gives NaN.
 *
 * Scratch, in floats, with c16(x) = x rounded up to 16 (attention_scratch_bytes):
 *   batch * kv_heads * c16(tk) * dim          k panels [tk / 16][dim][16]
 *   batch * kv_heads * c16(dim_v) * tk        v panels [dim_v / 16][tk][16]
 *   threads * QUERY_ROWS * (c16(dim) + c16(tk))   q rows and scores
 */
#include "go_vec_math.h"
#include "tile_f32.h"

enum { QUERY_ROWS = 24, PACK_FLOATS = 32768 };

GO_INLINE size_t round16(size_t x) { return (x + 15) / 16 * 16; }

/* Where the parts of the scratch memory begin. */
typedef struct {
    float *k, *v, *q, *scores; /* q and scores of this thread */
    size_t k_head, v_head;     /* floats of one head */
} scratch_map;

static scratch_map map_scratch(const go_attention_args *a, unsigned rank) {
    scratch_map m = {.k_head = round16(a->tk) * a->dim, .v_head = round16(a->dim_v) * a->tk};
    m.k = a->scratch;
    m.v = m.k + a->batch * a->kv_heads * m.k_head;
    m.q = m.v + a->batch * a->kv_heads * m.v_head +
          rank * QUERY_ROWS * (round16(a->dim) + round16(a->tk));
    m.scores = m.q + QUERY_ROWS * round16(a->dim);
    return m;
}

/* Sixteen keys from `key` on as [dim][16]; keys beyond tk are 0. */
GO_INLINE void pack_k_panel(const go_attention_args *a, const void *k, size_t key, float *panel,
                            go_dtype type) {
    for (size_t c = 0; c < a->dim; c += GO_LANES) {
        size_t n = a->dim - c < GO_LANES ? a->dim - c : GO_LANES;
        for (size_t j = 0; j < GO_LANES; j++) {
            go_f32x16 row = go_zero();
            ptrdiff_t at = (ptrdiff_t)(key + j) * a->k_stride[1] + (ptrdiff_t)c;
            if (key + j < a->tk) row = go_load_as(k, at, type, n);
            for (size_t i = 0; i < n; i++) panel[(c + i) * GO_LANES + j] = row[i];
        }
    }
}

/* Up to 16 keys from `key` on into every panel of v; columns beyond dim_v are 0. */
GO_INLINE void pack_v_rows(const go_attention_args *a, const void *v, size_t key, float *panels,
                           go_dtype type) {
    size_t end = key + GO_LANES < a->tk ? key + GO_LANES : a->tk;
    for (; key < end; key++)
        for (size_t c = 0; c < a->dim_v; c += GO_LANES) {
            size_t n = a->dim_v - c < GO_LANES ? a->dim_v - c : GO_LANES;
            ptrdiff_t at = (ptrdiff_t)key * a->v_stride[1] + (ptrdiff_t)c;
            go_store(panels + c * a->tk + key * GO_LANES, go_load_as(v, at, type, n));
        }
}

GO_INLINE void pack_blocks(const go_attention_args *a, const scratch_map *m, size_t head,
                           size_t begin, size_t end, go_dtype type) {
    ptrdiff_t b = (ptrdiff_t)(head / a->kv_heads), h = (ptrdiff_t)(head % a->kv_heads);
    const void *k = go_at(a->k, b * a->k_stride[0] + h * a->k_stride[2], type);
    const void *v = go_at(a->v, b * a->v_stride[0] + h * a->v_stride[2], type);
    for (size_t key = begin; key < end; key += GO_LANES) {
        pack_k_panel(a, k, key, m->k + head * m->k_head + key * a->dim, type);
        pack_v_rows(a, v, key, m->v + head * m->v_head, type);
    }
}

static void pack_keys(go_team *team, const go_attention_args *a, const scratch_map *m) {
    size_t step = round16(PACK_FLOATS / (a->dim + a->dim_v + 1) + 1);
    size_t per_head = (a->tk + step - 1) / step, tasks = a->batch * a->kv_heads * per_head;
    for (size_t task; (task = go_next(team)) < tasks;) {
        size_t begin = task % per_head * step;
        size_t end = begin + step < a->tk ? begin + step : a->tk;
        if (a->dtype == GO_BF16)
            pack_blocks(a, m, task / per_head, begin, end, GO_BF16);
        else
            pack_blocks(a, m, task / per_head, begin, end, GO_F32);
    }
}

/* Keys that query t sees: all, or under the causal rule those up to t + tk - tq. */
GO_INLINE size_t visible_keys(const go_attention_args *a, size_t t) {
    if (!a->causal) return a->tk;
    ptrdiff_t n = (ptrdiff_t)t + 1 + (ptrdiff_t)a->tk - (ptrdiff_t)a->tq;
    return n<0 ? 0 : n>(ptrdiff_t) a->tk ? a->tk : (size_t)n;
}

GO_INLINE go_f32x16 load_mask(const float *mask, ptrdiff_t stride, size_t key, size_t n) {
    if (stride == 1) return go_load_n(mask + key, n);
    float lane[GO_LANES] = {0};
    for (size_t i = 0; i < n; i++) lane[i] = mask[(ptrdiff_t)(key + i) * stride];
    return go_load(lane);
}

/* Scale and mask; returns the largest score. Lanes from `visible` on become -inf. */
static float mask_row(const go_attention_args *a, float *row, const float *mask, size_t visible,
                      size_t width) {
    go_f32x16 top = go_splat(-__builtin_inff());
    for (size_t s = 0; s < width; s += GO_LANES) {
        size_t n = visible <= s ? 0 : visible - s < GO_LANES ? visible - s : GO_LANES;
        go_f32x16 x = go_load(row + s) * go_splat(a->scale);
        if (mask) x += load_mask(mask, a->mask_stride[3], s, n);
        if (n < GO_LANES) x = go_keep_lanes(x, n, -__builtin_inff());
        top = go_max_skip_nan(x, top);
        go_store(row + s, x);
    }
    return go_fold_max(top);
}

/* Replaces scores by e^(x - top), 0 from `visible` on; returns 1 / their sum. */
static float exponentials(float *row, float top, size_t visible, size_t width) {
    go_f32x16 sum = go_zero();
    for (size_t s = 0; s < width; s += GO_LANES) {
        go_f32x16 e = go_exp_lanes(go_load(row + s) - go_splat(top));
        if (s + GO_LANES > visible) e = go_keep_lanes(e, visible < s ? 0 : visible - s, 0.0f);
        sum += e;
        go_store(row + s, e);
    }
    return 1.0f / go_sum(sum);
}

static void load_queries(const go_attention_args *a, const void *q, size_t rows, float *dst) {
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < a->dim; c += GO_LANES) {
            size_t n = a->dim - c < GO_LANES ? a->dim - c : GO_LANES;
            ptrdiff_t at = (ptrdiff_t)r * a->q_stride[1] + (ptrdiff_t)c;
            go_store(dst + r * round16(a->dim) + c, go_load_as(q, at, a->dtype, n));
        }
}

/* Scores of `rows` queries and the first `width` keys, before scale and mask. */
static void compute_scores(const go_attention_args *a, const scratch_map *m, const float *panels,
                           size_t rows, size_t width) {
    go_f32_operands o = {.a = m->q, .a_stride = (ptrdiff_t)round16(a->dim), .k = a->dim};
    o.ldb = GO_LANES, o.b_next = (ptrdiff_t)(GO_LANES * a->dim);
    for (size_t key = 0; key < width; key += GO_TILE_COLS) {
        o.b = panels + key * a->dim;
        go_tile_f32(&o, rows, go_min_size(GO_TILE_COLS, width - key), m->scores + key,
                    round16(a->tk));
    }
}

/* Finished rows of weights times the panels of v, and the store. */
static void store_values(const go_attention_args *a, const scratch_map *m, const float *panels,
                         void *dst, size_t rows, size_t keys, const float *scale) {
    float tile[QUERY_ROWS * GO_TILE_COLS];
    go_f32_operands o = {.a = m->scores, .a_stride = (ptrdiff_t)round16(a->tk), .k = keys};
    o.ldb = GO_LANES, o.b_next = (ptrdiff_t)(GO_LANES * a->tk);
    for (size_t c = 0; c < a->dim_v; c += GO_TILE_COLS) {
        size_t cols = go_min_size(GO_TILE_COLS, a->dim_v - c);
        o.b = panels + c * a->tk;
        go_tile_f32(&o, rows, cols, tile, GO_TILE_COLS);
        for (size_t r = 0; r < rows; r++)
            for (size_t i = 0; i < cols; i += GO_LANES) {
                ptrdiff_t at = (ptrdiff_t)r * a->dst_stride[1] + (ptrdiff_t)(c + i);
                go_f32x16 y = go_load(tile + r * GO_TILE_COLS + i) * go_splat(scale[r]);
                go_store_as(dst, at, a->dst_dtype, y, go_min_size(GO_LANES, cols - i));
            }
    }
}

/* Queries t .. t + rows - 1 of one head. */
static void attend(const go_attention_args *a, const scratch_map *m, size_t batch, size_t head,
                   size_t t, size_t rows) {
    ptrdiff_t b = (ptrdiff_t)batch, h = (ptrdiff_t)head, time = (ptrdiff_t)t;
    size_t kv = batch * a->kv_heads + head / (a->heads / a->kv_heads);
    size_t keys = visible_keys(a, t + rows - 1), width = round16(keys), ld = round16(a->tk);
    ptrdiff_t at = b * a->q_stride[0] + time * a->q_stride[1] + h * a->q_stride[2];
    load_queries(a, go_at(a->q, at, a->dtype), rows, m->q);
    compute_scores(a, m, m->k + kv * m->k_head, rows, width);
    float scale[QUERY_ROWS];
    for (size_t r = 0; r < rows; r++) {
        const float *mask = NULL;
        if (a->mask)
            mask = a->mask + b * a->mask_stride[0] + h * a->mask_stride[1] +
                   (time + (ptrdiff_t)r) * a->mask_stride[2];
        size_t visible = visible_keys(a, t + r);
        float top = mask_row(a, m->scores + r * ld, mask, visible, width);
        scale[r] = exponentials(m->scores + r * ld, top, visible, width);
    }
    at = b * a->dst_stride[0] + time * a->dst_stride[1] + h * a->dst_stride[2];
    void *dst = go_at_mut(a->dst, at, a->dst_dtype);
    store_values(a, m, m->v + kv * m->v_head, dst, rows, keys, scale);
}

void GO_NAME(attention)(go_team *team, const go_attention_args *a);

void GO_NAME(attention)(go_team *team, const go_attention_args *a) {
    scratch_map m = map_scratch(a, team->rank);
    pack_keys(team, a, &m);
    go_barrier(team);
    size_t blocks = (a->tq + QUERY_ROWS - 1) / QUERY_ROWS, tasks = a->batch * a->heads * blocks;
    for (size_t task; (task = go_next(team)) < tasks;) {
        size_t t = task % blocks * QUERY_ROWS, head = task / blocks % a->heads;
        size_t rows = a->tq - t < QUERY_ROWS ? a->tq - t : QUERY_ROWS;
        attend(a, &m, task / blocks / a->heads, head, t, rows);
    }
}
