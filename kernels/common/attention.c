/* go_attention with bf16 in pairs: the sums of attention_rows.h. */
#include "attention_drive.h"

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
void GO_NAME(attention)(go_team *team, const go_attention_args *a);

void GO_NAME(attention)(go_team *team, const go_attention_args *a) {
    const attention_way bf16 = {QUERY_ROWS, PAIRS_QUANTUM, pack_bf16, attend_bf16};
    const few_way few = {1, score_few_bf16, weigh_few_bf16, sum_few_bf16};
    go_attention_drive(team, a, &bf16, &few);
}
