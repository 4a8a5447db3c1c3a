/* int4 GEMM with SMMLA: what a panel of columns holds becomes int8 in the first cache level,
 * once for all rows of a sweep, and is multiplied as such. Depths beyond what is unpacked at
 * once are done in parts; between them sums wait in memory. */
#include "gemm_qs4.h"
#include "qa8_sweep.h"
#include "qs4b_scales.h"
#include "qs4b_tile.h"

enum {
    QS4_DEPTH = 2048,                                          /* unpacked at once */
    QS4_ROWS = 8 * (GO_LHS_CHUNK_BYTES / (8 * QS4_DEPTH) + 1), /* of a sweep in parts */
};

_Static_assert((int)GO_QS4_MAX_GROUP <= (int)QS4_DEPTH, "a part holds whole blocks");

/* Two panels of columns. */
typedef struct {
    _Alignas(64) int8_t values[2][8 * QS4_DEPTH]; /* [k/8][8][8] */
    float scales[2][QS4_DEPTH / 32 * 16];         /* [block][pair of columns, twice] */
    int32_t sums[QS4_ROWS * 16];                  /* or the bits of floats */
    qa8_columns channels[2];
    qs4b_columns blocks[2];
} qs4_unpacked;

/* From nibble pairs of `depth` values of eight columns. */
GO_INLINE void qs4_unpack_values(int8_t *dst, const uint8_t *src, size_t depth) {
    for (size_t k = 0; k < depth; k += 16, src += 64, dst += 128) {
        GO_UNROLLED (i, 4) {
            const int8x16_t pairs = vld1q_s8((const int8_t *)src + 16 * i);
            const int8x16_t low = vandq_s8(pairs, vdupq_n_s8(15));
            vst1q_s8(dst + 16 * i, vsubq_s8(low, vdupq_n_s8(8)));
            vst1q_s8(dst + 64 + 16 * i, vshrq_n_s8(pairs, 4));
        }
    }
}

GO_INLINE void qs4_unpack_scales(float *dst, const uint16_t *src, size_t blocks) {
    for (size_t b = 0; b < blocks; b++, src += 8, dst += 16) {
        GO_UNROLLED (h, 2) {
            const uint64x2_t four = vreinterpretq_u64_f32(go_qs4b_four_scales(src, h));
            vst1q_f32(dst + 8 * h, vreinterpretq_f32_u64(vzip1q_u64(four, four)));
            vst1q_f32(dst + 8 * h + 4, vreinterpretq_f32_u64(vzip2q_u64(four, four)));
        }
    }
}

/* A part of the depth of a sweep. */
typedef struct {
    size_t from, depth;
    int first, last;
} qs4_part;

/* Eight rows times a panel; sums wait in `sums` between parts, results go to dst. */
GO_INLINE void qs4c_8x8(const go_qs4_layout *w, const qs4_part *part, const int8_t *lhs,
                        const int8_t *values, const qa8_columns *c, int32_t *sums, const int magic,
                        const int with_relu, float *dst, ptrdiff_t stride) {
    const int32_t *tail = (const int32_t *)(lhs + 8 * w->depth);
    int32x4_t acc[4][4];
    if (part->first)
        qa8_start(acc, tail, c, 4, magic);
    else
        GO_UNROLLED (i, 16) acc[i / 4][i % 4] = vld1q_s32(sums + 4 * i);
    mmla_8x8(acc, lhs + 8 * part->from, values, part->depth / 8, 4);
    if (part->last)
        qa8_finish(acc, (const float *)(tail + 16), c, 8, magic, with_relu, dst, stride);
    else
        GO_UNROLLED (i, 16) vst1q_s32(sums + 4 * i, acc[i / 4][i % 4]);
}

/* The same with blocks, times one half of a panel. */
GO_INLINE void qs4b_half(const go_qs4_layout *w, const qs4_part *part, const int8_t *lhs,
                         const int8_t *values, const float *scales, const qs4b_columns *c, int half,
                         float *sums, const int with_relu, float *dst, ptrdiff_t stride) {
    float32x4_t acc[4][2];
    GO_UNROLLED (i, 8) acc[i / 2][i % 2] = part->first ? vdupq_n_f32(0) : vld1q_f32(sums + 4 * i);
    qs4b_8x4(acc, lhs + 8 * part->from, values, part->depth / w->group, w->group, scales);
    if (part->last)
        qs4b_finish(acc, (const int32_t *)(lhs + 8 * w->depth), c, half, with_relu, dst, stride);
    else
        GO_UNROLLED (i, 8) vst1q_f32(sums + 4 * i, acc[i / 2][i % 2]);
}

/* Eight rows times one or two panels. */
GO_INLINE void qs4_tile(qs4_unpacked *u, const go_qs4_layout *w, const int blocks,
                        const qs4_part *part, const int8_t *lhs, size_t cols, int32_t *sums,
                        const int with_relu, float *dst, ptrdiff_t stride) {
    for (size_t h = 0; blocks && 4 * h < cols; h++)
        qs4b_half(w, part, lhs, u->values[h / 2] + h % 2 * 32, u->scales[h / 2] + h % 2 * 8,
                  &u->blocks[h / 2], h % 2, (float *)sums + h * 32, with_relu, dst + 4 * h, stride);
    for (size_t p = 0; !blocks && 8 * p < cols; p++) {
        const qa8_columns *c = &u->channels[p];
        if (c->magic)
            qs4c_8x8(w, part, lhs, u->values[p], c, sums + 64 * p, 1, with_relu, dst + 8 * p,
                     stride);
        else
            qs4c_8x8(w, part, lhs, u->values[p], c, sums + 64 * p, 0, with_relu, dst + 8 * p,
                     stride);
    }
}

/* Takes from one or two panels what is needed for a part of the depth. */
GO_INLINE void qs4_unpack(qs4_unpacked *u, const go_gemm_args *args, const go_qs4_layout *w,
                          const int blocks, const qs4_part *part, size_t col, size_t cols) {
    for (size_t p = 0; 8 * p < cols; p++) {
        const uint8_t *panel = go_qs4_panel(args, w, col + 8 * p);
        const float *bias = args->epilogue.bias ? args->epilogue.bias + col + 8 * p : NULL;
        qs4_unpack_values(u->values[p], panel + 4 * part->from, part->depth);
        if (!blocks) {
            qa8_prepare(&u->channels[p], (const int32_t *)(panel + w->body), bias, cols - 8 * p);
            continue;
        }
        qs4b_prepare(&u->blocks[p], go_qs4b_shifts(panel, w), bias, cols - 8 * p);
        qs4_unpack_scales(u->scales[p], go_qs4b_scales(panel, w) + part->from / w->group * 8,
                          part->depth / w->group);
    }
}

/* Rows (that fit u->sums if there are several parts) of up to 16 columns from col on. */
GO_INLINE void qs4_rows(qs4_unpacked *u, const go_gemm_args *args, const go_qs4_layout *w,
                        const int blocks, const qs4_part *part, size_t row, size_t rows, size_t col,
                        size_t cols) {
    const int plain = go_epilogue_is_plain(args) && cols == 16;
    for (size_t r = 0; r < rows; r += 8) {
        float results[8 * 16];
        const int8_t *lhs = (const int8_t *)args->lhs + (row + r) * (w->depth + 16);
        const int direct = plain && rows - r >= 8;
        float *dst = direct ? go_gemm_row(args, row + r) + col : results;
        const ptrdiff_t stride = direct ? args->dst_stride : 16;
        int32_t *sums = u->sums + r % QS4_ROWS * 16;
        if (direct && args->epilogue.activation == GO_ACT_RELU)
            qs4_tile(u, w, blocks, part, lhs, cols, sums, 1, dst, stride);
        else
            qs4_tile(u, w, blocks, part, lhs, cols, sums, 0, dst, stride);
        if (part->last && !direct)
            go_epilogue_rows(args, row + r, go_min_size(rows - r, 8), col, cols, results, 16);
    }
}

/* Rows row .. row + rows - 1 (row a multiple of 8) of up to 16 columns from col on. */
GO_INLINE void qs4_sweep(const go_gemm_args *args, const go_qs4_layout *w, const int blocks,
                         size_t row, size_t rows, size_t col, size_t cols) {
    qs4_unpacked u;
    const size_t step = blocks ? QS4_DEPTH / w->group * w->group : QS4_DEPTH;
    const size_t at_once = w->depth > step ? QS4_ROWS : rows;
    for (size_t r = 0; r < rows; r += at_once) {
        qs4_part part = {.from = 0};
        do {
            part.depth = go_min_size(w->depth - part.from, step);
            part.first = part.from == 0;
            part.last = part.from + part.depth == w->depth;
            qs4_unpack(&u, args, w, blocks, &part, col, cols);
            qs4_rows(&u, args, w, blocks, &part, row + r, go_min_size(rows - r, at_once), col,
                     cols);
            part.from += part.depth;
        } while (!part.last);
    }
}

GO_INLINE void qs4c_sweep(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                          size_t cols) {
    const go_qs4_layout w = go_qs4c_layout(args);
    qs4_sweep(args, &w, 0, row, rows, col, cols);
}

GO_INLINE void qs4b_sweep(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                          size_t cols) {
    const go_qs4_layout w = go_qs4b_layout(args);
    qs4_sweep(args, &w, 1, row, rows, col, cols);
}
