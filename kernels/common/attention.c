/* go_attention: softmax(scale * q k^T + mask) v, a block of query rows at a time. The
 * scores of a block against all keys stay in the cache of its core. */
#include "attention_rows.h"

static void pack_f32(const go_attention_args *a, const scratch_map *m, size_t kv, size_t begin,
                     size_t end) {
    pack_rows(a, m, kv, begin, end, GO_F32);
}

static void attend_f32(const go_attention_args *a, const scratch_map *m, const query_block *b) {
    attend_rows(a, m, b, GO_F32);
}

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include "../neon_i8mm/attention_mmla.h"
#else
enum { BF16_ROWS = QUERY_ROWS };

static void pack_bf16(const go_attention_args *a, const scratch_map *m, size_t kv, size_t begin,
                      size_t end) {
    pack_rows(a, m, kv, begin, end, GO_BF16);
}

static void attend_bf16(const go_attention_args *a, const scratch_map *m, const query_block *b) {
    attend_rows(a, m, b, GO_BF16);
}
#endif

void GO_NAME(attention)(go_team *team, const go_attention_args *a);

void GO_NAME(attention)(go_team *team, const go_attention_args *a) {
    if (a->dtype == GO_BF16)
        go_attention_walk(team, a, BF16_ROWS, pack_bf16, attend_bf16);
    else
        go_attention_walk(team, a, QUERY_ROWS, pack_f32, attend_f32);
}
