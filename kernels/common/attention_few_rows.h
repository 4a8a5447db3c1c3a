/* Few queries with the scores of each as a row: the sums of attention_rows.h. */
#ifndef GO_ATTENTION_FEW_ROWS_H
#define GO_ATTENTION_FEW_ROWS_H

#include "attention_few.h"
#include "attention_rows.h"

/* Packs up to 32 keys, always at the same place, which stays in the cache. */
GO_INLINE void score_few(const go_attention_args *a, const few_queries *f, size_t begin, size_t end,
                         go_dtype type) {
    const size_t step = type == GO_F32 ? GO_TILE_COLS : GO_PAIRS_COLS;
    const size_t panel = a->dim * GO_LANES * (type == GO_F32 ? 4 : 2);
    char *panels = f->panels + begin / GO_LANES * panel;
    end = go_min_size(end, f->keys);
    gather_few(a, f, f->q);
    for (size_t key = begin; key < end; key += step) {
        const size_t cols = go_min_size(step, round16(end - key));
        for (size_t c = 0; c < cols; c += GO_LANES)
            pack_k_panel(a, f->at.k, key + c, end, (uint32_t *)(panels + c / GO_LANES * panel),
                         type);
        if (type == GO_F32) {
            const go_f32_operands o = {.a = f->q,
                                       .a_stride = (ptrdiff_t)a->dim,
                                       .b = (const float *)panels,
                                       .ldb = GO_LANES,
                                       .b_next = (ptrdiff_t)(GO_LANES * a->dim),
                                       .k = a->dim};
            go_tile_f32(&o, f->rows, cols, f->scores + key, f->tk);
        } else {
            const go_pairs_operands o = {.a = f->q,
                                         .a_stride = a->dim,
                                         .b = (const uint16_t *)panels,
                                         .b_next = GO_LANES * a->dim,
                                         .depth = a->dim};
            go_pairs_rows(&o, f->rows, cols, f->scores + key, f->tk);
        }
    }
}

GO_INLINE void weigh_few(const go_attention_args *a, const few_queries *f, size_t begin, size_t end,
                         go_dtype type) {
    for (size_t r = begin; r < end; r++) {
        float *row = f->scores + r * f->tk;
        const size_t visible = visible_keys(a, f->batch, r % a->tq);
        const float top = mask_row(a, row, f->at.k_scale, few_mask(a, f, r), visible, f->keys);
        f->factors[r] =
            weigh_row(a, row, top, f->keys, f->at.v_scale, f->weights + r * f->tk, type);
    }
}

/* tile = weights times up to 32 columns of v as they lie in memory. */
GO_INLINE void sum_f32_columns(const go_attention_args *a, const few_queries *f, size_t col,
                               size_t cols, float *tile, size_t ld) {
    const go_f32_operands o = {.a = f->scores,
                               .a_stride = (ptrdiff_t)f->tk,
                               .b = (const float *)f->at.v + col,
                               .ldb = a->v_stride[1],
                               .b_next = GO_LANES,
                               .k = f->keys};
    go_tile_f32(&o, f->rows, cols, tile, ld);
}

/* The same in pairs of keys, which are put side by side some keys at a time. */
GO_INLINE void sum_pairs_columns(const go_attention_args *a, const few_queries *f, size_t col,
                                 size_t cols, float *tile, size_t ld, go_dtype type) {
    enum { KEYS = 64 };
    uint16_t panels[2][KEYS * GO_LANES];
    go_pairs_operands o = {.a_stride = f->tk, .b = panels[0], .b_next = KEYS * GO_LANES};
    memset(tile, 0, f->rows * ld * sizeof *tile);
    o.accumulate = 1;
    for (size_t key = 0; key < f->keys; key += KEYS) {
        const size_t count = go_min_size(KEYS, f->keys - key);
        const ptrdiff_t at = (ptrdiff_t)key * a->v_stride[1] + (ptrdiff_t)col;
        for (size_t c = 0; c < cols; c += GO_LANES)
            pack_v_pairs(a, go_at(f->at.v, at + (ptrdiff_t)c, type), GO_LANES, 0, count,
                         panels[c / GO_LANES], type);
        o.a = f->weights + key, o.depth = (count + 1) / 2 * 2;
        go_pairs_rows(&o, f->rows, cols, tile, ld);
    }
}

GO_INLINE void sum_few(const go_attention_args *a, const few_queries *f, size_t begin, size_t end,
                       go_dtype type) {
    enum { COLS = 32 };
    float tile[FEW_ROWS * COLS];
    const size_t step = type == GO_F32 ? GO_TILE_COLS : GO_PAIRS_COLS;
    for (size_t c = begin; c < end; c += step) {
        const size_t cols = go_min_size(step, end - c);
        if (type == GO_F32)
            sum_f32_columns(a, f, c, cols, tile, COLS);
        else
            sum_pairs_columns(a, f, c, cols, tile, COLS, type);
        for (size_t r = 0; r < f->rows; r++)
            for (size_t i = 0; i < cols; i += GO_LANES)
                store_few(a, f, r, c + i, go_load(tile + r * COLS + i) * go_splat(f->factors[r]));
    }
}

#endif
