/* im2col into the packed int8 left operand: a scale and zero point for each position, or for
 * each line of positions whose windows overlap. */
#include "im2col.h"
#include "im2col_lines.h"
#include "quantize_rows.h"

static void quantize(const go_pack_lhs_args *few) { go_quantize_rows(few, 0, few->m); }

/* Rows of the image are read once for the ranges of all lines. */
GO_INLINE void quantize_lines(const go_im2col_args *a, const go_line_sizes *s,
                              go_line_memory memory, const go_line_task *t, go_dtype type) {
    const ptrdiff_t top = go_input_at(t->begin, a->stride_h, 0, a->dilation_h, a->pad_top);
    const size_t rows = (t->end - t->begin - 1) * a->stride_h + (a->kh - 1) * a->dilation_h + 1;
    for (size_t r = 0; r < rows; r++) {
        const go_line_row row = go_line_row_of(a, t->b, top + (ptrdiff_t)r);
        memory.ranges[r] = go_line_limits(a, &row, type);
    }
    for (size_t h = t->begin; h < t->end; h++) {
        go_limits limits = {0};
        for (size_t i = 0; i < a->kh; i++)
            limits =
                go_wider(limits, memory.ranges[(h - t->begin) * a->stride_h + i * a->dilation_h]);
        const go_quantizer z = go_quantizer_of_limits(limits);
        if (z.valid)
            go_narrow_line(a, s, t->b, h, type, &z, memory.pixels);
        else
            memset(memory.pixels, 0, a->kh * s->line);
        size_t index = (t->b * a->out_h + h) * a->out_w;
        for (size_t w = 0; w < a->out_w; w++, index++) {
            int8_t *panel = (int8_t *)a->dst + index / GO_QA8_MR * GO_QA8_MR * (s->depth + 16);
            const size_t r = index % GO_QA8_MR;
            go_place_window(a, s, memory.pixels + w * a->stride_w * s->pixel, memory.window,
                            (char *)panel + r * GO_GROUP_BYTES);
            go_i32x16 sum = {0};
            for (size_t j = 0; GO_QA8_MR == 1 && j < s->depth; j += GO_LANES)
                sum += __builtin_convertvector(*(const go_i8x16_mem *)(panel + j), go_i32x16);
            go_qa8_store_tail(panel, r, s->depth, -z.zp, go_sum_i32(sum), z.scale);
        }
    }
}

void GO_NAME_IM2COL(GO_PACK_QA8R)(go_team *team, const go_im2col_args *args);

void GO_NAME_IM2COL(GO_PACK_QA8R)(go_team *team, const go_im2col_args *args) {
    const size_t k = args->kh * args->kw * args->channels;
    if (!go_im2col_shares(args)) {
        go_pack_im2col(team, args, go_qa8_panel_bytes(k) / GO_QA8_MR, quantize);
        return;
    }
    const go_line_sizes s = go_line_sizes_of(args, 1, go_qa8_depth(k));
    const go_line_memory memory = go_line_memory_of(team, args, &s);
    for (go_line_task t; go_next_lines(team, args, &t);) {
        if (t.is_last) {
            const size_t rows = args->batch * args->out_h * args->out_w;
            const size_t first = (t.b * args->out_h + t.begin) * args->out_w;
            go_qa8_begin_rows(args->dst, first, rows, rows, k);
        }
        if (args->src_dtype == GO_BF16)
            quantize_lines(args, &s, memory, &t, GO_BF16);
        else
            quantize_lines(args, &s, memory, &t, GO_F32);
    }
}
