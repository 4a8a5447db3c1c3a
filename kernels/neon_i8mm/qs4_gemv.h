/* int4 weights times up to four rows. */
#include "qs4_pairs.h"

/* Whether the call is one for qs4_gemv. */
GO_INLINE int qs4_is_gemv(const go_gemm_args *args, const go_qs4_layout *w) {
    return args->m >= 1 && args->m <= QS4_PAIR_ROWS && w->depth <= QS4_ROW_DEPTH;
}

/* Whether sums of blocks become floats by way of magic numbers. */
GO_INLINE int qs4_by_magic(const go_qs4_layout *w, int blocks) {
    return blocks && w->group <= QS4_EXACT_GROUP;
}

/* y[c] = results of one or two panels before the activation. */
GO_INLINE void qs4_row_tile(const qs4_row *row, const go_qs4_layout *w, const int blocks,
                            const uint8_t *const panel[2], const float *bias, float *y,
                            const int panels) {
    if (!blocks)
        qs4c_row_panels(row, w, panel, bias, y, panels);
    else if (qs4_by_magic(w, blocks))
        qs4b_row_panels(row, w, panel, bias, y, panels, 1);
    else
        qs4b_row_panels(row, w, panel, bias, y, panels, 0);
}

/* y[16 r + c] = the same for rows of pairs. */
GO_INLINE void qs4_pairs_tile(const qs4_pairs *rows, const go_gemm_args *args,
                              const go_qs4_layout *w, const int blocks,
                              const uint8_t *const panel[2], const float *bias, float *y,
                              size_t panels, const int pairs) {
    const int8_t *lhs = (const int8_t *)args->lhs;
    for (size_t p = 0; p < panels; p++)
        (blocks ? qs4b_pairs_panel : qs4c_pairs_panel)(rows, lhs, w, panel[p], bias + 8 * p,
                                                       y + 8 * p, pairs);
}

/* What is prepared of one row, or of two to four. */
typedef union {
    qs4_row row;
    qs4_pairs pairs;
} qs4_few_rows;

/* All rows of up to 16 columns from col on. */
GO_INLINE void qs4_gemv_tile(const qs4_few_rows *lhs, const go_gemm_args *args,
                             const go_qs4_layout *w, const int blocks, size_t col, size_t cols) {
    const size_t panels = go_ceil_div(cols, 8);
    const uint8_t *first = go_qs4_panel(args, w, col);
    const uint8_t *const panel[2] = {first, first + w->bytes};
    float y[QS4_PAIR_ROWS * 16], bias[16] = {0};
    if (args->epilogue.bias) memcpy(bias, args->epilogue.bias + col, cols * sizeof(float));
    if (args->m > 2)
        qs4_pairs_tile(&lhs->pairs, args, w, blocks, panel, bias, y, panels, 2);
    else if (args->m > 1)
        qs4_pairs_tile(&lhs->pairs, args, w, blocks, panel, bias, y, panels, 1);
    else if (panels > 1)
        qs4_row_tile(&lhs->row, w, blocks, panel, bias, y, 2);
    else
        qs4_row_tile(&lhs->row, w, blocks, panel, bias, y, 1);
    go_epilogue_rows(args, 0, args->m, col, cols, y, 16);
}

/* Each thread prepares the rows for itself, before the first of its tasks. */
GO_INLINE void qs4_gemv(go_team *team, const go_gemm_args *args, const go_qs4_layout *w,
                        const int blocks) {
    qs4_few_rows lhs;
    int prepared = 0;
    const size_t step = go_gemv_columns(team, args, 16, w->bytes / GO_QS8_NR);
    const size_t tasks = go_ceil_div(args->n, step);
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        if (!prepared && args->m == 1) qs4_row_prepare(&lhs.row, args, w, qs4_by_magic(w, blocks));
        if (!prepared && args->m > 1) qs4_pairs_prepare(&lhs.pairs, args, w, blocks);
        prepared = 1;
        const size_t end = go_min_size((task + 1) * step, args->n);
        for (size_t col = task * step; col < end; col += 16)
            qs4_gemv_tile(&lhs, args, w, blocks, col, go_min_size(end - col, 16));
    }
    go_quantize_shared(team, args);
}
