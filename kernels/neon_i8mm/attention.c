/* go_attention with bf16 by BFMMLA. */
#include "attention_drive.h"
#include "attention_few_mmla.h"

void GO_NAME(attention)(go_team *team, const go_attention_args *a);

void GO_NAME(attention)(go_team *team, const go_attention_args *a) {
    const attention_way bf16 = {BF16_ROWS, BF16_QUANTUM, pack_bf16, attend_bf16};
    const few_way few = {WEIGH_BF16_ROWS, score_few_bf16, weigh_few_bf16, sum_few_bf16};
    go_attention_drive(team, a, &bf16, &few);
}
