/* go_attention: softmax(scale * q k^T + mask) v, a block of query rows at a time. The
 * scores of a block against all keys stay in the cache of its core. Few queries read keys
 * and values in place: attention_few.h. Every level computes f32 alike and supplies its ways
 * to compute bf16 (and int8). */
#ifndef GO_ATTENTION_DRIVE_H
#define GO_ATTENTION_DRIVE_H

#include "attention_few_rows.h"

static void pack_f32(const go_attention_args *a, const scratch_map *m, size_t kv, size_t begin,
                     size_t end) {
    pack_rows(a, m, kv, begin, end, GO_F32);
}

static void attend_f32(const go_attention_args *a, const scratch_map *m, const query_block *b) {
    attend_rows(a, m, b, GO_F32);
}

static void score_few_f32(const go_attention_args *a, const few_queries *f, size_t begin,
                          size_t end) {
    score_few(a, f, begin, end, GO_F32);
}

static void weigh_few_f32(const go_attention_args *a, const few_queries *f, size_t begin,
                          size_t end) {
    weigh_few(a, f, begin, end, GO_F32);
}

static void sum_few_f32(const go_attention_args *a, const few_queries *f, size_t begin,
                        size_t end) {
    sum_few(a, f, begin, end, GO_F32);
}

GO_INLINE void go_attention_drive(go_team *team, const go_attention_args *a,
                                  const attention_way *bf16, const few_way *bf16_few) {
    const attention_way f32 = {QUERY_ROWS, F32_QUANTUM, pack_f32, attend_f32};
    const few_way f32_few = {1, score_few_f32, weigh_few_f32, sum_few_f32};
    const int few = has_few_queries(a), narrow = a->dtype == GO_BF16;
    if (few && narrow)
        go_attention_few(team, a, bf16_few);
    else if (few)
        go_attention_few(team, a, &f32_few);
    else if (narrow)
        go_attention_walk(team, a, bf16);
    else
        go_attention_walk(team, a, &f32);
}

#endif
