/* Attention with the scores of a query as a row: f32 by multiply-adds, bf16 in pairs. Keys and
 * values of int8 are bf16 without a rounding; their scales come behind the sums of products.
 *
 *   dot   one chain of fused multiply-adds over dim, from 0; bf16 in the order of
 *         pairs_bf16.h
 *   x     dot * scale (rounded), * scale of the key (rounded), + mask (rounded); -inf where
 *         causal hides a key
 *   m     largest x
 *   w     e^(x - m); bf16: go_exp_weightf
 *   s     sum of w over 16 lanes (key mod 16), folded as go_sum
 *   out   (chain over the keys of w * v) * (1 / s); bf16: w, or w * scale of the value, rounded
 *         to bf16, in pairs
 *
 * Hidden keys at the end have w = 0, which changes neither s nor, for finite v, the
 * chain: a padded batch gives the bits of its utterances alone. Where m is -inf, w is NaN; under
 * unseen_zero m is 0 then, and so are w and s, for which 1 / s counts as 0. */
#ifndef GO_ATTENTION_ROWS_H
#define GO_ATTENTION_ROWS_H

#include "attention_tasks.h"
#include "go_transpose.h"
#include "pairs_bf16.h"
#include "tile_f32.h"

/* Queries that still make good use of registers: half of a tile, or a quarter of a tall one. */
enum {
    F32_QUANTUM = GO_TILE_ROWS > 1 ? 3 : 1,
    PAIRS_QUANTUM = GO_PAIRS_ROWS > 1 ? GO_PAIRS_ROWS / 2 : 1,
};

/* Sixteen pairs of int8, a pair in two bytes, as pairs of bf16: 8 bits lose nothing. */
GO_INLINE go_u32x16 widen_pairs(go_i16x16 pairs) {
    const go_i32x16 wide = __builtin_convertvector(pairs, go_i32x16);
    const go_i32x16 first = (go_i32x16)((go_u32x16)wide << 24) >> 24, second = wide >> 8;
    return go_bits(go_to_f32(first)) >> 16 | go_bits(go_to_f32(second));
}

/* Up to 16 words of a row, then zeros: values of f32, or pairs of bf16 or int8. */
GO_INLINE go_u32x16 load_words(const void *row, size_t bytes, go_dtype type) {
    char words[64] = {0};
    memcpy(words, row, bytes);
    if (type == GO_I8) {
        go_i16x16 pairs;
        memcpy(&pairs, words, sizeof pairs);
        return widen_pairs(pairs);
    }
    go_u32x16 v;
    memcpy(&v, words, sizeof v);
    return v;
}

/* Words first .. first + words - 1 of 16 keys, `bytes` of each of the first `keys`, as
 * [words][16]. */
GO_INLINE void transpose_keys(const char *at, ptrdiff_t step, size_t keys, size_t bytes,
                              size_t words, uint32_t *panel, go_dtype type) {
    go_u32x16 m[GO_LANES];
    GO_UNROLLED (j, GO_LANES) m[j] = load_words(at + j * step, (size_t)j < keys ? bytes : 0, type);
    go_transpose_16(m);
    GO_UNROLLED (i, GO_LANES)
        if ((size_t)i < words) memcpy(panel + i * GO_LANES, &m[i], sizeof m[i]);
}

/* Sixteen keys as [words][16], a word being a value of f32 or a pair of bf16; keys from
 * `end` on are 0. Constants spare whole words the tests of every row. */
GO_INLINE void pack_k_panel(const go_attention_args *a, const void *k, size_t key, size_t end,
                            uint32_t *panel, go_dtype type) {
    const size_t size = (size_t)go_size_of(type), per_word = type == GO_F32 ? 1 : 2;
    const size_t full = GO_LANES * per_word * size, keys = key < end ? end - key : 0;
    const char *at = go_at(k, (ptrdiff_t)key * a->k_stride[1], type);
    const ptrdiff_t step = a->k_stride[1] * (ptrdiff_t)size;
    for (size_t w = 0, left = a->dim * size; left > 0; w += GO_LANES, at += full) {
        if (left >= full && keys >= GO_LANES) {
            transpose_keys(at, step, GO_LANES, full, GO_LANES, panel + w * GO_LANES, type);
            left -= full;
        } else {
            const size_t bytes = go_min_size(left, full);
            const size_t words = (bytes + per_word * size - 1) / (per_word * size);
            transpose_keys(at, step, keys, bytes, words, panel + w * GO_LANES, type);
            left -= bytes;
        }
    }
}

/* Keys from `key` to `end` of 16 or fewer columns of v: f32 [keys][16]. */
GO_INLINE void pack_v_f32(const go_attention_args *a, const float *v, size_t cols, size_t key,
                          size_t end, float *panel) {
    for (; key < end; key++)
        go_store(panel + key * GO_LANES, go_load_n(v + (ptrdiff_t)key * a->v_stride[1], cols));
}

/* Up to 16 values of a row of v, then zeros; int8 without its scale. */
GO_INLINE go_u32x16 load_v(const void *row, size_t cols, go_dtype type) {
    if (type == GO_BF16) return go_bits(go_load_bf16_n(row, cols));
    go_i8x16 x = {0};
    if (cols >= GO_LANES)
        memcpy(&x, row, sizeof x);
    else
        memcpy(&x, row, cols);
    return go_bits(go_to_f32(__builtin_convertvector(x, go_i32x16)));
}

/* The same as bf16 [keys / 2][16][2]; an odd key at the end is followed by 0. */
GO_INLINE void pack_v_pairs(const go_attention_args *a, const void *v, size_t cols, size_t key,
                            size_t end, uint16_t *panel, go_dtype type) {
    const ptrdiff_t step = a->v_stride[1];
    for (; key < end; key += 2) {
        const ptrdiff_t row = (ptrdiff_t)key * step;
        go_u32x16 pairs = load_v(go_at(v, row, type), cols, type) >> 16;
        if (key + 1 < end) pairs |= load_v(go_at(v, row + step, type), cols, type);
        memcpy(panel + key * GO_LANES, &pairs, sizeof pairs);
    }
}

/* Whole rows of 16 keys at a time: columns alone would be far apart in memory. */
GO_INLINE void pack_rows(const go_attention_args *a, const scratch_map *m, size_t kv, size_t begin,
                         size_t end, go_dtype type) {
    const kv_head h = kv_head_of(a, kv);
    const size_t value = type == GO_F32 ? 4 : 2;
    char *k_panels = m->k + kv * m->k_head, *v_panels = m->v + kv * m->v_head;
    for (size_t key = begin; key < end; key += GO_LANES) {
        const size_t next = go_min_size(key + GO_LANES, end);
        pack_k_panel(a, h.k, key, next, (uint32_t *)(k_panels + key * round16(a->dim) * value),
                     type);
        for (size_t c = 0; c < a->dim_v; c += GO_LANES) {
            const size_t cols = go_min_size(GO_LANES, a->dim_v - c);
            char *panel = v_panels + c * round16(a->tk) * value;
            const void *v = go_at(h.v, (ptrdiff_t)c, type);
            if (type == GO_F32)
                pack_v_f32(a, v, cols, key, next, (float *)panel);
            else
                pack_v_pairs(a, v, cols, key, next, (uint16_t *)panel, type);
        }
    }
}

/* Scores of n keys from s on, scaled and masked. */
GO_INLINE go_f32x16 masked(const go_attention_args *a, const float *row, const float *k_scale,
                           const float *mask, size_t s, size_t n) {
    go_f32x16 x = go_load(row + s) * go_splat(a->scale);
    if (k_scale) x *= go_load_n(k_scale + s, n);
    if (mask) x = apply_mask(a, x, load_mask(mask, a->mask_stride[3], s, n));
    return x;
}

/* Scales and masks a row; returns the largest score. Lanes from `visible` on become -inf. */
static float mask_row(const go_attention_args *a, float *row, const float *k_scale,
                      const float *mask, size_t visible, size_t keys) {
    go_f32x16 top = go_splat(-__builtin_inff());
    size_t s = 0;
    for (; s + GO_LANES <= visible; s += GO_LANES) {
        const go_f32x16 x = masked(a, row, k_scale, mask, s, GO_LANES);
        top = go_max_skip_nan(x, top);
        go_store(row + s, x);
    }
    for (; s < keys; s += GO_LANES) {
        const size_t n = s < visible ? visible - s : 0;
        const go_f32x16 x =
            go_keep_lanes(masked(a, row, k_scale, mask, s, n), n, -__builtin_inff());
        top = go_max_skip_nan(x, top);
        go_store(row + s, x);
    }
    return go_fold_max(top);
}

/* Weights of a row from its scores, in place or as bf16; returns 1 / their sum. */
GO_INLINE float weigh_row(const go_attention_args *a, float *row, float top, size_t keys,
                          const float *v_scale, uint16_t *weights, go_dtype type) {
    if (a->unseen_zero && top == -__builtin_inff()) top = 0.0f;
    go_f32x16 sum = go_zero();
    for (size_t s = 0; s < keys; s += GO_LANES) {
        const go_f32x16 x = go_load(row + s) - go_splat(top);
        go_f32x16 w = type == GO_BF16 ? go_exp_weight_lanes(x) : go_exp_negative_lanes(x);
        sum += w;
        if (v_scale) w *= go_load_n(v_scale + s, keys - s);
        if (type == GO_BF16)
            go_store_narrow_n(weights + s, go_narrow_any(w), GO_LANES);
        else
            go_store(row + s, w);
    }
    const float total = go_sum(sum);
    return total == 0.0f ? 0.0f : 1.0f / total;
}

/* Scores of a block's queries and the first `width` keys, before scale and mask. */
GO_INLINE void compute_scores(const go_attention_args *a, const scratch_map *m,
                              const query_block *b, size_t width, go_dtype type) {
    const void *q = go_at(a->q, offset_of(a->q_stride, b->batch, b->t, b->head), type);
    const char *panels = m->k + b->kv * m->k_head;
    const size_t dim = round16(a->dim), tk = round16(a->tk);
    if (type == GO_F32) {
        go_f32_operands o = {.a = q, .a_stride = a->q_stride[1], .k = a->dim};
        o.ldb = GO_LANES, o.b_next = (ptrdiff_t)(GO_LANES * dim);
        for (size_t key = 0; key < width; key += GO_TILE_COLS) {
            o.b = (const float *)panels + key * dim;
            go_tile_f32(&o, b->rows, go_min_size(GO_TILE_COLS, width - key), m->scores + key, tk);
        }
        return;
    }
    go_pairs_operands o = {.a = m->q, .a_stride = dim, .b_next = GO_LANES * dim};
    o.depth = (a->dim + 1) / 2 * 2;
    for (size_t r = 0; r < b->rows; r++) { /* copied, because dim may be odd */
        uint16_t *row = (uint16_t *)m->q + r * dim;
        memcpy(row, (const uint16_t *)q + (ptrdiff_t)r * a->q_stride[1], 2 * a->dim);
        row[o.depth - 1] = a->dim % 2 ? 0 : row[o.depth - 1];
    }
    for (size_t key = 0; key < width; key += GO_PAIRS_COLS) {
        o.b = (const uint16_t *)panels + key * dim;
        go_pairs_rows(&o, b->rows, go_min_size(GO_PAIRS_COLS, width - key), m->scores + key, tk);
    }
}

/* Weights times v, times 1 / sum of each row, and the store. */
GO_INLINE void store_values(const go_attention_args *a, const scratch_map *m, const query_block *b,
                            const float *factor, go_dtype type) {
    enum { COLS = 32 };
    float tile[QUERY_ROWS * COLS];
    const char *panels = m->v + b->kv * m->v_head;
    const size_t tk = round16(a->tk);
    const go_f32_operands f32 = {.a = m->scores, .a_stride = (ptrdiff_t)tk, .k = b->keys};
    ptrdiff_t at = offset_of(a->dst_stride, b->batch, b->t, b->head);
    void *dst = go_at_mut(a->dst, at, a->dst_dtype);
    for (size_t c = 0, step; c < a->dim_v; c += step) {
        step = type == GO_F32 ? GO_TILE_COLS : GO_PAIRS_COLS;
        const size_t cols = go_min_size(step, a->dim_v - c);
        if (type == GO_F32) {
            go_f32_operands o = f32;
            o.b = (const float *)panels + c * tk, o.ldb = GO_LANES;
            o.b_next = (ptrdiff_t)(GO_LANES * tk);
            go_tile_f32(&o, b->rows, cols, tile, COLS);
        } else {
            const uint16_t *panel = (const uint16_t *)panels + c * tk;
            const size_t depth = (b->keys + 1) / 2 * 2;
            const go_pairs_operands o = {m->weights, tk, panel, GO_LANES * tk, depth, 0};
            go_pairs_rows(&o, b->rows, cols, tile, COLS);
        }
        for (size_t r = 0; r < b->rows; r++)
            for (size_t i = 0; i < cols; i += GO_LANES) {
                const go_f32x16 y = go_load(tile + r * COLS + i) * go_splat(factor[r]);
                at = (ptrdiff_t)r * a->dst_stride[1] + (ptrdiff_t)(c + i);
                go_store_as(dst, at, a->dst_dtype, y, go_min_size(GO_LANES, cols - i));
            }
    }
}

GO_INLINE void attend_rows(const go_attention_args *a, const scratch_map *m, const query_block *b,
                           go_dtype type) {
    const kv_head h = kv_head_of(a, b->kv);
    const size_t tk = round16(a->tk);
    compute_scores(a, m, b, round16(b->keys), type);
    float factor[QUERY_ROWS];
    for (size_t r = 0; r < b->rows; r++) {
        float *row = m->scores + r * tk;
        const size_t t = b->t + r;
        const size_t visible = visible_keys(a, b->batch, t);
        const float top = mask_row(a, row, h.k_scale, mask_of(a, b, t), visible, b->keys);
        factor[r] = weigh_row(a, row, top, b->keys, h.v_scale, m->weights + r * tk, type);
    }
    store_values(a, m, b, factor, type);
}

#endif
