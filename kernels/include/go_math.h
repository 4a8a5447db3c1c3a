/* Elementary functions on f32 that give the same bits on every target.
 *
 * Every function is branch-free and uses only +, -, *, /, sqrt, fused
 * multiply-add, comparisons and moves between float and int bits, each of which
 * IEEE 754 rounds in one way only. Compiled with -ffp-contract=off the result
 * depends neither on the instruction set nor on vectorization, and clang turns a
 * loop of 16 calls into vector code. The file itself must not be compiled with
 * -ffast-math.
 *
 * Errors are in units in the last place (ulp) of the exact result, the largest
 * found by tests/kernels/test_math.py over the range given. Kernels run with
 * denormals flushed to zero, so no result below FLT_MIN = 2^-126 is promised,
 * and the functions flush by themselves wherever the mode could change bits.
 * NaN in, NaN out, everywhere.
 *
 * Polynomials: near-minimax fits with coefficients rounded to f32 one after the
 * other, lowest power first. Argument reductions: Cody and Waite, "Software
 * Manual for the Elementary Functions" (1980), with fused multiply-add.
 */
#ifndef GO_MATH_H
#define GO_MATH_H

#include <stdint.h>
#include <string.h>

#define GO_FLT_MIN 0x1p-126f
#define GO_TRIG_MAX 0x1p18f

/* Clang's elementwise builtins are one instruction where the target has it, also
 * on systems whose fmaf() and sqrtf() set errno. */
#if defined(__clang__)
#define GO_BUILTIN(name, suffix) __builtin_elementwise_##name
#else
#define GO_BUILTIN(name, suffix) __builtin_##name##suffix
#endif

/* What f32 and f64 share: go_fabsf beside go_fabs, go_bits_of_float beside go_bits_of_double. */
#define GO_MATH_OF(real, bits, sign, suffix, fma_name)                                 \
    static inline bits go_bits_of_##real(real x) {                                     \
        bits y;                                                                        \
        memcpy(&y, &x, sizeof y);                                                      \
        return y;                                                                      \
    }                                                                                  \
    static inline real go_##real##_of_bits(bits x) {                                   \
        real y;                                                                        \
        memcpy(&y, &x, sizeof y);                                                      \
        return y;                                                                      \
    }                                                                                  \
    static inline real fma_name(real a, real b, real c) {                              \
        return GO_BUILTIN(fma, suffix)(a, b, c);                                       \
    }                                                                                  \
    static inline real go_sqrt##suffix(real x) { return GO_BUILTIN(sqrt, suffix)(x); } \
    static inline real go_fabs##suffix(real x) {                                       \
        return go_##real##_of_bits(go_bits_of_##real(x) & ~(sign));                    \
    }                                                                                  \
    static inline real go_copysign##suffix(real magnitude, real from) {                \
        return go_##real##_of_bits((go_bits_of_##real(magnitude) & ~(sign)) |          \
                                   (go_bits_of_##real(from) & (sign)));                \
    }

GO_MATH_OF(float, uint32_t, (uint32_t)1 << 31, f, go_fmaf)
GO_MATH_OF(double, uint64_t, (uint64_t)1 << 63, , go_fma64)

/* Adding 1.5 * 2^23 leaves x, rounded to an integer (ties to even), in the low
 * bits of the sum. Valid for |x| <= 2^22. */
#define GO_ROUND_MAGIC 0x1.8p23f

/* The constants of go_exp_weightf: the smallest argument, for which 2^n becomes 0; like
 * GO_ROUND_MAGIC, with n + 127, the exponent field of 2^n, in the low bits of the sum; the
 * polynomial for 2^-r. */
#define GO_WEIGHT_MIN -88.0f
#define GO_WEIGHT_MAGIC (0x1.8p23f + 127.0f)
#define GO_WEIGHT_4 0x1.408be8p-7f
#define GO_WEIGHT_3 -0x1.ca8f58p-5f
#define GO_WEIGHT_2 0x1.ebf1b8p-3f
#define GO_WEIGHT_1 -0x1.62dfcap-1f

/* e^x = result * 2^n with the result in [0.7, 1.42]; the integer n is in the low bits of
 * *exponent. */
static inline float go_exp_reducedf(float x, uint32_t *exponent) {
    float t = go_fmaf(x, 0x1.715476p+0f, GO_ROUND_MAGIC);
    float n = t - GO_ROUND_MAGIC;
    *exponent = go_bits_of_float(t);
    float r = go_fmaf(n, -0x1.62e430p-1f, x);
    r = go_fmaf(n, 0x1.05c610p-29f, r);
    float p = 0x1.6d8398p-10f;
    p = go_fmaf(p, r, 0x1.123f90p-7f);
    p = go_fmaf(p, r, 0x1.5554b8p-5f);
    p = go_fmaf(p, r, 0x1.55548ap-3f);
    p = go_fmaf(p, r, 0.5f);
    p = go_fmaf(p, r, 1.0f);
    return go_fmaf(p, r, 1.0f);
}

/* e^x, 0.9 ulp. +inf above 88.72283, +0 where the result would be below FLT_MIN
 * (x < -87.33654). */
static inline float go_expf(float x) {
    uint32_t exponent;
    float p = go_exp_reducedf(x, &exponent);
    float y = go_float_of_bits(go_bits_of_float(p) + (exponent << 23));
    y = x > 0x1.62e42ep+6f ? __builtin_inff() : y;
    y = x < -0x1.5d589ep+6f ? 0.0f : y;
    return x != x ? x : y;
}

/* The bits of go_expf for x <= 0, with less work. */
static inline float go_exp_negativef(float x) {
    uint32_t exponent;
    float p = go_exp_reducedf(x, &exponent);
    float scale = go_float_of_bits((exponent << 23) + 0x3f800000u);
    return x < -0x1.5d589ep+6f ? 0.0f : p * scale;
}

/* e^x for x <= 0, within 2^-17 of the result, exactly 1 for 0, and 0 below -88: enough for a
 * weight that is then rounded to bf16. */
static inline float go_exp_weightf(float x) {
    x = GO_WEIGHT_MIN > x ? GO_WEIGHT_MIN : x;
    float t = go_fmaf(x, 0x1.715476p+0f, GO_WEIGHT_MAGIC);
    float n = t - GO_WEIGHT_MAGIC;
    float r = go_fmaf(x, -0x1.715476p+0f, n); /* 2^-r below, so that no sign is changed */
    float p = GO_WEIGHT_4;
    p = go_fmaf(p, r, GO_WEIGHT_3);
    p = go_fmaf(p, r, GO_WEIGHT_2);
    p = go_fmaf(p, r, GO_WEIGHT_1);
    p = go_fmaf(p, r, 1.0f);
    return p * go_float_of_bits(go_bits_of_float(t) << 23);
}

/* Natural logarithm, 0.9 ulp. |x| < FLT_MIN counts as 0 and gives -inf; x <= -FLT_MIN
 * gives NaN. */
static inline float go_logf(float x) {
    /* x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)) */
    uint32_t offset = go_bits_of_float(x) - 0x3f3504f3u;
    float e = (float)((int32_t)offset >> 23);
    float f = go_float_of_bits((offset & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    float p = 0x1.1484e8p-4f;
    p = go_fmaf(p, f, -0x1.de1004p-4f);
    p = go_fmaf(p, f, 0x1.e6c03ep-4f);
    p = go_fmaf(p, f, -0x1.fc26acp-4f);
    p = go_fmaf(p, f, 0x1.233b78p-3f);
    p = go_fmaf(p, f, -0x1.555c4ep-3f);
    p = go_fmaf(p, f, 0x1.99a478p-3f);
    p = go_fmaf(p, f, -0x1.000006p-2f);
    p = go_fmaf(p, f, 0x1.555548p-2f);
    float square = f * f;
    float tail = go_fmaf(p, f, -0.5f) * square;
    float y = go_fmaf(e, -0x1.05c610p-29f, tail) + f;
    y = go_fmaf(e, 0x1.62e430p-1f, y);
    y = x == __builtin_inff() ? x : y;
    y = x < GO_FLT_MIN ? -__builtin_inff() : y;
    y = x <= -GO_FLT_MIN ? __builtin_nanf("") : y;
    return x != x ? x : y;
}

/* Error function, 1.0 ulp. */
static inline float go_erff(float x) {
    float t = go_fabsf(x);
    float u = t * t;
    float near = 0x1.4f1db2p-14f; /* erf(t) / t - 1 as a function of t^2, t <= 0.92 */
    near = go_fmaf(near, u, -0x1.a5fb10p-11f);
    near = go_fmaf(near, u, 0x1.544920p-8f);
    near = go_fmaf(near, u, -0x1.b80110p-6f);
    near = go_fmaf(near, u, 0x1.ce2d64p-4f);
    near = go_fmaf(near, u, -0x1.812740p-2f);
    near = go_fmaf(near, u, 0x1.06eba8p-3f);
    near = go_fmaf(near, t, t);
    float v = t > 4.0f ? 4.0f : t; /* erf(4) rounds to 1 */
    float far = -0x1.61e0a0p-16f;  /* log(1 - erf(t)), 0.92 <= t <= 4 */
    far = go_fmaf(far, v, 0x1.c78c56p-12f);
    far = go_fmaf(far, v, -0x1.1159ecp-8f);
    far = go_fmaf(far, v, 0x1.9b8e32p-6f);
    far = go_fmaf(far, v, -0x1.bb83dap-4f);
    far = go_fmaf(far, v, -0x1.44460cp-1f);
    far = go_fmaf(far, v, -0x1.2127e4p+0f);
    far = go_fmaf(far, v, 0x1.6e5700p-13f);
    far = 1.0f - go_expf(far);
    float y = t < 0.92f ? near : far;
    return x != x ? x : go_copysignf(y, x);
}

/* Hyperbolic tangent, 1.5 ulp. */
static inline float go_tanhf(float x) {
    float t = go_fabsf(x);
    float u = t * t;
    float near = -0x1.828776p-8f; /* (tanh(t) / t - 1) / t^2, t <= 0.6 */
    near = go_fmaf(near, u, 0x1.54c3c2p-6f);
    near = go_fmaf(near, u, -0x1.b89abap-5f);
    near = go_fmaf(near, u, 0x1.1109bep-3f);
    near = go_fmaf(near, u, -0x1.55553ep-2f);
    near = go_fmaf(near * u, t, t);
    float far = 1.0f - 2.0f / (go_expf(t + t) + 1.0f);
    float y = t < 0.6f ? near : far;
    return x != x ? x : go_copysignf(y, x);
}

/* 1 / (1 + e^-x), 2.4 ulp. +0 where the result would be below FLT_MIN (x < -87.33654). */
static inline float go_sigmoidf(float x) {
    float y = 1.0f / (1.0f + go_expf(-x));
    return x < -0x1.5d589ep+6f ? 0.0f : y;
}

/* x / (1 + e^-x), 2.3 ulp, as torch computes it: -0 below -88.72283, NaN at -inf. */
static inline float go_siluf(float x) { return x / (1.0f + go_expf(-x)); }

/* x * Phi(x), the gelu of torch: NaN at -inf. Phi(x) - 1/2 is x p(x^2) / q(x^2) within 3e-9 for x^2
 * <= 27 (coefficients by Lawson's iteration, 1961, at 200 points); further out Phi is 0
 * or 1 in f32. The sum cancels for negative x, so the error is bounded by 2^-22 |x|, not in ulp. */
static inline float go_gelu_erff(float x) {
    float u = x * x;
    u = u < 27.0f ? u : 27.0f;
    float p = 0x1.a953e2p-26f;
    p = go_fmaf(p, u, 0x1.ae142ap-18f);
    p = go_fmaf(p, u, 0x1.48a554p-13f);
    p = go_fmaf(p, u, 0x1.2df9fap-8f);
    p = go_fmaf(p, u, 0x1.0a7838p-5f);
    p = go_fmaf(p, u, 0x1.988452p-2f);
    float q = 0x1.522472p-20f;
    q = go_fmaf(q, u, 0x1.278402p-14f);
    q = go_fmaf(q, u, 0x1.dc25f2p-10f);
    q = go_fmaf(q, u, 0x1.c96718p-6f);
    q = go_fmaf(q, u, 0x1.fc5158p-3f);
    q = go_fmaf(q, u, 1.0f);
    float y = go_fmaf(x, p / q, 0.5f);
    y = y > 0.0f ? y : 0.0f;
    y = y < 1.0f ? y : 1.0f;
    return x * y;
}

/* x / 2 * (1 + tanh(w)) = x / (1 + e^(-2 w)) for w = sqrt(2 / pi) * (x + 0.044715 x^3): NaN at
 * -inf. Error below 2^-22 |x|, as above. */
static inline float go_gelu_tanhf(float x) {
    float twice = go_fmaf(x * x * x, 0.044715f, x) * -0x1.988454p+0f;
    return x / (1.0f + go_expf(twice));
}

/* One of five words of 2 / pi, 0 <= i <= 4: selected, as not every target loads by index. */
#define GO_TWO_OVER_PI(i, a, b, c, d, e) \
    ((i) == 0 ? (a) : (i) == 1 ? (b) : (i) == 2 ? (c) : (i) == 3 ? (d) : (e))

/* x - n pi / 2 for 2^18 <= |x| < 2^128, and n modulo 4: Payne and Hanek, "Radian Reduction for
 * Trigonometric Functions" (1983). x is m * 2^k with 24 bits in m; of 2 / pi the 96 bits from
 * 2^(1 - k) on matter: those before make whole turns, those behind less than 2^-62 of a
 * quadrant. */
static inline float go_reduce_far(float x, uint32_t *n) {
    const uint32_t bits = go_bits_of_float(x) & 0x7fffffffu;
    const uint32_t m = (bits & 0x007fffffu) | 0x00800000u;
    const uint32_t first = (bits >> 23) - 120, i = first >> 5, shift = 32 - (first & 31);
    const uint32_t a = 0xa2f9836e, b = 0x4e441529, c = 0xfc2757d1, d = 0xf534ddc0;
    const uint32_t e = 0xdb629599, f = 0x3c439041, g = 0xfe5163ab;
    const uint64_t w0 = GO_TWO_OVER_PI(i, 0u, a, b, c, d), w1 = GO_TWO_OVER_PI(i, a, b, c, d, e);
    const uint64_t w2 = GO_TWO_OVER_PI(i, b, c, d, e, f), w3 = GO_TWO_OVER_PI(i, c, d, e, f, g);
    const uint32_t high = (uint32_t)((w0 << 32 | w1) >> shift);
    const uint32_t middle = (uint32_t)((w1 << 32 | w2) >> shift);
    const uint32_t low = (uint32_t)((w2 << 32 | w3) >> shift);
    /* m * 2 / pi modulo 4, in units of 2^-62 */
    const uint64_t turns =
        ((uint64_t)(m * high) << 32) + (uint64_t)m * middle + ((uint64_t)m * low >> 32);
    const uint64_t part = turns << 2; /* of a quadrant, from -1/2 to 1/2, times 2^64 */
    const uint32_t quadrant = (uint32_t)(turns >> 62) + (uint32_t)(part >> 63);
    const double signed_part =
        (double)(int32_t)(part >> 32) * 0x1p32 + (double)(int32_t)((uint32_t)part >> 1) * 2.0;
    const float r = (float)(signed_part * 0x1.921fb54442d18p-64);
    const int negative = x < 0.0f;
    *n = negative ? 0 - quadrant : quadrant;
    return negative ? -r : r;
}

/* sin(x + quadrant * pi / 2). Up to GO_TRIG_MAX the product of the quotient and the first part
 * of pi / 2 is exact under fused multiply-add, so only the last two steps round. */
static inline float go_sin_shifted(float x, uint32_t quadrant) {
    const int far = go_fabsf(x) > GO_TRIG_MAX;
    float t = go_fmaf(x, 0x1.45f306p-1f, GO_ROUND_MAGIC);
    float n = t - GO_ROUND_MAGIC;
    uint32_t q = go_bits_of_float(t) - go_bits_of_float(GO_ROUND_MAGIC), far_q;
    float r = go_fmaf(n, -0x1.921fb6p+0f, x);
    r = go_fmaf(n, 0x1.777a5cp-25f, r);
    r = go_fmaf(n, 0x1.ee59dap-50f, r);
    const float far_r = go_reduce_far(x, &far_q);
    r = far ? far_r : r;
    q = (far ? far_q : q) + quadrant;
    float u = r * r;
    float s = 0x1.7b5e46p-19f;
    s = go_fmaf(s, u, -0x1.a056aep-13f);
    s = go_fmaf(s, u, 0x1.111172p-7f);
    s = go_fmaf(s, u, -0x1.555556p-3f);
    s = go_fmaf(s * u, r, r);
    float c = -0x1.34e510p-22f;
    c = go_fmaf(c, u, 0x1.a06d46p-16f);
    c = go_fmaf(c, u, -0x1.6c175ap-10f);
    c = go_fmaf(c, u, 0x1.555556p-5f);
    c = go_fmaf(c, u, -0.5f);
    c = go_fmaf(c, u, 1.0f);
    float y = (q & 1u) ? c : s;
    y = go_float_of_bits(go_bits_of_float(y) ^ ((q & 2u) << 30));
    return go_fabsf(x) < __builtin_inff() ? y : __builtin_nanf("");
}

/* Sine and cosine of x radians, 1.5 ulp for every finite x; NaN for others. */
static inline float go_sinf(float x) { return go_sin_shifted(x, 0); }

static inline float go_cosf(float x) { return go_sin_shifted(x, 1); }

/* Tangent of x radians, 4.0 ulp. */
static inline float go_tanf(float x) { return go_sinf(x) / go_cosf(x); }

/* 1 / sqrt(x), two correctly rounded steps: 1.5 ulp. +inf at 0, NaN below; a denormal
 * counts as 0 wherever kernels run. */
static inline float go_rsqrtf(float x) { return 1.0f / go_sqrtf(x); }

#endif
