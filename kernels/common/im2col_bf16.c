/* im2col into the packed bf16 left operand. */
#include "im2col.h"
#include "im2col_lines.h"
#include "pack_bf16_rows.h"

static void pack(const go_pack_lhs_args *few) { go_pack_bf16_rows(few, 0, few->m); }

/* Lines begin .. end - 1 of item b. */
GO_INLINE void pack_lines(const go_im2col_args *a, const go_line_sizes *s, go_line_memory memory,
                          size_t b, size_t begin, size_t end, go_dtype type) {
    for (size_t h = begin; h < end; h++) {
        go_narrow_line(a, s, b, h, type, NULL, memory.pixels);
        size_t index = (b * a->out_h + h) * a->out_w;
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
    const size_t lines = go_task_lines(team, args), some = go_ceil_div(args->out_h, lines);
    const size_t rows = args->batch * args->out_h * args->out_w;
    for (size_t task; (task = go_next(team, args->batch * some)) < args->batch * some;) {
        const size_t b = task / some, begin = task % some * lines;
        const size_t end = go_min_size(begin + lines, args->out_h);
        if (args->src_dtype == GO_BF16)
            pack_lines(args, &s, memory, b, begin, end, GO_BF16);
        else
            pack_lines(args, &s, memory, b, begin, end, GO_F32);
        if (task + 1 == args->batch * some) go_bf16_finish_rows(args->dst, rows, k);
    }
}
