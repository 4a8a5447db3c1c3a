/* im2col into the packed int8 left operand, a scale and zero point for each position. */
#include "im2col.h"
#include "quantize_rows.h"

static void quantize(const go_pack_lhs_args *few) { go_quantize_rows(few, 0, few->m); }

void GO_NAME_IM2COL(GO_PACK_QA8R)(go_team *team, const go_im2col_args *args);

void GO_NAME_IM2COL(GO_PACK_QA8R)(go_team *team, const go_im2col_args *args) {
    size_t k = args->kh * args->kw * args->channels;
    go_pack_im2col(team, args, go_qa8_panel_bytes(k) / GO_QA8_MR, quantize);
}
