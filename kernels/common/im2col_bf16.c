/* im2col into the packed bf16 left operand. */
#include "im2col.h"
#include "im2col_lines.h"
#include "pack_bf16_rows.h"

static void pack(const go_pack_lhs_args *few) { go_pack_bf16_rows(few, 0, few->m); }

GO_INLINE void pack_lines(const go_im2col_args *a, const go_line_sizes *s, go_line_memory memory,
                          const go_line_task *t, go_dtype type) {
    for (size_t h = t->begin; h < t->end; h++) {
        go_narrow_line(a, s, t->b, h, type, NULL, memory.pixels);
        size_t index = (t->b * a->out_h + h) * a->out_w;
        for (size_t w = 0; w < a->out_w; w++, index++) {
            char *panel = (char *)a->dst + index / GO_BF16_MR * GO_BF16_MR * s->depth;
            go_place_window(a, s, memory.pixels + w * a->stride_w * s->pixel, memory.window,
                            panel + index % GO_BF16_MR * GO_GROUP_BYTES);
        }
    }
}

void GO_NAME_IM2COL(GO_PACK_BF16)(go_team *team, const go_im2col_args *args);

void GO_NAME_IM2COL(GO_PACK_BF16)(go_team *team, const go_im2col_args *args) {
    const size_t k = args->kh * args->kw * args->channels, depth = (k + 7) / 8 * 8;
    if (!go_im2col_shares(args)) {
        go_pack_im2col(team, args, depth * sizeof(uint16_t), pack);
        return;
    }
    const go_line_sizes s = go_line_sizes_of(args, sizeof(uint16_t), depth * sizeof(uint16_t));
    const go_line_memory memory = go_line_memory_of(team, args, &s);
    for (go_line_task t; go_next_lines(team, args, &t);) {
        if (args->src_dtype == GO_BF16)
            pack_lines(args, &s, memory, &t, GO_BF16);
        else
            pack_lines(args, &s, memory, &t, GO_F32);
        if (t.is_last) go_bf16_finish_rows(args->dst, args->batch * args->out_h * args->out_w, k);
    }
}
