/* 16 x 16 words of 32 bits, transposed in registers. */
#ifndef GO_TRANSPOSE_H
#define GO_TRANSPOSE_H

#include "go_vec.h"

/* Lane j of the two results of exchanging blocks of b lanes between two rows. */
#define GO_UPPER(j, b) ((j) & (b) ? 16 + (j) - (b) : (j))
#define GO_LOWER(j, b) ((j) & (b) ? 16 + (j) : (j) + (b))
#define GO_BLEND(x, y, half, b)                                                               \
    __builtin_shufflevector(x, y, half(0, b), half(1, b), half(2, b), half(3, b), half(4, b), \
                            half(5, b), half(6, b), half(7, b), half(8, b), half(9, b),       \
                            half(10, b), half(11, b), half(12, b), half(13, b), half(14, b),  \
                            half(15, b))
#define GO_EXCHANGE(m, b)                         \
    GO_UNROLLED (i, 16) {                         \
        if (i & (b)) continue;                    \
        go_u32x16 x = m[i], y = m[i + (b)];       \
        m[i] = GO_BLEND(x, y, GO_UPPER, b);       \
        m[i + (b)] = GO_BLEND(x, y, GO_LOWER, b); \
    }

/* m[i][j] becomes m[j][i]: the off-diagonal halves change places, then the quarters ... */
GO_INLINE void go_transpose_16(go_u32x16 m[16]) {
    GO_EXCHANGE(m, 8)
    GO_EXCHANGE(m, 4)
    GO_EXCHANGE(m, 2)
    GO_EXCHANGE(m, 1)
}

#undef GO_UPPER
#undef GO_LOWER
#undef GO_BLEND
#undef GO_EXCHANGE

#endif
