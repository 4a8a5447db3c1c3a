/* int4 in blocks with SMMLA on 8 rows x 4 columns: eight integer sums of 2 x 2 and as many
 * float sums fit the registers, and float sums stay 2 x 2 until the end of the depth. */

/* A panel of columns: per pair of columns its values twice. */
typedef struct {
    float32x4_t shifts[4], bias[4];
} qs4b_columns;

GO_INLINE void qs4b_prepare(qs4b_columns *c, const float *shifts, const float *bias, size_t cols) {
    float b[8] = {0};
    if (bias) memcpy(b, bias, go_min_size(cols, 8) * sizeof(float));
    for (int i = 0; i < 4; i++) {
        c->shifts[i] = twice(shifts + 2 * i);
        c->bias[i] = twice(b + 2 * i);
    }
}

_Static_assert(128 * 8 * GO_QS4_MAX_GROUP < 1 << 22, "sums of a block convert by subtraction");

/* acc[r][c] += rows 2r and 2r + 1 times columns 2c and 2c + 1 of half a panel. Block sums
 * start at the bits of a float, so that a subtraction converts them (see qa8_sweep.h): their
 * reach is below 128 * 8 * GO_QS4_MAX_GROUP. */
GO_INLINE void qs4b_8x4(float32x4_t acc[4][2], const int8_t *lhs, const int8_t *rhs, size_t blocks,
                        size_t group, const float *scales) {
    int32_t start[4] = {MAGIC_BITS, MAGIC_BITS, MAGIC_BITS, MAGIC_BITS};
    const int32_t *from = start;
    for (size_t b = 0; b < blocks; b++, scales += 16) {
        int32x4_t sums[4][2];
        GO_UNROLLED (i, 8) { /* loads are cheaper than copies of a register */
            GO_OPAQUE(from);
            sums[i / 2][i % 2] = vld1q_s32(from);
        }
        for (size_t k = 0; k < group; k += 32) {
            GO_UNROLLED (step, 4) {
                GO_UNROLLED (r, 4) {
                    const int8x16_t a = vld1q_s8(lhs + 16 * r);
                    sums[r][0] = vmmlaq_s32(sums[r][0], a, vld1q_s8(rhs));
                    sums[r][1] = vmmlaq_s32(sums[r][1], a, vld1q_s8(rhs + 16));
                }
                lhs += 64, rhs += 64;
            }
        }
        GO_UNROLLED (i, 8) {
            float32x4_t sum = vreinterpretq_f32_s32(sums[i / 2][i % 2]);
            sum = vsubq_f32(sum, vdupq_n_f32(12582912.0f));
            acc[i / 2][i % 2] = vfmaq_f32(acc[i / 2][i % 2], sum, vld1q_f32(scales + i % 2 * 4));
        }
    }
}

/* dst[r * stride + c] = results of 8 x 4, up to and including none or relu. */
GO_INLINE void qs4b_finish(const float32x4_t acc[4][2], const int32_t *neg_zp,
                           const qs4b_columns *c, int half, const int with_relu, float *dst,
                           ptrdiff_t stride) {
    const float *scale = (const float *)(neg_zp + 16);
    GO_UNROLLED (r, 4) {
        const float32x4_t z = vcvtq_f32_s32(vld1q_s32(neg_zp + 4 * r));
        const float32x4_t s = vld1q_f32(scale + 4 * r);
        float32x4_t v[2];
        GO_UNROLLED (i, 2) {
            v[i] = vfmaq_f32(acc[r][i], z, c->shifts[2 * half + i]);
            v[i] = vfmaq_f32(c->bias[2 * half + i], v[i], s);
            if (with_relu) v[i] = relu(v[i]);
        }
        store_half_pair(dst + 2 * r * stride, stride, v, 1);
    }
}
