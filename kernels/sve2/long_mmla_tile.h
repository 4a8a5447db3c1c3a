/* Eight rows by eight columns with SMMLA or BFMMLA of SVE on vectors of 256 bits and more;
 * at 128 bits the NEON tile does the same with fewer instructions.
 *
 * A vector holds one pair of rows of the left operand, repeated in every 128-bit
 * segment, times as many pairs of columns as it has segments: two vectors cover the eight
 * columns, and from 512 bits on the second is partly or wholly inactive. The panels are
 * those of the NEON kernels.
 *
 * The including file defines VALUES, VALUE, SUMS, SUM (vector and element types),
 * LOAD (predicated), LOAD_QUAD (16 bytes into every segment), MMLA, ZERO, EVEN and
 * ODD (64-bit lanes of two vectors), STORE (predicated).
 */
#include <arm_sve.h>

#define QUAD (16 / sizeof(VALUE))
#define STEP (64 / sizeof(VALUE))

/* Eight sums of a pair of rows to two rows of memory. */
#define STORE_PAIR(r, x, y)                                              \
    do {                                                                 \
        STORE(first_sums, sums + (size_t)(2 * (r)) * ld, EVEN(x, y));    \
        STORE(first_sums, sums + (size_t)(2 * (r) + 1) * ld, ODD(x, y)); \
    } while (0)

GO_INLINE void long_mmla_8x8(const VALUE *lhs, const VALUE *rhs, size_t steps, SUM *sums,
                             size_t ld) {
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
    const svbool_t first_sums = svwhilelt_b32_u64(0, 8);
#define ROW(r) STORE_PAIR(r, c##r##0, c##r##1)
    ROW(0);
    ROW(1);
    ROW(2);
    ROW(3);
#undef ROW
}
