/* go_attention: softmax(scale * q k^T + mask) v, a block of query rows at a time. The
 * scores of a block against all keys stay in the cache of its core. Few queries read keys
 * and values in place: attention_few.h. */
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

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include "../neon_i8mm/attention_few_mmla.h"
#else
enum { BF16_ROWS = QUERY_ROWS, BF16_QUANTUM = PAIRS_QUANTUM, WEIGH_BF16_ROWS = 1 };

static void pack_bf16(const go_attention_args *a, const scratch_map *m, size_t kv, size_t begin,
                      size_t end) {
    if (stored_type(a) == GO_I8)
        pack_rows(a, m, kv, begin, end, GO_I8);
    else
        pack_rows(a, m, kv, begin, end, GO_BF16);
}

static void attend_bf16(const go_attention_args *a, const scratch_map *m, const query_block *b) {
    attend_rows(a, m, b, GO_BF16);
}

static void score_few_bf16(const go_attention_args *a, const few_queries *f, size_t begin,
                           size_t end) {
    if (stored_type(a) == GO_I8)
        score_few(a, f, begin, end, GO_I8);
    else
        score_few(a, f, begin, end, GO_BF16);
}

static void weigh_few_bf16(const go_attention_args *a, const few_queries *f, size_t begin,
                           size_t end) {
    weigh_few(a, f, begin, end, GO_BF16);
}

static void sum_few_bf16(const go_attention_args *a, const few_queries *f, size_t begin,
                         size_t end) {
    if (stored_type(a) == GO_I8)
        sum_few(a, f, begin, end, GO_I8);
    else
        sum_few(a, f, begin, end, GO_BF16);
}
#endif

void GO_NAME(attention)(go_team *team, const go_attention_args *a);

void GO_NAME(attention)(go_team *team, const go_attention_args *a) {
    const attention_way f32 = {QUERY_ROWS, F32_QUANTUM, pack_f32, attend_f32};
    const attention_way bf16 = {BF16_ROWS, BF16_QUANTUM, pack_bf16, attend_bf16};
    const int few = has_few_queries(a), narrow = a->dtype == GO_BF16;
    if (few && narrow)
        go_attention_few(team, a, WEIGH_BF16_ROWS, score_few_bf16, weigh_few_bf16, sum_few_bf16);
    else if (few)
        go_attention_few(team, a, 1, score_few_f32, weigh_few_f32, sum_few_f32);
    else if (narrow)
        go_attention_walk(team, a, &bf16);
    else
        go_attention_walk(team, a, &f32);
}
