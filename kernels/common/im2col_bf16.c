/* im2col into the packed bf16 left operand. */
#include "im2col.h"
#include "pack_bf16_rows.h"

static void pack(const go_pack_lhs_args *few) { go_pack_bf16_rows(few, 0, few->m); }

void GO_NAME_IM2COL(GO_PACK_BF16)(go_team *team, const go_im2col_args *args);

void GO_NAME_IM2COL(GO_PACK_BF16)(go_team *team, const go_im2col_args *args) {
    size_t k = args->kh * args->kw * args->channels;
    go_pack_im2col(team, args, (k + 7) / 8 * 8 * sizeof(uint16_t), pack);
}
