/* bf16 attention with BFMMLA, eight queries by eight keys or value columns at a time.
 *
 * Scores stay in the 2 x 2 blocks in which BFMMLA sums them, 16 floats for two queries and
 * eight keys: [4 pairs of keys][2 queries][2 keys]. What differs from attention_rows.h are
 * the orders and roundings of sums, which are up to the core. */
#include <arm_neon.h>

#include "attention_tasks.h"

/* Rows of a block: two groups of eight, so that scores, weights and a panel of k or v fit
 * into 64 KB for 500 keys, and a panel is read from there the second time. */
enum { GROUP = 8, BF16_ROWS = 2 * GROUP, BF16_QUANTUM = 2 };

/* Calls CALL(pairs) with a constant that is enough for `rows` rows of a group: those that do
 * not exist cost nothing in pairs. */
#define FOR_PAIRS_OF(rows, CALL)  \
    do {                          \
        if ((rows) <= 2) {        \
            CALL(1);              \
        } else if ((rows) <= 4) { \
            CALL(2);              \
        } else {                  \
            CALL(4);              \
        }                         \
    } while (0)

GO_INLINE size_t steps_of_4(size_t x) { return (x + 3) / 4; }

/* Int8 as bf16: 8 bits lose nothing. */
GO_INLINE uint16x8_t widen_int8(int8x8_t x) {
    const int16x8_t wide = vmovl_s8(x);
    const float32x4_t low = vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
    const float32x4_t high = vcvtq_f32_s32(vmovl_high_s16(wide));
    return vuzp2q_u16(vreinterpretq_u16_f32(low), vreinterpretq_u16_f32(high));
}

/* n <= 8 values of bf16 or int8, then zeros. */
GO_INLINE uint16x8_t load_bf16s(const void *p, size_t n, go_dtype type) {
    if (n >= 8) return type == GO_I8 ? widen_int8(vld1_s8(p)) : vld1q_u16(p);
    uint16_t h[8] = {0};
    memcpy(h, p, n * (size_t)go_size_of(type));
    return type == GO_I8 ? widen_int8(vld1_s8((const int8_t *)h)) : vld1q_u16(h);
}

/* Eight rows of k or q as [dim / 4][8][4]; rows from `rows` on are 0. */
GO_INLINE void pack_group(const void *src, ptrdiff_t stride, size_t rows, size_t dim,
                          uint16_t *panel, go_dtype type) {
    for (size_t r = 0; r < GROUP; r += 2) {
        const ptrdiff_t row = (ptrdiff_t)r * stride;
        for (size_t c = 0; c < dim; c += 8) {
            const ptrdiff_t at = row + (ptrdiff_t)c;
            uint16x8_t x = vdupq_n_u16(0), y = x;
            if (r < rows) x = load_bf16s(go_at(src, at, type), dim - c, type);
            if (r + 1 < rows) y = load_bf16s(go_at(src, at + stride, type), dim - c, type);
            const uint64x2_t p = vreinterpretq_u64_u16(x), q = vreinterpretq_u64_u16(y);
            uint16_t *to = panel + c * GROUP + r * 4;
            vst1q_u16(to, vreinterpretq_u16_u64(vzip1q_u64(p, q)));
            vst1q_u16(to + 4 * GROUP, vreinterpretq_u16_u64(vzip2q_u64(p, q)));
        }
    }
}

/* Four keys of up to eight columns of v, keys from `keys` on 0, as [8][4]: two columns in
 * each result. */
GO_INLINE void load_v_step(const void *v, ptrdiff_t stride, size_t keys, size_t cols, go_dtype type,
                           uint16x8_t columns[4]) {
    uint16x8_t row[4];
    GO_UNROLLED (i, 4) {
        row[i] = vdupq_n_u16(0);
        if ((size_t)i < keys) row[i] = load_bf16s(go_at(v, i * stride, type), cols, type);
    }
#define WORDS vreinterpretq_u32_u16
    const uint32x4_t a = WORDS(vzip1q_u16(row[0], row[1])), b = WORDS(vzip1q_u16(row[2], row[3]));
    const uint32x4_t c = WORDS(vzip2q_u16(row[0], row[1])), d = WORDS(vzip2q_u16(row[2], row[3]));
#undef WORDS
    const uint32x4_t pairs[4] = {vzip1q_u32(a, b), vzip2q_u32(a, b), vzip1q_u32(c, d),
                                 vzip2q_u32(c, d)};
    GO_UNROLLED (i, 4) columns[i] = vreinterpretq_u16_u32(pairs[i]);
}

GO_INLINE void pack_v_step(const void *v, ptrdiff_t stride, size_t keys, size_t cols, go_dtype type,
                           uint16_t *to) {
    uint16x8_t columns[4];
    load_v_step(v, stride, keys, cols, type, columns);
    GO_UNROLLED (i, 4) vst1q_u16(to + 8 * i, columns[i]);
}

/* k: a panel [dim / 4][8][4] for eight keys; v: a panel [tk / 4][8][4] for eight columns. */
GO_INLINE void pack_mmla(const go_attention_args *a, const scratch_map *m, size_t kv, size_t begin,
                         size_t end, go_dtype type) {
    const kv_head h = kv_head_of(a, kv);
    const size_t tk = round16(a->tk);
    uint16_t *k_panels = (uint16_t *)(m->k + kv * m->k_head);
    uint16_t *v_panels = (uint16_t *)(m->v + kv * m->v_head);
    for (size_t key = begin; key < end; key += GROUP)
        pack_group(go_at(h.k, (ptrdiff_t)key * a->k_stride[1], type), a->k_stride[1], end - key,
                   a->dim, k_panels + key * round16(a->dim), type);
    for (size_t key = begin; key < (end + 7) / 8 * 8; key += 4)
        for (size_t c = 0; c < a->dim_v; c += 8)
            pack_v_step(go_at(h.v, (ptrdiff_t)key * a->v_stride[1] + (ptrdiff_t)c, type),
                        a->v_stride[1], key < end ? end - key : 0, a->dim_v - c, type,
                        v_panels + c * tk + key * 8);
}

static void pack_bf16(const go_attention_args *a, const scratch_map *m, size_t kv, size_t begin,
                      size_t end) {
    if (stored_type(a) == GO_I8)
        pack_mmla(a, m, kv, begin, end, GO_I8);
    else
        pack_mmla(a, m, kv, begin, end, GO_BF16);
}

/* sums[r][c]: rows 2r and 2r + 1 of one panel times 2c and 2c + 1 of another; `pairs` (a
 * constant) of the rows. */
GO_INLINE void multiply_8x8(const int pairs, const uint16_t *x, const uint16_t *y, size_t steps,
                            float32x4_t sums[4][4]) {
    GO_UNROLLED (r, pairs)
        GO_UNROLLED (c, 4) sums[r][c] = vdupq_n_f32(0);
    const bfloat16_t *p = (const bfloat16_t *)x, *q = (const bfloat16_t *)y;
    for (size_t s = 0; s < steps; s++, p += 32, q += 32) {
        bfloat16x8_t a[4], b[4];
        GO_UNROLLED (i, pairs) a[i] = vld1q_bf16(p + 8 * i);
        GO_UNROLLED (i, 4) b[i] = vld1q_bf16(q + 8 * i);
        GO_UNROLLED (r, pairs)
            GO_UNROLLED (c, 4) sums[r][c] = vbfmmlaq_f32(sums[r][c], a[r], b[c]);
    }
}

/* What two queries need to know of scales and masks. */
typedef struct {
    const float *k_scale; /* or null */
    const float *mask[2]; /* or null */
    size_t visible[2];
} query_pair;

/* Scales of eight keys, of which n exist, then zeros. */
GO_INLINE go_f32x16 load_scales(const float *scales, size_t n) {
    go_f32x16 x = {0};
    if (n >= 8)
        memcpy(&x, scales, 8 * sizeof *scales);
    else
        memcpy(&x, scales, n * sizeof *scales);
    return x;
}

/* Scores of two queries and the eight keys from `key` on, scaled and masked. */
GO_INLINE go_f32x16 mask_block(const go_attention_args *a, const query_pair *p, size_t key,
                               go_f32x16 x) {
    x *= go_splat(a->scale);
    if (p->k_scale) {
        const size_t end = p->visible[0] > p->visible[1] ? p->visible[0] : p->visible[1];
        const go_f32x16 s = load_scales(p->k_scale + key, end > key ? end - key : 0);
        x *= __builtin_shufflevector(s, s, 0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7);
    }
    if (p->mask[0]) {
        const size_t n = a->tk - key < 8 ? a->tk - key : 8;
        const go_f32x16 first = load_mask(p->mask[0], a->mask_stride[3], key, n);
        const go_f32x16 second = load_mask(p->mask[1], a->mask_stride[3], key, n);
        x = apply_mask(a, x,
                       __builtin_shufflevector(first, second, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20,
                                               21, 6, 7, 22, 23));
    }
    if (key + 8 <= p->visible[0] && key + 8 <= p->visible[1]) return x;
    const go_i32x16 offset = {0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7};
    const int32_t u = (int32_t)p->visible[0], v = (int32_t)p->visible[1];
    const go_i32x16 end = {u, u, v, v, u, u, v, v, u, u, v, v, u, u, v, v};
    return go_select(offset + (int32_t)key < end, x, go_splat(-__builtin_inff()));
}

/* Scores of pairs of queries and eight keys, scaled and masked; top[r]: the largest so far of
 * each lane of pair r, NaN if there is one. */
GO_INLINE void score_pairs(const int pairs, const go_attention_args *a, const uint16_t *q,
                           const uint16_t *k, const query_pair asks[4], size_t key, float *scores,
                           float32x4_t top[4]) {
    float32x4_t sums[4][4];
    multiply_8x8(pairs, q, k, steps_of_4(a->dim), sums);
    GO_UNROLLED (r, pairs) {
        go_f32x16 x;
        memcpy(&x, sums[r], sizeof x);
        x = mask_block(a, &asks[r], key, x);
        go_store(scores + r * GO_LANES, x);
        memcpy(sums[r], &x, sizeof x);
        const float32x4_t low = vmaxq_f32(sums[r][0], sums[r][1]);
        top[r] = vmaxq_f32(top[r], vmaxq_f32(low, vmaxq_f32(sums[r][2], sums[r][3])));
    }
}

/* The same for the `rows` rows of a group. */
static void score_group(const go_attention_args *a, size_t rows, const uint16_t *q,
                        const uint16_t *k, const query_pair asks[4], size_t key, float *scores,
                        float32x4_t top[4]) {
#define SCORE(pairs) score_pairs(pairs, a, q, k, asks, key, scores, top)
    FOR_PAIRS_OF(rows, SCORE);
#undef SCORE
}

/* Constants of go_exp_weightf: what multiplies stays in registers; addends are loaded every
 * time, because a multiply-add overwrites its addend and a load is cheaper than a copy. */
typedef struct {
    float32x4_t least, log2e, magic, last;
    const float *addends;
} exp_factors;

static const float exp_addends[5][4] = {
#define GO_FOUR(x) {x, x, x, x}
    GO_FOUR(GO_WEIGHT_MAGIC), GO_FOUR(GO_WEIGHT_3), GO_FOUR(GO_WEIGHT_2),
    GO_FOUR(GO_WEIGHT_1),     GO_FOUR(1.0f),
#undef GO_FOUR
};

GO_INLINE exp_factors load_exp_factors(void) {
    exp_factors f = {vdupq_n_f32(GO_WEIGHT_MIN), vdupq_n_f32(0x1.715476p+0f),
                     vdupq_n_f32(GO_WEIGHT_MAGIC), vdupq_n_f32(GO_WEIGHT_4), exp_addends[0]};
    __asm__("" : "+w"(f.least), "+w"(f.log2e), "+w"(f.magic), "+w"(f.last)); /* not made anew */
    return f;
}

/* go_exp_weightf of four lanes. */
GO_INLINE float32x4_t exp_weight_4(float32x4_t x, exp_factors *f) {
    GO_OPAQUE(f->addends); /* forget that they were loaded */
    x = vmaxq_f32(x, f->least);
    const float32x4_t t = vfmaq_f32(vld1q_f32(f->addends), x, f->log2e), n = vsubq_f32(t, f->magic);
    const float32x4_t r = vfmsq_f32(n, x, f->log2e);
    float32x4_t p = f->last;
    GO_UNROLLED (i, 4) p = vfmaq_f32(vld1q_f32(f->addends + 4 * (i + 1)), p, r);
    return vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(t), 23)));
}

/* Weights of two queries and four keys, two pairs of keys each, as bf16. */
GO_INLINE uint32x4_t narrow_weights(const float32x4_t w[2]) {
    return vzip1q_u32(vreinterpretq_u32_bf16(vcvtq_low_bf16_f32(w[0])),
                      vreinterpretq_u32_bf16(vcvtq_low_bf16_f32(w[1])));
}

/* Weights of two queries as bf16 [keys / 4][8][4] (two of the eight rows), times v_scale
 * (or null); returns the two factors 1 / sum, each twice. */
GO_INLINE float32x4_t weigh_pair(const go_attention_args *a, const float *scores, float32x4_t top,
                                 size_t keys, const float *v_scale, uint16_t *weights) {
    const float32x4_t largest = vpmaxq_f32(top, top), none = vdupq_n_f32(0);
    float32x4_t tops = vzip1q_f32(largest, largest);
    if (a->unseen_zero)
        tops = vbslq_f32(vceqq_f32(tops, vdupq_n_f32(-__builtin_inff())), none, tops);
    exp_factors factors = load_exp_factors();
    uint16x8_t one = vdupq_n_u16(0x3f80);
    __asm__("" : "+w"(one));
    float32x4_t sums[2] = {vdupq_n_f32(0), vdupq_n_f32(0)};
    for (size_t key = 0; key < keys; key += GROUP, scores += 4 * GO_LANES, weights += 64) {
        float scale[GO_LANES];
        if (v_scale) go_store(scale, load_scales(v_scale + key, keys - key));
        GO_UNROLLED (c, 2) {
            float32x4_t w[2];
            GO_UNROLLED (j, 2)
                w[j] = exp_weight_4(vsubq_f32(vld1q_f32(scores + 8 * c + 4 * j), tops), &factors);
            uint32x4_t both = narrow_weights(w);
            sums[c] =
                vbfdotq_f32(sums[c], vreinterpretq_bf16_u32(both), vreinterpretq_bf16_u16(one));
            if (v_scale) {
                GO_UNROLLED (j, 2) {
                    const float32x2_t s = vld1_f32(scale + 4 * c + 2 * j);
                    w[j] = vmulq_f32(w[j], vcombine_f32(s, s));
                }
                both = narrow_weights(w);
            }
            vst1q_u16(weights + 32 * c, vreinterpretq_u16_u32(both));
        }
    }
    const float32x4_t sum = vaddq_f32(sums[0], sums[1]), both = vpaddq_f32(sum, sum);
    const float32x4_t total = vzip1q_f32(both, both);
    return vbslq_f32(vceqq_f32(total, none), none, vdivq_f32(vdupq_n_f32(1.0f), total));
}

/* Sums of eight columns, times a factor for each row, as rows. */
GO_INLINE void scale_sums(const int pairs, float32x4_t sums[4][4], const float32x4_t factor[4],
                          size_t col, float tile[GROUP][GO_LANES]) {
    GO_UNROLLED (r, pairs)
        GO_UNROLLED_BY (i, 4, 2) {
            const float64x2_t x = vreinterpretq_f64_f32(vmulq_f32(sums[r][i], factor[r]));
            const float64x2_t y = vreinterpretq_f64_f32(vmulq_f32(sums[r][i + 1], factor[r]));
            vst1q_f32(&tile[2 * r][col + 2 * i], vreinterpretq_f32_f64(vzip1q_f64(x, y)));
            vst1q_f32(&tile[2 * r + 1][col + 2 * i], vreinterpretq_f32_f64(vzip2q_f64(x, y)));
        }
}

/* Weights of a group of `rows` rows times up to 16 columns of v, and the store. */
static void store_group(const go_attention_args *a, const uint16_t *weights, const uint16_t *v,
                        size_t keys, const float32x4_t factor[4], void *dst, size_t rows,
                        size_t cols) {
    float tile[GROUP][GO_LANES];
    for (size_t c = 0; c < cols; c += 8) {
        const uint16_t *panel = v + c * round16(a->tk);
        float32x4_t sums[4][4];
#define STORE(pairs)                                             \
    multiply_8x8(pairs, weights, panel, steps_of_4(keys), sums); \
    scale_sums(pairs, sums, factor, c, tile)
        FOR_PAIRS_OF(rows, STORE);
#undef STORE
    }
    for (size_t r = 0; r < rows; r++)
        go_store_as(dst, (ptrdiff_t)r * a->dst_stride[1], a->dst_dtype, go_load(tile[r]), cols);
}

/* The first query of a group, counted from the block's. */
GO_INLINE void describe_pairs(const go_attention_args *a, const kv_head *h, const query_block *b,
                              size_t first, query_pair pairs[4]) {
    for (size_t r = 0; r < GROUP; r++) {
        const size_t row = first + r < b->rows ? first + r : b->rows - 1, t = b->t + row;
        pairs[r / 2].k_scale = h->k_scale;
        pairs[r / 2].mask[r % 2] = mask_of(a, b, t);
        pairs[r / 2].visible[r % 2] = visible_keys(a, b->batch, t);
    }
}

/* Rows of group g of a block. */
GO_INLINE size_t rows_of_group(const query_block *b, size_t g) {
    return b->rows - g * GROUP < GROUP ? b->rows - g * GROUP : GROUP;
}

static void attend_bf16(const go_attention_args *a, const scratch_map *m, const query_block *b) {
    const size_t groups = (b->rows + GROUP - 1) / GROUP, blocks = (b->keys + 7) / 8;
    const size_t tk = round16(a->tk), dim = round16(a->dim);
    const kv_head h = kv_head_of(a, b->kv);
    const uint16_t *k = (const uint16_t *)(m->k + b->kv * m->k_head);
    const uint16_t *v = (const uint16_t *)(m->v + b->kv * m->v_head);
    const ptrdiff_t from = offset_of(a->q_stride, b->batch, b->t, b->head);
    query_pair pairs[2][4];
    float32x4_t top[2][4], factor[2][4];
    for (size_t g = 0; g < groups; g++) {
        const size_t first = g * GROUP;
        describe_pairs(a, &h, b, first, pairs[g]);
        pack_group((const uint16_t *)a->q + from + (ptrdiff_t)first * a->q_stride[1],
                   a->q_stride[1], b->rows - first, a->dim, (uint16_t *)m->q + first * dim,
                   GO_BF16);
        for (int r = 0; r < 4; r++) top[g][r] = vdupq_n_f32(-__builtin_inff());
    }
    for (size_t i = 0; i < blocks; i++)
        for (size_t g = 0; g < groups; g++)
            score_group(a, rows_of_group(b, g), (const uint16_t *)m->q + g * GROUP * dim,
                        k + i * GROUP * dim, pairs[g], 8 * i, m->scores + g * GROUP * tk + i * 64,
                        top[g]);
    for (size_t g = 0; g < groups; g++)
        for (size_t r = 0; 2 * r < rows_of_group(b, g); r++)
            factor[g][r] = weigh_pair(a, m->scores + g * GROUP * tk + r * GO_LANES, top[g][r],
                                      b->keys, h.v_scale, m->weights + g * GROUP * tk + 8 * r);
    for (size_t c = 0; c < a->dim_v; c += GO_LANES)
        for (size_t g = 0; g < groups; g++) {
            ptrdiff_t at = offset_of(a->dst_stride, b->batch, b->t + g * GROUP, b->head);
            void *dst = go_at_mut(a->dst, at + (ptrdiff_t)c, a->dst_dtype);
            const size_t cols = a->dim_v - c;
            store_group(a, m->weights + g * GROUP * tk, v + c * tk, b->keys, factor[g], dst,
                        rows_of_group(b, g), cols < GO_LANES ? cols : GO_LANES);
        }
}
