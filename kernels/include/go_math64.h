/* Elementary functions on f64 that give the same bits on every target, as those of go_math.h do on
 * f32 and by the same means. Generated loops use them for f64, and for functions of f32 that models
 * seldom have: what is computed in f64 and rounded is within 0.51 ulp of f32 of the exact result.
 *
 * Errors are in ulp of f64, the largest found by tests/kernels/test_math64.py. A result below
 * DBL_MIN = 2^-1022 is 0, and so is an argument below it. NaN in, NaN out, everywhere.
 */
#ifndef GO_MATH64_H
#define GO_MATH64_H

#include "go_math.h"

#define GO_DBL_MIN 0x1p-1022

/* As GO_ROUND_MAGIC: valid for |x| <= 2^51. */
#define GO_ROUND_MAGIC64 0x1.8p52

/* 2^k for k from -1022 to 1023 that go_exp_reduced has added GO_ROUND_MAGIC64 to. */
static inline double go_power_of_two(double t) {
    return go_double_of_bits((go_bits_of_double(t) + 1023) << 52);
}

/* e^x - 1 = 2^n (1 + result) - 1 with the result in [-0.3, 0.42]; *n is a whole number. */
static inline double go_exp_reduced(double x, double *n) {
    *n = go_fma64(x, 0x1.71547652b82fep+0, GO_ROUND_MAGIC64) - GO_ROUND_MAGIC64;
    double r = go_fma64(*n, -0x1.62e42fefa39efp-1, x);
    r = go_fma64(*n, -0x1.abc9e3b39803fp-56, r);
    double q = 0x1.1f72fc730b4ffp-29;
    q = go_fma64(q, r, 0x1.af4ddd84882fep-26);
    q = go_fma64(q, r, 0x1.27e4db67b4303p-22);
    q = go_fma64(q, r, 0x1.71de02375656cp-19);
    q = go_fma64(q, r, 0x1.a01a01a6d7808p-16);
    q = go_fma64(q, r, 0x1.a01a01abe62ddp-13);
    q = go_fma64(q, r, 0x1.6c16c16c162d6p-10);
    q = go_fma64(q, r, 0x1.11111111100dfp-7);
    q = go_fma64(q, r, 0x1.5555555555556p-5);
    q = go_fma64(q, r, 0x1.5555555555557p-3);
    q = go_fma64(q, r, 0x1p-1);
    return go_fma64(q * r, r, r);
}

/* (1 + q) 2^n. */
static inline double go_exp_scaled(double q, double n) {
    const double half = go_fma64(n, 0.5, GO_ROUND_MAGIC64); /* in two steps: 2^1024 is no number */
    const double rest = n - (half - GO_ROUND_MAGIC64);
    return (1.0 + q) * go_power_of_two(half) * go_power_of_two(rest + GO_ROUND_MAGIC64);
}

/* e^x, 1.0 ulp. +inf above 709.782712893384, +0 below -708.396418532264. */
static inline double go_exp(double x) {
    double n;
    const double q = go_exp_reduced(x, &n);
    double y = go_exp_scaled(q, n);
    y = x > 0x1.62e42fefa39efp+9 ? __builtin_inf() : y;
    y = x < -0x1.6232bdd7abcd2p+9 ? 0.0 : y;
    return x != x ? x : y;
}

/* 2^x, 1.0 ulp. */
static inline double go_exp2(double x) {
    const double n = x + GO_ROUND_MAGIC64 - GO_ROUND_MAGIC64;
    double none;
    const double q = go_exp_reduced((x - n) * 0x1.62e42fefa39efp-1, &none);
    double y = go_exp_scaled(q, n);
    y = x >= 1024.0 ? __builtin_inf() : y;
    y = x < -1022.0 ? 0.0 : y;
    return x != x ? x : y;
}

/* e^x - 1, 1.5 ulp. */
static inline double go_expm1(double x) {
    double n;
    const double q = go_exp_reduced(x, &n);
    const double scale = go_power_of_two(n + GO_ROUND_MAGIC64);
    const double near = go_fma64(scale, q, scale - 1.0);
    double y = go_fabs(x) < 40.0 ? near : go_exp(x) - 1.0;
    y = x == 0.0 ? x : y;
    return x != x ? x : y;
}

/* log(m) for the m in [sqrt(1/2), sqrt(2)) with x = 2^e m, and the whole number e. */
static inline double go_log_reduced(double x, double *e) {
    const uint64_t offset = go_bits_of_double(x) - 0x3fe6a09e667f3bcdu;
    const uint64_t exponent = (offset + 0x3ff0000000000000u) >> 52;
    *e = go_double_of_bits(0x4330000000000000u | exponent) - (0x1p52 + 1023.0);
    const double f = go_double_of_bits((offset & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu) - 1.0;
    const double s = f / (2.0 + f), z = s * s;
    double p = 0x1.0c039c49989c6p-3;
    p = go_fma64(p, z, 0x1.0fbe95d71602p-3);
    p = go_fma64(p, z, 0x1.3b1c355a8f7a2p-3);
    p = go_fma64(p, z, 0x1.745cf9048dd95p-3);
    p = go_fma64(p, z, 0x1.c71c720159177p-3);
    p = go_fma64(p, z, 0x1.2492492476cccp-2);
    p = go_fma64(p, z, 0x1.9999999999a38p-2);
    p = go_fma64(p, z, 0x1.5555555555555p-1);
    const double square = 0.5 * f * f;
    return f - (square - s * go_fma64(p, z, square));
}

/* Limits of a logarithm `y` of x. */
static inline double go_log_limits(double x, double y) {
    y = x == __builtin_inf() ? x : y;
    y = x < GO_DBL_MIN ? -__builtin_inf() : y;
    y = x <= -GO_DBL_MIN ? __builtin_nan("") : y;
    return x != x ? x : y;
}

/* Natural logarithm, 1.5 ulp. */
static inline double go_log(double x) {
    double e;
    const double y = go_log_reduced(x, &e);
    const double tail = go_fma64(e, 0x1.abc9e3b39803fp-56, y);
    return go_log_limits(x, go_fma64(e, 0x1.62e42fefa39efp-1, tail));
}

/* Logarithm to base 2, 2.0 ulp; exact for powers of 2. */
static inline double go_log2(double x) {
    double e;
    const double y = go_log_reduced(x, &e);
    return go_log_limits(x, go_fma64(y, 0x1.71547652b82fep+0, e));
}

/* Logarithm to base 10, 2.5 ulp. */
static inline double go_log10(double x) { return go_log(x) * 0x1.bcb7b1526e50ep-2; }

/* log(1 + x), 2.0 ulp. */
static inline double go_log1p(double x) {
    const double u = 1.0 + x;
    const double lost = x < 1.0 ? x - (u - 1.0) : 1.0 - (u - x);
    double y = go_log(u);
    y = u > 0.0 && x < 0x1p53 ? y + lost / u : y;
    return x == 0.0 ? x : y;
}

/* x^y for any x and y, as C99 has it at zeros, infinities and ones: 2^-52 of the result for each
 * unit of |y log x|. */
static inline double go_pow(double x, double y) {
    const int whole = __builtin_floor(y) == y;
    const double half = 0.5 * y;
    const int odd = whole && __builtin_floor(half) != half;
    double power = go_exp(y * go_log(go_fabs(x)));
    power = odd ? go_copysign(power, x) : power;
    power = x < 0.0 && !whole && x > -__builtin_inf() ? __builtin_nan("") : power;
    power = x == -1.0 && go_fabs(y) == __builtin_inf() ? 1.0 : power;
    return x == 1.0 || y == 0.0 ? 1.0 : power;
}

/* The angle of (x, y), 2.5 ulp, with the signs of C99 at zeros and infinities. */
static inline double go_atan2(double y, double x) {
    const double a = go_fabs(y), b = go_fabs(x);
    double t = a / b;
    t = a == b ? (a == 0.0 ? 0.0 : 1.0) : t;
    /* atan(t) = atan(r) + angle */
    const int steep = t > 0x1.3504f333f9de6p+1, middle = t > 0x1.a827999fcef32p-2;
    const double r = steep ? -b / a : middle ? (a - b) / (a + b) : t;
    const double s = t == 1.0 ? 0.0 : r;
    const double angle = steep ? 0x1.921fb54442d18p+0 : middle ? 0x1.921fb54442d18p-1 : 0.0;
    const double low = steep ? 0x1.1a62633145c07p-54 : middle ? 0x1.1a62633145c07p-55 : 0.0;
    const double z = s * s;
    double p = 0x1.0ad36a455cafbp-6;
    p = go_fma64(p, z, -0x1.1b33b923aa954p-5);
    p = go_fma64(p, z, 0x1.74ddd408bb4c1p-5);
    p = go_fma64(p, z, -0x1.ac7a938b69c93p-5);
    p = go_fma64(p, z, 0x1.e19a13b9fc6dfp-5);
    p = go_fma64(p, z, -0x1.110e880a7a521p-4);
    p = go_fma64(p, z, 0x1.3b1392d9e785cp-4);
    p = go_fma64(p, z, -0x1.745d165df3f95p-4);
    p = go_fma64(p, z, 0x1.c71c71c304b68p-4);
    p = go_fma64(p, z, -0x1.249249248d7eep-3);
    p = go_fma64(p, z, 0x1.9999999999953p-3);
    p = go_fma64(p, z, -0x1.5555555555555p-2);
    double arc = angle + (go_fma64(p * z, s, s) + low);
    /* the sign bit of x: -0.0 lies at pi */
    const int left = (int)(go_bits_of_double(x) >> 63);
    arc = left ? 0x1.921fb54442d18p+1 - (arc - 0x1.1a62633145c07p-53) : arc;
    arc = x != x || y != y ? __builtin_nan("") : arc;
    return go_copysign(arc, y);
}

static inline double go_atan(double x) { return go_atan2(x, 1.0); }

/* Arc sine and cosine, 3.5 ulp; NaN beyond 1. */
static inline double go_asin(double x) { return go_atan2(x, go_sqrt((1.0 - x) * (1.0 + x))); }

static inline double go_acos(double x) {
    return 2.0 * go_atan2(go_sqrt(1.0 - x), go_sqrt(1.0 + x));
}

/* Hyperbolic functions and their inverses, 4.0 ulp. */
static inline double go_sinh(double x) {
    const double t = go_fabs(x), e = go_expm1(t), half = go_exp(0.5 * t);
    const double y = t < 40.0 ? 0.5 * (e + e / (e + 1.0)) : 0.5 * half * half;
    return x != x ? x : go_copysign(y, x);
}

static inline double go_cosh(double x) {
    const double t = go_fabs(x), e = go_exp(t), half = go_exp(0.5 * t);
    return t < 40.0 ? 0.5 * (e + 1.0 / e) : 0.5 * half * half;
}

static inline double go_tanh(double x) {
    const double t = go_fabs(x), e = go_expm1(2.0 * t);
    const double y = t < 22.0 ? e / (e + 2.0) : 1.0;
    return x != x ? x : go_copysign(y, x);
}

static inline double go_asinh(double x) {
    const double t = go_fabs(x), square = t * t;
    const double near = go_log1p(t + square / (1.0 + go_sqrt(1.0 + square)));
    const double y = t < 0x1p28 ? near : go_log(t) + 0x1.62e42fefa39efp-1;
    return x != x ? x : go_copysign(y, x);
}

static inline double go_acosh(double x) {
    const double t = x - 1.0;
    const double near = go_log1p(t + go_sqrt(t * (t + 2.0)));
    return x < 0x1p28 ? near : go_log(x) + 0x1.62e42fefa39efp-1;
}

static inline double go_atanh(double x) {
    const double t = go_fabs(x), y = 0.5 * go_log1p(2.0 * t / (1.0 - t));
    return x != x ? x : go_copysign(y, x);
}

/* 1 - erf(t) for t >= 0.74: e^(-t^2) / (1 + 2 t) times a polynomial in (t - 3.75) / (t + 3.75), as
 * Shepherd and Laframboise, "Chebyshev Approximation of (1 + 2x) exp(x^2) erfc x" (1981). */
static inline double go_erfc_far(double t) {
    const double v = t > 27.0 ? 27.0 : t, u = (v - 3.75) / (v + 3.75);
    double p = -0x1.cd78ac61dc6c5p-28;
    p = go_fma64(p, u, 0x1.e299b65b0ac13p-26);
    p = go_fma64(p, u, 0x1.0f2e6cef557f5p-25);
    p = go_fma64(p, u, -0x1.0b34a5e3dd1cdp-22);
    p = go_fma64(p, u, -0x1.1ceef896b1fd7p-24);
    p = go_fma64(p, u, 0x1.d4dad636cca42p-20);
    p = go_fma64(p, u, -0x1.03d956144fee2p-20);
    p = go_fma64(p, u, -0x1.7ff3d8c0fe244p-17);
    p = go_fma64(p, u, 0x1.7782a347042f7p-16);
    p = go_fma64(p, u, 0x1.b1431e95585aap-15);
    p = go_fma64(p, u, -0x1.303f822bf2b31p-12);
    p = go_fma64(p, u, 0x1.33fb29c48665dp-12);
    p = go_fma64(p, u, 0x1.cc3a0d289cfcfp-10);
    p = go_fma64(p, u, -0x1.3f603c378a0c9p-7);
    p = go_fma64(p, u, 0x1.d0b0037f21c37p-6);
    p = go_fma64(p, u, -0x1.e0d0fa6df3b6dp-5);
    p = go_fma64(p, u, 0x1.7a14188a95b1ap-4);
    p = go_fma64(p, u, -0x1.bda9309a28b83p-4);
    p = go_fma64(p, u, 0x1.510169d096964p-4);
    p = go_fma64(p, u, 0x1.d5f2948159e31p-9);
    p = go_fma64(p, u, -0x1.1f367683f89a8p-3);
    p = go_fma64(p, u, 0x1.3ccda0b5d5dc2p+0);
    const double square = v * v, lost = go_fma64(v, v, -square);
    const double y = go_exp(-square) * p / (1.0 + 2.0 * v) * (1.0 - lost);
    return t > 0x1.a8b12fc6e4892p+4 ? 0.0 : y; /* below DBL_MIN */
}

/* erf(x) for |x| < 0.75. */
static inline double go_erf_near(double x) {
    const double z = x * x;
    double p = 0x1.3fda42ac13d26p-34;
    p = go_fma64(p, z, -0x1.48b588d516d45p-30);
    p = go_fma64(p, z, 0x1.fbb883616d4a1p-27);
    p = go_fma64(p, z, -0x1.5f6a1cb9cac3bp-23);
    p = go_fma64(p, z, 0x1.b9e646f15d72p-20);
    p = go_fma64(p, z, -0x1.f4d257aadcd6fp-17);
    p = go_fma64(p, z, 0x1.f9a326ddab89bp-14);
    p = go_fma64(p, z, -0x1.c02db3ffcd5edp-11);
    p = go_fma64(p, z, 0x1.565bcd0e69235p-8);
    p = go_fma64(p, z, -0x1.b82ce31288b15p-6);
    p = go_fma64(p, z, 0x1.ce2f21a042be1p-4);
    p = go_fma64(p, z, -0x1.812746b0379e7p-2);
    p = go_fma64(p, z, 0x1.06eba8214db69p-3);
    return go_fma64(p, x, x);
}

/* Error function, 1.5 ulp, and 1 less it, 5.0 ulp. */
static inline double go_erf(double x) {
    const double t = go_fabs(x), near = go_erf_near(t), far = 1.0 - go_erfc_far(t);
    const double y = t < 0.75 ? near : far;
    return x != x ? x : go_copysign(y, x);
}

static inline double go_erfc(double x) {
    const double t = go_fabs(x), near = 1.0 - go_erf_near(x), far = go_erfc_far(t);
    double y = x < 0.0 ? 2.0 - far : far;
    y = t < 0.75 ? near : y;
    return x != x ? x : y;
}

/* As go_sigmoidf and what follows it. */
static inline double go_sigmoid(double x) { return 1.0 / (1.0 + go_exp(-x)); }

static inline double go_silu(double x) { return x / (1.0 + go_exp(-x)); }

static inline double go_gelu_erf(double x) {
    return x * 0.5 * (1.0 + go_erf(x * 0x1.6a09e667f3bcdp-1));
}

static inline double go_gelu_tanh(double x) {
    const double inner = go_fma64(x * x * x, 0.044715, x) * 0x1.9884533d43651p-1;
    return x * 0.5 * (1.0 + go_tanh(inner));
}

static inline double go_rsqrt(double x) { return 1.0 / go_sqrt(x); }

#endif
