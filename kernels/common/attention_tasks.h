/* What the ways to compute attention share: its tasks, its scratch memory, which keys a
 * query sees, and the masks. */
#ifndef GO_ATTENTION_TASKS_H
#define GO_ATTENTION_TASKS_H

#include "go_vec_math.h"
#include "rows.h"

enum { QUERY_ROWS = 24 };

GO_INLINE size_t round16(size_t x) { return (x + 15) / 16 * 16; }

/* The scratch memory (attention_scratch_bytes), with values of f32 or bf16 in k, v, q:
 *   batch * kv_heads * c16(tk) * c16(dim)      k, packed
 *   batch * kv_heads * c16(tk) * c16(dim_v)    v, packed
 *   and for each thread QUERY_ROWS times
 *     c16(dim) q, c16(tk) f32 scores, c16(tk) bf16 weights
 * Few queries share scores and weights where v would lie: attention_few.h. */
typedef struct {
    char *k, *v;           /* the whole team's */
    void *q;               /* this and the following: this thread's */
    float *scores;         /* row stride c16(tk) */
    uint16_t *weights;     /* the same */
    size_t k_head, v_head; /* bytes of one head */
} scratch_map;

static scratch_map map_scratch(const go_attention_args *a, unsigned rank) {
    const size_t value = a->dtype == GO_BF16 ? 2 : 4;
    const size_t tk = round16(a->tk), dim = round16(a->dim), heads = a->batch * a->kv_heads;
    scratch_map m = {.k_head = tk * dim * value, .v_head = tk * round16(a->dim_v) * value};
    m.k = a->scratch;
    m.v = m.k + heads * m.k_head;
    char *own = m.v + heads * m.v_head + rank * QUERY_ROWS * (4 * dim + 6 * tk);
    m.q = own;
    m.scores = (float *)(own + QUERY_ROWS * 4 * dim);
    m.weights = (uint16_t *)(m.scores + QUERY_ROWS * tk);
    return m;
}

/* Up to QUERY_ROWS queries of one head: t .. t + rows - 1. */
typedef struct {
    size_t batch, head, t, rows;
    size_t kv;   /* head of k and v, counted through the batch */
    size_t keys; /* that the last query sees, and hence any */
} query_block;

/* One head of keys and values of an item, from its first key on. */
typedef struct {
    const void *k, *v;
    const float *k_scale, *v_scale; /* of int8, one of each key; or null */
} kv_head;

/* What k and v hold. */
GO_INLINE go_dtype stored_type(const go_attention_args *a) { return a->k_scale ? GO_I8 : a->dtype; }

/* Keys of an item. */
GO_INLINE size_t keys_of(const go_attention_args *a, size_t batch) {
    return a->past ? (size_t)(a->past[batch] - a->start[batch]) + a->tq : a->tk;
}

/* Keys that query t sees. */
GO_INLINE size_t visible_keys(const go_attention_args *a, size_t batch, size_t t) {
    const ptrdiff_t keys = (ptrdiff_t)keys_of(a, batch);
    ptrdiff_t n = a->causal == GO_SEES_ALL ? keys : (ptrdiff_t)t + 1;
    if (a->causal == GO_CAUSAL_LAST) n += keys - (ptrdiff_t)a->tq;
    return n < 0 ? 0 : n > keys ? (size_t)keys : (size_t)n;
}

/* Address of the first value of q, k, v or dst for a batch, time and head. */
GO_INLINE ptrdiff_t offset_of(const ptrdiff_t stride[3], size_t batch, size_t time, size_t head) {
    return (ptrdiff_t)batch * stride[0] + (ptrdiff_t)time * stride[1] + (ptrdiff_t)head * stride[2];
}

GO_INLINE kv_head kv_head_of(const go_attention_args *a, size_t kv) {
    const size_t batch = kv / a->kv_heads, head = kv % a->kv_heads;
    const size_t first = a->past ? (size_t)a->start[batch] : 0;
    const go_dtype type = stored_type(a);
    kv_head h = {go_at(a->k, offset_of(a->k_stride, batch, first, head), type),
                 go_at(a->v, offset_of(a->v_stride, batch, first, head), type), NULL, NULL};
    if (type != GO_I8) return h;
    const ptrdiff_t at = (ptrdiff_t)batch * a->scale_stride[0] +
                         (ptrdiff_t)head * a->scale_stride[1] + (ptrdiff_t)first;
    h.k_scale = a->k_scale + at, h.v_scale = a->v_scale + at;
    return h;
}

/* The mask of query t of a block's head, or null. */
GO_INLINE const float *mask_of(const go_attention_args *a, const query_block *b, size_t t) {
    if (!a->mask) return NULL;
    return a->mask + (ptrdiff_t)b->batch * a->mask_stride[0] +
           (ptrdiff_t)b->head * a->mask_stride[1] + (ptrdiff_t)t * a->mask_stride[2];
}

/* Mask values of n keys (n <= 16) from `key` on. */
GO_INLINE go_f32x16 load_mask(const float *mask, ptrdiff_t stride, size_t key, size_t n) {
    if (stride == 1) return go_load_n(mask + key, n);
    float lane[GO_LANES] = {0};
    for (size_t i = 0; i < n; i++) lane[i] = mask[(ptrdiff_t)(key + i) * stride];
    return go_load(lane);
}

/* Scores under a mask. */
GO_INLINE go_f32x16 apply_mask(const go_attention_args *a, go_f32x16 x, go_f32x16 mask) {
    return a->replaces ? go_select(mask != go_zero(), mask, x) : x + mask;
}

/* Packs keys begin .. end - 1 (begin a multiple of 16) of k and v of a head. */
typedef void pack_keys_fn(const go_attention_args *a, const scratch_map *m, size_t kv, size_t begin,
                          size_t end);
typedef void attend_fn(const go_attention_args *a, const scratch_map *m, const query_block *block);

/* A way to compute attention. */
typedef struct {
    size_t block;   /* queries (<= QUERY_ROWS) that attend() takes at once, */
    size_t quantum; /* and how many its inner loops do */
    pack_keys_fn *pack;
    attend_fn *attend;
} attention_way;

/* Packs k and v once for all heads and queries that read them. */
GO_INLINE void pack_all_keys(go_team *team, const go_attention_args *a, const attention_way *way) {
    const scratch_map m = map_scratch(a, team->rank);
    const size_t heads = a->batch * a->kv_heads;
    const size_t step = go_task_rows_of(heads, a->tk, a->dim + a->dim_v, GO_LANES, team->size);
    const size_t parts = go_ceil_div(a->tk, step), tasks = heads * parts;
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        const size_t kv = task / parts, begin = task % parts * step;
        const size_t keys = keys_of(a, kv / a->kv_heads);
        if (begin < keys) way->pack(a, &m, kv, begin, go_min_size(begin + step, keys));
    }
}

/* Queries of a task. Under the causal rule a block: which keys it reads depends on its last
 * query (a hidden value that is not finite shows), so that blocks begin where they always do. */
GO_INLINE size_t queries_of_task(const go_team *team, const go_attention_args *a,
                                 const attention_way *way) {
    if (a->causal) return way->block;
    const size_t units = go_ceil_div(a->tq, way->quantum);
    const size_t claim = 16 * GO_CLAIM_MACS / (way->quantum * a->tk * (a->dim + a->dim_v) + 1);
    return way->quantum * go_cut_lines(team->size, a->batch * a->heads, units, units, claim).step;
}

GO_INLINE void attend_all_queries(go_team *team, const go_attention_args *a,
                                  const attention_way *way) {
    const scratch_map m = map_scratch(a, team->rank);
    const size_t step = queries_of_task(team, a, way), parts = go_ceil_div(a->tq, step);
    const size_t tasks = a->batch * a->heads * parts;
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        const size_t line = task / parts, part = task % parts, head = line % a->heads;
        query_block b = {.batch = line / a->heads, .head = head};
        b.kv = b.batch * a->kv_heads + head / (a->heads / a->kv_heads);
        /* Those that see most keys come first, so that small tasks fill what is left. */
        b.t = (a->causal ? parts - 1 - part : part) * step;
        for (const size_t end = go_min_size(b.t + step, a->tq); b.t < end; b.t += b.rows) {
            b.rows = go_min_size(way->block, end - b.t);
            b.keys = visible_keys(a, b.batch, b.t + b.rows - 1);
            way->attend(a, &m, &b);
        }
    }
}

GO_INLINE void go_attention_walk(go_team *team, const go_attention_args *a,
                                 const attention_way *way) {
    pack_all_keys(team, a, way);
    go_barrier(team);
    attend_all_queries(team, a, way);
}

#endif
