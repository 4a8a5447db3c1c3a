/* int8 and int4 GEMM with SDOT: a column block is unpacked into the first cache level, once for
 * all rows of a sweep. Depths beyond what is unpacked at once are done in parts; between them
 * sums wait in memory. */
#include "dot_tile.h"
#include "qs4b_scales.h"

enum {
    DOT_DEPTH = 2048,                                          /* unpacked at once */
    DOT_ROWS = 8 * (GO_LHS_CHUNK_BYTES / (8 * DOT_DEPTH) + 1), /* of a sweep in parts */
    DOT_MAGIC = 0x4b400000, /* the bits of 1.5 * 2^23: plus a sum, the float that much larger */
};

_Static_assert((int)GO_QS4_MAX_GROUP <= (int)DOT_DEPTH, "a part holds whole blocks");
_Static_assert(128 * 8 * GO_QS4_MAX_GROUP < 1 << 22, "sums of a block convert by subtraction");

typedef enum { DOT_QS8C, DOT_QS4C, DOT_QS4B } dot_scheme;

typedef struct {
    _Alignas(64) int8_t values[2][8 * DOT_DEPTH];
    int32_t sums[DOT_ROWS * 16]; /* or the bits of floats */
} dot_unpacked;

/* The right operand; a panel of int8 is described like one of qs4c. */
GO_INLINE go_qs4_layout dot_layout(const go_gemm_args *args, const dot_scheme scheme) {
    if (scheme == DOT_QS4B) return go_qs4b_layout(args);
    if (scheme == DOT_QS4C) return go_qs4c_layout(args);
    const size_t depth = go_qa8_depth(args->k), body = GO_QS8_NR * depth;
    return (go_qs4_layout){
        .depth = depth, .group = depth, .body = body, .bytes = body + GO_QS8_NR * GO_QS8_TAIL};
}

/* sums[16 r + c] (+)= eight rows times a panel with a scale a column. */
GO_INLINE void dot_columns_8x8(const int8_t *lhs, const int8_t *values, size_t depth, int first,
                               int32_t *sums) {
    int32x4_t acc[8][2];
    GO_UNROLLED (i, 16)
        acc[i / 2][i % 2] = first ? vdupq_n_s32(0) : vld1q_s32(sums + i / 2 * 16 + i % 2 * 4);
    dot_eight_rows(acc, lhs, values, depth, 2);
    GO_UNROLLED (i, 16) vst1q_s32(sums + i / 2 * 16 + i % 2 * 4, acc[i / 2][i % 2]);
}

/* The same with blocks, times one half of a panel: sums of a block start at the bits of a float, so
 * that a subtraction converts them. */
GO_INLINE void dot_blocks_8x4(const int8_t *lhs, const int8_t *values, size_t blocks, size_t group,
                              const uint16_t *scales, int half, int first, float *results) {
    const int32_t magic[4] = {DOT_MAGIC, DOT_MAGIC, DOT_MAGIC, DOT_MAGIC}, *start = magic;
    float32x4_t acc[8];
    GO_UNROLLED (r, 8) acc[r] = first ? vdupq_n_f32(0) : vld1q_f32(results + 16 * r);
    for (size_t b = 0; b < blocks; b++, scales += 8, lhs += 8 * group, values += 8 * group) {
        int32x4_t sums[8][2];
        GO_UNROLLED (r, 8) { /* loads are cheaper than copies of a register */
            GO_OPAQUE(start);
            sums[r][0] = vld1q_s32(start);
        }
        dot_eight_rows(sums, lhs, values, group, 1);
        const float32x4_t scale = go_qs4b_four_scales(scales, half);
        const float32x4_t bias = vdupq_n_f32(12582912.0f);
        GO_UNROLLED (r, 8) {
            const float32x4_t sum = vsubq_f32(vreinterpretq_f32_s32(sums[r][0]), bias);
            acc[r] = vfmaq_f32(acc[r], sum, scale);
        }
    }
    GO_UNROLLED (r, 8) vst1q_f32(results + 16 * r, acc[r]);
}

/* From sums of up to 16 columns, results[16 r + c], to the destination. */
GO_INLINE void dot_finish(const go_gemm_args *args, const go_qs4_layout *w, const dot_scheme scheme,
                          size_t row, size_t rows, size_t col, size_t cols, int32_t *sums) {
    const go_qa8_tile t = {.rhs = (const uint8_t *)args->rhs + col / GO_QS8_NR * w->bytes,
                           .rhs_stride = w->bytes,
                           .rhs_body = w->body,
                           .rows = rows,
                           .panels = go_ceil_div(cols, GO_QS8_NR),
                           .depth = w->depth};
    if (scheme != DOT_QS4B) {
        go_qa8_finish(args, &t, row, col, cols, 0, sums, 16);
        return;
    }
    float shifts[16] = {0}, *results = (float *)sums;
    for (size_t p = 0; p < t.panels; p++)
        memcpy(shifts + 8 * p, go_qs4b_shifts(t.rhs + p * w->bytes, w), 8 * sizeof(float));
    const go_f32x16 shift = go_load(shifts);
    const float *bias = args->epilogue.bias;
    const go_f32x16 b = bias ? go_load_n(bias + col, cols) : go_zero();
    const int plain = go_epilogue_is_plain(args) && cols == 16;
    for (size_t r = 0; r < rows; r++) {
        const go_qa8_row q = go_qa8_row_tail(args->lhs, row + r, w->depth);
        go_f32x16 v = go_fma(go_splat((float)q.neg_zp), shift, go_load(results + 16 * r));
        v = go_fma(v, go_splat(q.scale), b);
        if (plain)
            go_store(go_gemm_row(args, row + r) + col,
                     go_activate(v, args->epilogue.activation, 0));
        else
            go_store(results + 16 * r, v);
    }
    if (!plain) go_epilogue_rows(args, row, rows, col, cols, results, 16);
}

/* Values from .. from + depth - 1 along k of a column block times eight rows. */
GO_INLINE void dot_tile(const go_gemm_args *args, const go_qs4_layout *w, const dot_scheme scheme,
                        const dot_unpacked *u, size_t row, size_t col, size_t cols, size_t from,
                        size_t depth, int32_t *sums) {
    const int8_t *lhs = (const int8_t *)args->lhs + row * (w->depth + 16) + 8 * from;
    for (size_t p = 0; 8 * p < cols; p++) {
        if (scheme != DOT_QS4B) {
            dot_columns_8x8(lhs, u->values[p], depth, from == 0, sums + 8 * p);
            continue;
        }
        const uint16_t *scales = go_qs4b_scales(go_qs4_panel(args, w, col + 8 * p), w);
        for (int h = 0; h < 2; h++)
            dot_blocks_8x4(lhs, u->values[p] + 16 * h, depth / w->group, w->group,
                           scales + from / w->group * 8, h, from == 0,
                           (float *)sums + 8 * p + 4 * h);
    }
}

/* Rows row .. row + rows - 1 (row a multiple of 8) of up to 16 columns from col on. */
GO_INLINE void dot_sweep(const go_gemm_args *args, const dot_scheme scheme, size_t row, size_t rows,
                         size_t col, size_t cols) {
    dot_unpacked u;
    const go_qs4_layout w = dot_layout(args, scheme);
    const size_t step = scheme == DOT_QS4B ? DOT_DEPTH / w.group * w.group : DOT_DEPTH;
    const size_t at_once = w.depth > step ? DOT_ROWS : rows, end = row + rows;
    for (size_t from = 0, depth; row < end; from = from + depth < w.depth ? from + depth : 0) {
        depth = go_min_size(w.depth - from, step);
        for (size_t p = 0; 8 * p < cols; p++) {
            const uint8_t *panel = go_qs4_panel(args, &w, col + 8 * p);
            if (scheme == DOT_QS8C)
                dot_unpack_int8(u.values[p], panel + 8 * from, depth);
            else
                dot_unpack_int4(u.values[p], panel + 4 * from, depth);
        }
        const int last = from + depth == w.depth;
        const size_t n = go_min_size(end - row, at_once);
        for (size_t r = 0; r < n; r += 8) {
            int32_t *sums = u.sums + r % DOT_ROWS * 16;
            dot_tile(args, &w, scheme, &u, row + r, col, cols, from, depth, sums);
            if (last) dot_finish(args, &w, scheme, row + r, go_min_size(n - r, 8), col, cols, sums);
        }
        if (last) row += n;
    }
}

/* sums[16 r + c] of `rows` rows (a constant) times a panel. */
GO_INLINE void dot_few_panel(const go_gemm_args *args, const go_qs4_layout *w,
                             const dot_scheme scheme, const uint8_t *panel, const int rows,
                             int32_t *sums) {
    const int8_t *lhs = (const int8_t *)args->lhs;
    int32x4_t s[4][2];
    if (scheme != DOT_QS4B) {
        (scheme == DOT_QS8C ? dot_few_rows_int8 : dot_few_rows_int4)(s, lhs, panel, w->depth, rows);
        GO_UNROLLED (i, 2 * rows) vst1q_s32(sums + i / 2 * 16 + i % 2 * 4, s[i / 2][i % 2]);
        return;
    }
    const uint16_t *scales = go_qs4b_scales(panel, w);
    float32x4_t acc[4][2];
    GO_UNROLLED (i, 2 * rows) acc[i / 2][i % 2] = vdupq_n_f32(0);
    for (size_t k = 0; k < w->depth; k += w->group, scales += 8) {
        dot_few_rows_int4(s, lhs + 8 * k, panel + 4 * k, w->group, rows);
        GO_UNROLLED (i, 2 * rows)
            acc[i / 2][i % 2] = vfmaq_f32(acc[i / 2][i % 2], vcvtq_f32_s32(s[i / 2][i % 2]),
                                          go_qs4b_four_scales(scales, i % 2));
    }
    GO_UNROLLED (i, 2 * rows) vst1q_f32((float *)sums + i / 2 * 16 + i % 2 * 4, acc[i / 2][i % 2]);
}

/* All rows, at most four, of up to 16 columns from col on. */
GO_INLINE void dot_few(const go_gemm_args *args, const dot_scheme scheme, size_t col, size_t cols) {
    const go_qs4_layout w = dot_layout(args, scheme);
    int32_t sums[GO_GEMV_ROWS * 16];
    for (size_t p = 0; 8 * p < cols; p++) {
        const uint8_t *panel = go_qs4_panel(args, &w, col + 8 * p);
        if (args->m > 2)
            dot_few_panel(args, &w, scheme, panel, 4, sums + 8 * p);
        else if (args->m > 1)
            dot_few_panel(args, &w, scheme, panel, 2, sums + 8 * p);
        else
            dot_few_panel(args, &w, scheme, panel, 1, sums + 8 * p);
    }
    dot_finish(args, &w, scheme, 0, args->m, col, cols, sums);
}

/* Defines the kernel `symbol` of a scheme, each at most once in a file. */
#define GO_GEMM_DOT(symbol, scheme)                                                           \
    static void few_##scheme(const go_gemm_args *args, size_t row, size_t rows, size_t col,   \
                             size_t cols) {                                                   \
        (void)row, (void)rows;                                                                \
        dot_few(args, scheme, col, cols);                                                     \
    }                                                                                         \
    static void sweep_##scheme(const go_gemm_args *args, size_t row, size_t rows, size_t col, \
                               size_t cols) {                                                 \
        dot_sweep(args, scheme, row, rows, col, cols);                                        \
    }                                                                                         \
    void symbol(go_team *team, const go_gemm_args *args);                                     \
    void symbol(go_team *team, const go_gemm_args *args) {                                    \
        const go_qs4_layout w = dot_layout(args, scheme);                                     \
        if (args->m <= GO_GEMV_ROWS)                                                          \
            go_gemv_drive(team, args, 16, w.bytes / GO_QS8_NR, few_##scheme);                 \
        else                                                                                  \
            go_gemm_drive_sweeps(team, args, 8, 16, w.depth + 16, sweep_##scheme);            \
    }
