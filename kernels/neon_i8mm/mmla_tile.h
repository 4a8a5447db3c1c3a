/* Eight rows by eight columns with the 2x8 by 8x2 matrix multiply-add of NEON:
 * SMMLA on int8 (8 values deep), BFMMLA on bf16 (4 values deep). Both operands
 * are panels of 64 bytes a step, so one shape of code serves both.
 *
 * The including file defines VALUES (type of 16 bytes), VALUE (element),
 * SUMS (type of four sums), SUM (element), LOAD, MMLA, ZERO, ZIP_LO, ZIP_HI, STORE.
 */
GO_INLINE void mmla_8x8(const VALUE *lhs, const VALUE *rhs, size_t steps, SUM *sums, size_t ld) {
    enum { STEP = 64 / sizeof(VALUE), QUAD = 16 / sizeof(VALUE) };
    SUMS acc[4][4]; /* two rows by two columns each */
    GO_UNROLL for (int r = 0; r < 4; r++)
        GO_UNROLL for (int c = 0; c < 4; c++) acc[r][c] = ZERO;
    for (size_t s = 0; s < steps; s++, lhs += STEP, rhs += STEP) {
        VALUES a[4], b[4];
        GO_UNROLL for (int i = 0; i < 4; i++) {
            a[i] = LOAD(lhs + i * QUAD);
            b[i] = LOAD(rhs + i * QUAD);
        }
        GO_UNROLL for (int r = 0; r < 4; r++)
            GO_UNROLL for (int c = 0; c < 4; c++) acc[r][c] = MMLA(acc[r][c], a[r], b[c]);
    }
    GO_UNROLL for (int r = 0; r < 4; r++) {
        GO_UNROLL for (int c = 0; c < 4; c += 2) {
            SUM *to = sums + (size_t)(2 * r) * ld + (size_t)(2 * c);
            STORE(to, ZIP_LO(acc[r][c], acc[r][c + 1]));
            STORE(to + ld, ZIP_HI(acc[r][c], acc[r][c + 1]));
        }
    }
}
