/* Few queries with BFMMLA: the sums of attention_mmla.h, of keys and values that are put
 * into the order of BFMMLA in registers. Rows of a group of eight that do not exist cost
 * nothing in pairs. */
#include "attention_few.h"
#include "attention_mmla.h"

enum {
    WEIGH_BF16_ROWS = 2,
    FEW_GROUPS = FEW_ROWS / GROUP,
    SUM_KEYS = 256,   /* whose values stay in the cache while eight columns follow eight */
    SUM_COLUMNS = 32, /* one line of it */
};

/* Four values of `pairs` pairs of rows times four pairs of columns. */
GO_INLINE void add_products(const int pairs, const uint16_t *x, const uint16x8_t columns[4],
                            float32x4_t sums[4][4]) {
    GO_UNROLLED (r, pairs) {
        const bfloat16x8_t a = vreinterpretq_bf16_u16(vld1q_u16(x + 8 * r));
        GO_UNROLLED (c, 4)
            sums[r][c] = vbfmmlaq_f32(sums[r][c], a, vreinterpretq_bf16_u16(columns[c]));
    }
}

/* Scores of pairs of queries, packed, and eight keys in memory. */
GO_INLINE void score_8_keys(const int pairs, const uint16_t *q, const void *const key[8],
                            size_t dim, go_dtype type, float32x4_t result[4][4]) {
    float32x4_t sums[4][4];
    GO_UNROLLED (r, pairs)
        GO_UNROLLED (c, 4) sums[r][c] = vdupq_n_f32(0);
    for (size_t i = 0; i < dim; i += 8, q += 8 * GROUP) {
        uint16x8_t first[4], second[4];
        GO_UNROLLED (c, 4) {
            const void *at[2] = {go_at(key[2 * c], (ptrdiff_t)i, type),
                                 go_at(key[2 * c + 1], (ptrdiff_t)i, type)};
            const uint64x2_t x = vreinterpretq_u64_u16(load_bf16s(at[0], 8, type));
            const uint64x2_t y = vreinterpretq_u64_u16(load_bf16s(at[1], 8, type));
            first[c] = vreinterpretq_u16_u64(vzip1q_u64(x, y));
            second[c] = vreinterpretq_u16_u64(vzip2q_u64(x, y));
        }
        add_products(pairs, q, first, sums);
        add_products(pairs, q + 4 * GROUP, second, sums);
    }
    GO_UNROLLED (r, pairs)
        GO_UNROLLED (c, 4) result[r][c] = sums[r][c];
}

/* Adds weights of pairs of queries times eight columns of `keys` values in memory. */
GO_INLINE void sum_8_columns(const int pairs, const uint16_t *weights, const void *v,
                             ptrdiff_t stride, size_t keys, go_dtype type,
                             float32x4_t result[4][4]) {
    float32x4_t sums[4][4];
    GO_UNROLLED (r, pairs)
        GO_UNROLLED (c, 4) sums[r][c] = result[r][c];
    uint16x8_t columns[4];
    for (; keys >= 4; keys -= 4, v = go_at(v, 4 * stride, type), weights += 4 * GROUP) {
        load_v_step(v, stride, 4, 8, type, columns);
        add_products(pairs, weights, columns, sums);
    }
    if (keys) {
        load_v_step(v, stride, keys, 8, type, columns);
        add_products(pairs, weights, columns, sums);
    }
    GO_UNROLLED (r, pairs)
        GO_UNROLLED (c, 4) result[r][c] = sums[r][c];
}

static query_pair describe_few(const go_attention_args *a, const few_queries *f, size_t first) {
    query_pair p = {.k_scale = f->at.k_scale};
    for (size_t i = 0; i < 2; i++) {
        const size_t row = go_min_size(first + i, f->rows - 1);
        p.mask[i] = few_mask(a, f, row);
        p.visible[i] = visible_keys(a, f->batch, row % a->tq);
    }
    return p;
}

/* Scales and masks the scores of a group and eight keys, and stores them. */
GO_INLINE void store_scores(const go_attention_args *a, const few_queries *f, size_t group,
                            const query_pair *pairs, size_t key, float32x4_t sums[4][4]) {
    float *scores = f->scores + group * GROUP * f->tk + key * GROUP;
    const size_t first = group * GROUP;
    for (size_t r = 0; r < 4 && first + 2 * r < f->rows; r++) {
        go_f32x16 x;
        memcpy(&x, sums[r], sizeof x);
        go_store(scores + r * GO_LANES, mask_block(a, &pairs[first / 2 + r], key, x));
    }
}

GO_INLINE void score_few_mmla(const go_attention_args *a, const few_queries *f, size_t begin,
                              size_t end, go_dtype type) {
    uint16_t *rows = f->q, *packed = rows + FEW_ROWS * a->dim;
    query_pair pairs[FEW_ROWS / 2];
    end = go_min_size(end, f->keys);
    gather_few(a, f, rows);
    for (size_t r = 0; r < f->rows; r += GROUP)
        pack_group(rows + r * a->dim, (ptrdiff_t)a->dim, f->rows - r, a->dim, packed + r * a->dim,
                   GO_BF16);
    for (size_t r = 0; r < f->rows; r += 2) pairs[r / 2] = describe_few(a, f, r);
    for (size_t key = begin; key < end; key += GROUP) {
        const void *at[GROUP]; /* keys behind the last are hidden: any will do */
        for (size_t i = 0; i < GROUP; i++)
            at[i] = go_at(f->at.k, (ptrdiff_t)go_min_size(key + i, end - 1) * a->k_stride[1], type);
        for (size_t g = 0; g * GROUP < f->rows; g++) {
            float32x4_t sums[4][4];
#define SCORE(pairs) score_8_keys(pairs, packed + g * GROUP * a->dim, at, a->dim, type, sums)
            FOR_PAIRS_OF(f->rows - g * GROUP, SCORE);
#undef SCORE
            store_scores(a, f, g, pairs, key, sums);
        }
    }
}

static void score_few_bf16(const go_attention_args *a, const few_queries *f, size_t begin,
                           size_t end) {
    if (stored_type(a) == GO_I8)
        score_few_mmla(a, f, begin, end, GO_I8);
    else
        score_few_mmla(a, f, begin, end, GO_BF16);
}

/* The largest score of each lane of a pair of queries, NaN if there is one. */
static float32x4_t largest_few(const float *scores, size_t blocks) {
    float32x4_t top = vdupq_n_f32(-__builtin_inff());
    for (size_t i = 0; i < blocks; i++, scores += 4 * GO_LANES)
        GO_UNROLLED (c, 4) top = vmaxq_f32(top, vld1q_f32(scores + 4 * c));
    return top;
}

static void weigh_few_bf16(const go_attention_args *a, const few_queries *f, size_t begin,
                           size_t end) {
    const size_t blocks = (f->keys + GROUP - 1) / GROUP;
    for (size_t r = begin; r < end; r += 2) {
        const size_t group = r / GROUP * GROUP * f->tk, pair = r % GROUP / 2;
        const float *scores = f->scores + group + pair * GO_LANES;
        const float32x4_t top = largest_few(scores, blocks);
        vst1q_f32(f->factors + 2 * r, weigh_pair(a, scores, top, f->keys, f->at.v_scale,
                                                 f->weights + group + 8 * pair));
    }
}

/* Up to 32 columns: some keys for all of them, then the next keys. */
GO_INLINE void sum_few_columns(const go_attention_args *a, const few_queries *f, size_t col,
                               size_t cols, go_dtype type) {
    float32x4_t sums[FEW_GROUPS][SUM_COLUMNS / 8][4][4];
    memset(sums, 0, sizeof sums);
    for (size_t key = 0; key < f->keys; key += SUM_KEYS) {
        const ptrdiff_t first = (ptrdiff_t)key * a->v_stride[1] + (ptrdiff_t)col;
        const size_t keys = go_min_size(SUM_KEYS, f->keys - key);
        for (size_t c = 0; c < cols; c += 8)
            for (size_t g = 0; g * GROUP < f->rows; g++) {
                const uint16_t *weights = f->weights + g * GROUP * f->tk + key * GROUP;
                const void *v = go_at(f->at.v, first + (ptrdiff_t)c, type);
#define SUM(pairs) sum_8_columns(pairs, weights, v, a->v_stride[1], keys, type, sums[g][c / 8])
                FOR_PAIRS_OF(f->rows - g * GROUP, SUM);
#undef SUM
            }
    }
    for (size_t g = 0; g * GROUP < f->rows; g++) {
        float32x4_t factor[4];
        for (size_t r = 0; r < 4; r++) factor[r] = vld1q_f32(f->factors + 2 * (g * GROUP + 2 * r));
        for (size_t c = 0; c < cols; c += GO_LANES) {
            float tile[GROUP][GO_LANES];
            for (size_t i = 0; i < GO_LANES; i += 8)
                scale_sums(4, sums[g][(c + i) / 8], factor, i, tile);
            for (size_t r = 0; r < GROUP && g * GROUP + r < f->rows; r++)
                store_few(a, f, g * GROUP + r, col + c, go_load(tile[r]));
        }
    }
}

static void sum_few_bf16(const go_attention_args *a, const few_queries *f, size_t begin,
                         size_t end) {
    for (size_t c = begin; c < end; c += SUM_COLUMNS) {
        const size_t cols = go_min_size(SUM_COLUMNS, end - c);
        if (stored_type(a) == GO_I8)
            sum_few_columns(a, f, c, cols, GO_I8);
        else
            sum_few_columns(a, f, c, cols, GO_BF16);
    }
}

#undef FOR_PAIRS_OF
