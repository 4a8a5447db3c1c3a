/* int8 GEMM with SMMLA on up to 8 rows x 8 columns: sums become results in their registers,
 * still as 2 x 2. A panel of columns is swept over many rows, so that what belongs to the
 * columns is prepared once. */
#include <arm_neon.h>

#include "gemm_qa8.h"

#define VALUE int8_t
#define VALUES int8x16_t
#define SUMS int32x4_t
#define LOAD vld1q_s8
#define MMLA vmmlaq_s32
#include "mmla_tile.h"

/* A panel of columns: per pair of columns its values twice. */
typedef struct {
    int32x4_t start[4], sums[4];
    float32x4_t scales[4], bias[4];
    int magic;
} qa8_columns;

/* A sum below 2^22 in magnitude, added to the bits of 1.5 * 2^23, gives the bits of the
 * float 1.5 * 2^23 + sum: converting it takes a subtraction, not the two slots of SCVTF. */
enum { MAGIC_BITS = 0x4b400000, MAGIC_REACH = ((1 << 22) - 1) / 255 };

/* From the tail of a panel. */
GO_INLINE void qa8_prepare(qa8_columns *c, const int32_t *tail, const float *bias, size_t cols) {
    float b[8] = {0};
    if (bias) memcpy(b, bias, go_min_size(cols, 8) * sizeof(float));
    c->magic = vmaxvq_s32(vmaxq_s32(vld1q_s32(tail + 16), vld1q_s32(tail + 20))) <= MAGIC_REACH;
    for (int i = 0; i < 4; i++) {
        c->start[i] = vdupq_n_s32(c->magic ? MAGIC_BITS : 0);
        c->sums[i] = vreinterpretq_s32_f32(twice((const float *)tail + 2 * i));
        c->scales[i] = twice((const float *)tail + 8 + 2 * i);
        c->bias[i] = twice(b + 2 * i);
    }
}

/* Sums begin with what zero points of rows and sums of columns give. */
GO_INLINE void qa8_start(int32x4_t acc[4][4], const int32_t *neg_zp, const qa8_columns *c,
                         const int pairs, const int magic) {
    /* Loads are cheaper than copies of a register, hence forget that it was loaded. */
    GO_UNROLLED (r, pairs) {
        int32x4_t z = vld1q_s32(neg_zp + 4 * r);
        GO_OPAQUE(c);
        GO_UNROLLED (i, 4)
            acc[r][i] = magic ? vmlaq_s32(c->start[i], z, c->sums[i]) : vmulq_s32(z, c->sums[i]);
    }
}

/* dst[r * stride + c] = results of `rows` x 8 (rows a constant: 1, 2, 4 or 8), up to and
 * including none or relu. */
GO_INLINE void qa8_finish(int32x4_t acc[4][4], const float *scale, const qa8_columns *c,
                          const int rows, const int magic, const int with_relu, float *dst,
                          ptrdiff_t stride) {
    GO_UNROLLED (r, mmla_pairs(rows)) {
        float32x4_t s = vld1q_f32(scale + 4 * r), v[4];
        GO_OPAQUE(c);
        GO_UNROLLED (i, 4) {
            float32x4_t sum = vcvtq_f32_s32(acc[r][i]);
            if (magic) sum = vsubq_f32(vreinterpretq_f32_s32(acc[r][i]), vdupq_n_f32(12582912.0f));
            v[i] = vfmaq_f32(c->bias[i], sum, vmulq_f32(s, c->scales[i]));
            if (with_relu) v[i] = relu(v[i]);
        }
        store_pair(dst + 2 * r * stride, stride, v, rows > 1);
    }
}

GO_INLINE void qa8_8x8(const int8_t *lhs, const int8_t *rhs, size_t depth, const qa8_columns *c,
                       const int rows, const int magic, const int with_relu, float *dst,
                       ptrdiff_t stride) {
    const int pairs = mmla_pairs(rows);
    const int32_t *neg_zp = (const int32_t *)(lhs + 8 * depth);
    int32x4_t acc[4][4];
    qa8_start(acc, neg_zp, c, pairs, magic);
    mmla_8x8(acc, lhs, rhs, depth / 8, pairs);
    qa8_finish(acc, (const float *)(neg_zp + 16), c, rows, magic, with_relu, dst, stride);
}

/* The first `rows` rows (1, 2, 4 or 8) of a panel times the columns of one or two. */
GO_INLINE void qa8_panels(const go_qa8_tile *t, const int8_t *lhs, const qa8_columns columns[2],
                          const int rows, const int with_relu, float *dst, ptrdiff_t stride) {
    for (size_t p = 0; p < t->panels; p++) {
        const int8_t *rhs = (const int8_t *)t->rhs + p * t->rhs_stride;
#define TILE(magic, relu) \
    qa8_8x8(lhs, rhs, t->depth, &columns[p], rows, magic, relu, dst + 8 * p, stride)
        if (columns[p].magic)
            with_relu ? TILE(1, 1) : TILE(1, 0);
        else
            with_relu ? TILE(0, 1) : TILE(0, 0);
#undef TILE
    }
}

/* Rows row .. row + rows - 1 (row a multiple of 8) of up to 16 columns from col on. */
GO_INLINE void qa8_sweep(const go_gemm_args *args, size_t row, size_t rows, size_t col,
                         size_t cols) {
    go_qa8_tile t = go_qa8_tile_at(args, row, rows, col, cols);
    const go_epilogue *e = &args->epilogue;
    const int plain = go_epilogue_is_plain(args) && cols == 16;
    qa8_columns columns[2];
    for (size_t p = 0; p < t.panels; p++)
        qa8_prepare(&columns[p], (const int32_t *)(t.rhs + p * t.rhs_stride + 8 * t.depth),
                    e->bias ? e->bias + col + 8 * p : NULL, cols - 8 * p);
    for (size_t r = 0; r < rows; r += 8) {
        float sums[8 * 16];
        const int8_t *lhs = t.lhs + r * (t.depth + 16);
        const size_t left = go_min_size(rows - r, 8);
        const int direct = plain && (left <= 2 || left == 4 || left == 8);
        const int with_relu = direct && e->activation == GO_ACT_RELU;
        float *dst = direct ? go_gemm_row(args, row + r) + col : sums;
        const ptrdiff_t stride = direct ? args->dst_stride : 16;
        if (left > 4)
            qa8_panels(&t, lhs, columns, 8, with_relu, dst, stride);
        else if (left > 2)
            qa8_panels(&t, lhs, columns, 4, with_relu, dst, stride);
        else if (left > 1)
            qa8_panels(&t, lhs, columns, 2, with_relu, dst, stride);
        else
            qa8_panels(&t, lhs, columns, 1, with_relu, dst, stride);
        if (!direct) go_epilogue_rows(args, row + r, left, col, cols, sums, 16);
    }
}
