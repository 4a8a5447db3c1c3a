/* Attention of few queries, as in decoding: k and v are read where they are, once for all
 * queries that share a head of them. The bits are those of attention by packed panels,
 * because no order of sums differs: a token gets what it would have got in a longer call.
 *
 * Phase 1 makes scores, cut by keys; phase 2 weights, cut by queries; phase 3 sums of
 * values, cut by columns. So one sequence with three heads of keys can fill a team. */
#ifndef GO_ATTENTION_FEW_H
#define GO_ATTENTION_FEW_H

#include "attention_tasks.h"
#include "split.h"

enum {
    FEW_QUERIES = 4,  /* of a head; more are faster with packed keys */
    FEW_ROWS = 24,    /* of all heads that share keys */
    FEW_KEYS = 32,    /* tasks of phase 1 begin at multiples of it */
    FEW_COLUMNS = 16, /* and tasks of phase 3 at multiples of this */
    FEW_FIXED = 64,   /* what a task costs on top, in sixteenths of FEW_KEYS keys */
};

/* One head of keys and values, and the queries of its heads: row r is query r % tq of its
 * head r / tq. Scores, weights and factors lie where packed values would. */
typedef struct {
    size_t kv, batch, first_head; /* of keys; of queries */
    size_t rows, padded;          /* padded to 8 */
    size_t keys;                  /* that the last query sees */
    size_t tk;                    /* row stride of scores and weights */
    kv_head at;
    void *q;      /* this thread's: space for FEW_ROWS rows of q, twice in bf16 */
    char *panels; /* space for packed keys, from key 0 on */
    float *scores;
    uint16_t *weights;
    float *factors; /* 1 / sum of weights: 8 bytes for a row */
} few_queries;

GO_INLINE size_t few_padded(size_t rows) { return (rows + 7) / 8 * 8; }

/* Whether a call has few queries, and scores fit where packed values would lie: 6 bytes for
 * each row and key, and 8 for each row. */
GO_INLINE int has_few_queries(const go_attention_args *a) {
    if (a->tq > FEW_QUERIES || a->kv_heads == 0 || a->dim % 16 || a->dim_v % 16) return 0;
    const size_t rows = a->heads / a->kv_heads * a->tq, value = a->dtype == GO_BF16 ? 2 : 4;
    return rows <= FEW_ROWS && 7 * few_padded(rows) <= value * a->dim_v;
}

static few_queries map_few(const go_attention_args *a, const scratch_map *m, size_t kv) {
    const size_t group = a->heads / a->kv_heads, batch = kv / a->kv_heads, head = kv % a->kv_heads;
    few_queries f = {.kv = kv, .batch = batch, .first_head = head * group, .rows = group * a->tq};
    f.padded = few_padded(f.rows), f.tk = round16(a->tk);
    f.keys = visible_keys(a, batch, a->tq - 1);
    f.at = kv_head_of(a, kv);
    f.q = m->q, f.panels = m->k + kv * m->k_head;
    f.scores = (float *)(m->v + kv * m->v_head);
    f.weights = (uint16_t *)(f.scores + f.padded * f.tk);
    f.factors = (float *)(f.weights + f.padded * f.tk);
    return f;
}

GO_INLINE size_t few_head(const go_attention_args *a, const few_queries *f, size_t row) {
    return f->first_head + row / a->tq;
}

GO_INLINE const float *few_mask(const go_attention_args *a, const few_queries *f, size_t row) {
    const query_block b = {.batch = f->batch, .head = few_head(a, f, row)};
    return mask_of(a, &b, row % a->tq);
}

/* Copies the rows of q one after the other. */
GO_INLINE void gather_few(const go_attention_args *a, const few_queries *f, void *to) {
    const size_t bytes = a->dim * (a->dtype == GO_BF16 ? 2 : 4);
    for (size_t r = 0; r < f->rows; r++) {
        const ptrdiff_t at = offset_of(a->q_stride, f->batch, r % a->tq, few_head(a, f, r));
        memcpy((char *)to + r * bytes, go_at(a->q, at, a->dtype), bytes);
    }
}

/* Stores 16 columns of a row. */
GO_INLINE void store_few(const go_attention_args *a, const few_queries *f, size_t row, size_t col,
                         go_f32x16 y) {
    const ptrdiff_t at = offset_of(a->dst_stride, f->batch, row % a->tq, few_head(a, f, row));
    go_store_as(a->dst, at + (ptrdiff_t)col, a->dst_dtype, y, GO_LANES);
}

/* Scores of keys, weights of some rows, or sums of columns: begin .. end - 1. Keys may lie behind
 * the last of an item. */
typedef void few_fn(const go_attention_args *a, const few_queries *f, size_t begin, size_t end);

/* One phase: `count` keys, rows or columns of each head of keys. */
static void walk_few(go_team *team, const go_attention_args *a, size_t count, size_t unit,
                     few_fn *compute) {
    const scratch_map m = map_scratch(a, team->rank);
    const size_t lines = a->batch * a->kv_heads, units = go_ceil_div(count, unit);
    const size_t step = unit * go_cut_lines(team->size, lines, units, units, FEW_FIXED).step;
    const size_t parts = go_ceil_div(count, step), tasks = lines * parts;
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        const few_queries f = map_few(a, &m, task / parts);
        const size_t begin = task % parts * step;
        compute(a, &f, begin, go_min_size(begin + step, count));
    }
}

/* A way to compute attention of few queries. */
typedef struct {
    size_t weigh_rows; /* that phase 2 takes together */
    few_fn *score, *weigh, *sum;
} few_way;

static void go_attention_few(go_team *team, const go_attention_args *a, const few_way *way) {
    walk_few(team, a, a->tq ? a->tk : 0, FEW_KEYS, way->score);
    go_barrier(team);
    walk_few(team, a, a->heads / a->kv_heads * a->tq, way->weigh_rows, way->weigh);
    go_barrier(team);
    walk_few(team, a, a->tq ? a->dim_v : 0, FEW_COLUMNS, way->sum);
}

#endif
