/* Patches into the packed int8 left operand, a scale and zero point for each position. */
#include "patches.h"
#include "quantize_rows.h"

static void quantize(const go_pack_lhs_args *few) { go_quantize_rows(few, 0, few->m); }

void GO_NAME_PATCHES(GO_PACK_QA8R)(go_team *team, const go_patches_args *args);

void GO_NAME_PATCHES(GO_PACK_QA8R)(go_team *team, const go_patches_args *args) {
    size_t k = args->kh * args->kw * args->channels;
    go_pack_patches(team, args, go_qa8_panel_bytes(k) / GO_QA8_MR, quantize);
}
