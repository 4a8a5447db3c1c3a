/* The transforms of Winograd's F(4 x 4, 3 x 3) (Lavin & Gray, arXiv:1509.09308): 4 x 4 outputs of a
 * 3 x 3 filter from 6 x 6 inputs by 36 multiplications.
 *
 * Filter and pixels are polynomials, multiplied by their values at 0, +-a, +-b and infinity. With
 * a = 5/8 and b = 3/2 every constant below is exact in f32, and an output errs by about twice as
 * much as a sum of products does; with the usual 1 and 2 it would be five times. Weights are
 * transformed when they are packed (kernels/winograd.py).
 */
#ifndef GO_WINOGRAD_TILE_H
#define GO_WINOGRAD_TILE_H

#include "go_reg.h"

enum { GO_WINOGRAD_OUT = 4, GO_WINOGRAD_IN = 6, GO_WINOGRAD_POINTS = 36 };

#define GO_WINOGRAD_A 0.625f
#define GO_WINOGRAD_B 1.5f

/* a * b + c where a is one of the constants. */
GO_INLINE go_reg go_winograd_fma(float a, go_reg b, go_reg c) {
    return go_reg_fma(go_reg_splat(a), b, c);
}

/* Values at the points of the polynomial that 6 pixels of a line multiply: rows of B^T. */
GO_INLINE void go_winograd_values(const go_reg d[6], go_reg v[6]) {
    const float a = GO_WINOGRAD_A, b = GO_WINOGRAD_B, aa = a * a, bb = b * b;
    const go_reg even_a = go_winograd_fma(-bb, d[2], d[4]),
                 odd_a = go_winograd_fma(-bb, d[1], d[3]);
    const go_reg even_b = go_winograd_fma(-aa, d[2], d[4]),
                 odd_b = go_winograd_fma(-aa, d[1], d[3]);
    v[0] = go_winograd_fma(aa * bb, d[0], go_winograd_fma(-(aa + bb), d[2], d[4]));
    v[1] = go_winograd_fma(a, odd_a, even_a), v[2] = go_winograd_fma(-a, odd_a, even_a);
    v[3] = go_winograd_fma(b, odd_b, even_b), v[4] = go_winograd_fma(-b, odd_b, even_b);
    v[5] = go_winograd_fma(aa * bb, d[1], go_winograd_fma(-(aa + bb), d[3], d[5]));
}

/* 4 outputs of a line from the products at the points: rows of A^T. */
GO_INLINE void go_winograd_outputs(const go_reg m[6], go_reg y[4]) {
    const float a = GO_WINOGRAD_A, b = GO_WINOGRAD_B, aa = a * a, bb = b * b;
    const go_reg even_a = m[1] + m[2], odd_a = m[1] - m[2];
    const go_reg even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = (m[0] + even_a) + even_b;
    y[1] = go_winograd_fma(a, odd_a, go_reg_splat(b) * odd_b);
    y[2] = go_winograd_fma(aa, even_a, go_reg_splat(bb) * even_b);
    y[3] = go_winograd_fma(a * aa, odd_a, go_winograd_fma(b * bb, odd_b, m[5]));
}

/* One register of channels of 6 x 6 pixels, `line` and `pixel` floats apart, to 36 values,
 * `next` floats apart. */
GO_INLINE void go_winograd_input(const float *src, ptrdiff_t line, ptrdiff_t pixel, float *dst,
                                 size_t next) {
    go_reg half[6][6], d[6], v[6];
    GO_UNROLLED (j, 6) {
        GO_UNROLLED (i, 6) d[i] = go_reg_load(src + i * line + j * pixel);
        go_winograd_values(d, v);
        GO_UNROLLED (i, 6) half[i][j] = v[i];
    }
    GO_UNROLLED (i, 6) {
        go_winograd_values(half[i], v);
        GO_UNROLLED (j, 6) go_reg_store(dst + (size_t)(6 * i + j) * next, v[j]);
    }
}

/* One register of channels of 36 products to 4 x 4 outputs; floats apart likewise. */
GO_INLINE void go_winograd_output(const float *src, size_t next, float *dst, size_t out_next) {
    go_reg half[4][6], m[6], y[4];
    GO_UNROLLED (j, 6) {
        GO_UNROLLED (i, 6) m[i] = go_reg_load(src + (size_t)(6 * i + j) * next);
        go_winograd_outputs(m, y);
        GO_UNROLLED (i, 4) half[i][j] = y[i];
    }
    GO_UNROLLED (i, 4) {
        go_winograd_outputs(half[i], y);
        GO_UNROLLED (j, 4) go_reg_store(dst + (size_t)(4 * i + j) * out_next, y[j]);
    }
}

#endif
