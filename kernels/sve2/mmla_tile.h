/* Eight rows by eight columns with SMMLA or BFMMLA of SVE, for any vector length.
 *
 * A vector holds one pair of rows of the left operand, repeated in every 128-bit
 * segment, times as many pairs of columns as it has segments: four, two or one
 * vectors cover the eight columns. The panels are those of the NEON kernels.
 *
 * The including file defines VALUES, VALUE, SUMS, SUM (vector and element types),
 * LOAD (predicated), LOAD_QUAD (16 bytes into every segment), MMLA, ZERO, EVEN and
 * ODD (64-bit lanes of two vectors), STORE (predicated).
 */
#include <arm_sve.h>

#define QUAD (16 / sizeof(VALUE))
#define STEP (64 / sizeof(VALUE))

/* Sums of a pair of rows, first `columns` of two vectors, to two rows of memory. */
#define STORE_PAIR(r, x, y, column, columns)                                  \
    do {                                                                      \
        svbool_t mask = svwhilelt_b32_u64(0, columns);                        \
        STORE(mask, sums + (size_t)(2 * (r)) * ld + (column), EVEN(x, y));    \
        STORE(mask, sums + (size_t)(2 * (r) + 1) * ld + (column), ODD(x, y)); \
    } while (0)

/* 128-bit vectors: one pair of columns each. */
GO_INLINE void mmla_by_4(const VALUE *lhs, const VALUE *rhs, size_t steps, SUM *sums, size_t ld) {
    const svbool_t all = svptrue_b8();
#define ROW(r) SUMS c##r##0 = ZERO, c##r##1 = ZERO, c##r##2 = ZERO, c##r##3 = ZERO
    ROW(0);
    ROW(1);
    ROW(2);
    ROW(3);
#undef ROW
    for (size_t s = 0; s < steps; s++, lhs += STEP, rhs += STEP) {
        VALUES b0 = LOAD(all, rhs), b1 = LOAD(all, rhs + QUAD);
        VALUES b2 = LOAD(all, rhs + 2 * QUAD), b3 = LOAD(all, rhs + 3 * QUAD);
#define ROW(r)                                                          \
    do {                                                                \
        VALUES a = LOAD_QUAD(all, lhs + (r) * QUAD);                    \
        c##r##0 = MMLA(c##r##0, a, b0), c##r##1 = MMLA(c##r##1, a, b1); \
        c##r##2 = MMLA(c##r##2, a, b2), c##r##3 = MMLA(c##r##3, a, b3); \
    } while (0)
        ROW(0);
        ROW(1);
        ROW(2);
        ROW(3);
#undef ROW
    }
#define ROW(r)                             \
    STORE_PAIR(r, c##r##0, c##r##1, 0, 4); \
    STORE_PAIR(r, c##r##2, c##r##3, 4, 4)
    ROW(0);
    ROW(1);
    ROW(2);
    ROW(3);
#undef ROW
}

/* Longer vectors: two, of which the second may be partly or (from 512 bits on)
 * wholly inactive. */
GO_INLINE void mmla_by_2(const VALUE *lhs, const VALUE *rhs, size_t steps, SUM *sums, size_t ld) {
    const size_t length = svcntb();
    const svbool_t all = svptrue_b8(), first = svwhilelt_b8_u64(0, 64);
    const svbool_t second = svwhilelt_b8_u64(length, 64);
    SUMS c00 = ZERO, c01 = ZERO, c10 = ZERO, c11 = ZERO;
    SUMS c20 = ZERO, c21 = ZERO, c30 = ZERO, c31 = ZERO;
    const size_t values = length / sizeof(VALUE);
    for (size_t s = 0; s < steps; s++, lhs += STEP, rhs += STEP) {
        VALUES b0 = LOAD(first, rhs), b1 = LOAD(second, rhs + values);
#define ROW(r)                                                          \
    do {                                                                \
        VALUES a = LOAD_QUAD(all, lhs + (r) * QUAD);                    \
        c##r##0 = MMLA(c##r##0, a, b0), c##r##1 = MMLA(c##r##1, a, b1); \
    } while (0)
        ROW(0);
        ROW(1);
        ROW(2);
        ROW(3);
#undef ROW
    }
#define ROW(r) STORE_PAIR(r, c##r##0, c##r##1, 0, 8)
    ROW(0);
    ROW(1);
    ROW(2);
    ROW(3);
#undef ROW
}

GO_INLINE void mmla_8x8(const VALUE *lhs, const VALUE *rhs, size_t steps, SUM *sums, size_t ld) {
    if (svcntb() == 16)
        mmla_by_4(lhs, rhs, steps, sums, ld);
    else
        mmla_by_2(lhs, rhs, steps, sums, ld);
}
