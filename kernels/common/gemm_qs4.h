/* int4 GEMM, qa8r x qs4c (a scale per column) and qa8r x qs4b (a scale per block of values
 * along k and column): what all ISA levels share.
 *
 *   qs4c  isum = sum_k qa * qw + (-zp) * column_sum               exact int32
 *         y    = fma((float)isum, row_scale * column_scale, bias or 0)
 *   qs4b  acc  = fma((float)sum_{k in b} qa * qw, scale_b, acc)   from 0, in order of b
 *         y    = fma(fma((float)-zp, shift, acc), row_scale, bias or 0)
 *
 * then the epilogue. Layouts: kernels/packing.py.
 */
#ifndef GO_GEMM_QS4_H
#define GO_GEMM_QS4_H

#include "gemm_qa8.h"

enum { GO_QS4_MAX_GROUP = 1024 }; /* values of a block */

/* The packed right operand. */
typedef struct {
    size_t depth; /* k with its padding */
    size_t group; /* values of a block, or the depth if a column has one scale */
    size_t body;  /* bytes of nibbles of a panel; scales or sums follow (biased: in between) */
    size_t bytes; /* of a panel */
    size_t block; /* bytes from the nibbles of a block to those of the next */
    size_t scales, scale_step; /* bytes to the scales of the first block, and to the next */
} go_qs4_layout;

GO_INLINE go_qs4_layout go_qs4c_layout(const go_gemm_args *args) {
    const size_t depth = go_qa8_depth(args->k), body = GO_QS8_NR * depth / 2;
    return (go_qs4_layout){
        .depth = depth, .group = depth, .body = body, .bytes = body + GO_QS8_NR * GO_QS8_TAIL};
}

GO_INLINE go_qs4_layout go_qs4b_layout(const go_gemm_args *args) {
    const size_t body = GO_QS8_NR * args->k / 2, blocks = args->k / args->group;
    const size_t used = body + GO_QS8_NR * (2 * blocks + 4);
    const size_t block = GO_QS8_NR * args->group / 2, step = GO_QS8_NR * 2;
    go_qs4_layout w = {args->k, args->group, body, (used + 63) / 64 * 64, block, body, step};
    if (GO_BIASED) {
        w.scales = block;
        w.block = w.scale_step = block + step;
    }
    return w;
}

/* The panel that begins with column `col`. */
GO_INLINE const uint8_t *go_qs4_panel(const go_gemm_args *args, const go_qs4_layout *w,
                                      size_t col) {
    return (const uint8_t *)args->rhs + col / GO_QS8_NR * w->bytes;
}

/* bf16 scales of the first block of a panel of qs4b, and the shifts behind the last. */
GO_INLINE const uint16_t *go_qs4b_scales(const uint8_t *panel, const go_qs4_layout *w) {
    return (const uint16_t *)(panel + w->scales);
}
GO_INLINE const float *go_qs4b_shifts(const uint8_t *panel, const go_qs4_layout *w) {
    return (const float *)(panel + w->body + w->depth / w->group * GO_QS8_NR * 2);
}

/* Where among the scales of a block that of a column lies: Layout.scale_places. */
GO_INLINE size_t go_qs4b_scale_index(size_t column) {
    return GO_BIASED ? column : column % 4 * 2 + column / 4;
}

#endif
