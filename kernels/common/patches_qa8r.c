/* Patches into the packed int8 left operand, a scale and zero point for each position. */
#include "patches.h"
#include "quantize_rows.h"

#if defined(__aarch64__)
#define GO_SYMBOL GO_NAME_PATCHES(pack_qa8r_8x8)
#else
#define GO_SYMBOL GO_NAME_PATCHES(pack_qa8r_1x4)
#endif

static void quantize(const go_pack_lhs_args *few) { go_quantize_rows(few, 0, few->m); }

void GO_SYMBOL(go_team *team, const go_patches_args *args);

void GO_SYMBOL(go_team *team, const go_patches_args *args) {
    size_t k = args->kh * args->kw * args->channels;
    go_pack_patches(team, args, go_qa8_panel_bytes(k) / GO_QA8_MR, quantize);
}
