/* Up to eight rows by eight columns with the 2x8 by 8x2 matrix multiply-add of NEON:
 * SMMLA on int8 (8 values deep), BFMMLA on bf16 (4 values deep). Both operands
 * are panels of 64 bytes a step, so one shape of code serves both. One or two pairs of
 * rows take as long as it takes to read the right operand: decoding token by token.
 *
 * The including file defines VALUES (type of 16 bytes), VALUE (element),
 * SUMS (type of four sums), LOAD, MMLA; they are undefined at the end.
 */

/* Pairs of rows that hold the first `rows` of a panel: 1, 2 or all 4. */
GO_INLINE int mmla_pairs(size_t rows) { return rows <= 2 ? 1 : rows <= 4 ? 2 : 4; }

/* acc[r][c] += rows 2r and 2r + 1 times columns 2c and 2c + 1, r < pairs. */
GO_INLINE void mmla_8x8(SUMS acc[4][4], const VALUE *lhs, const VALUE *rhs, size_t steps,
                        const int pairs) {
    enum { STEP = 64 / sizeof(VALUE), QUAD = 16 / sizeof(VALUE) };
    /* With few rows the loop itself would take its share of the five slots a cycle. */
    const size_t at_once = pairs < 4 ? 2 : 1;
    for (size_t s = 0; s < steps; s += at_once) {
        GO_UNROLL for (size_t u = 0; u < at_once; u++, lhs += STEP, rhs += STEP) {
            VALUES a[4], b[4];
            GO_UNROLLED (i, pairs) a[i] = LOAD(lhs + i * QUAD);
            GO_UNROLLED (i, 4) b[i] = LOAD(rhs + i * QUAD);
            GO_UNROLLED (r, pairs)
                GO_UNROLLED (c, 4) acc[r][c] = MMLA(acc[r][c], a[r], b[c]);
        }
    }
}

/* Stores the lower halves of two vectors. Compilers would rather zip them into one. */
GO_INLINE void store_low_halves(float *dst, float32x4_t x, float32x4_t y) {
    __asm__("stp %d1, %d2, %0" : "=Q"(*(float(*)[4])dst) : "w"(x), "w"(y));
}

/* Stores four results of two rows, or of the first of them. A store takes a slot of the
 * vector pipes, and so does a zip, but two lower halves, which make up the first row, are
 * one store without a zip. */
GO_INLINE void store_half_pair(float *dst, ptrdiff_t stride, const float32x4_t v[2],
                               const int both) {
    store_low_halves(dst, v[0], v[1]);
    if (!both) return;
    float64x2_t x = vreinterpretq_f64_f32(v[0]), y = vreinterpretq_f64_f32(v[1]);
    vst1q_f32(dst + stride, vreinterpretq_f32_f64(vzip2q_f64(x, y)));
}

/* Stores eight results of two rows, or of the first of them. */
GO_INLINE void store_pair(float *dst, ptrdiff_t stride, const float32x4_t v[4], const int both) {
    GO_UNROLLED_BY (c, 4, 2) store_half_pair(dst + 2 * c, stride, v + c, both);
}

/* Zeros for negative values; keeps NaN and -0. */
GO_INLINE float32x4_t relu(float32x4_t v) {
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), vcltzq_f32(v)));
}

/* Two values twice. */
GO_INLINE float32x4_t twice(const float *p) {
    float32x2_t v = vld1_f32(p);
    return vcombine_f32(v, v);
}

#undef VALUES
#undef VALUE
#undef SUMS
#undef LOAD
#undef MMLA
