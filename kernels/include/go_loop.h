/* Small functions that generated loops call. */
#ifndef GO_LOOP_H
#define GO_LOOP_H

#include <math.h>

#include "go_math64.h"
#include "go_module.h"
#include "go_vec.h"

/* NaN stays NaN, as in torch. */
static inline float go_reluf(float x) { return x < 0.0f ? 0.0f : x; }
static inline float go_maxf(float a, float b) { return a > b || a != a ? a : b; }
static inline float go_minf(float a, float b) { return a < b || a != a ? a : b; }

static inline double go_relu(double x) { return x < 0.0 ? 0.0 : x; }
static inline double go_max(double a, double b) { return a > b || a != a ? a : b; }
static inline double go_min(double a, double b) { return a < b || a != a ? a : b; }

/* log(e^a + e^b). */
static inline double go_log_add_exp(double a, double b) {
    const double high = go_max(a, b), low = a == high ? b : a;
    return low == high ? high + 0x1.62e42fefa39efp-1 : high + go_log1p(go_exp(low - high));
}

/* Whole numbers, modulo 2^64. Of 0 nothing is a quotient: the run fails. */
static inline int64_t go_nonzero(const go_frame *frame, int64_t divisor) {
    if (divisor == 0) {
        go_fail(frame, GO_ERROR_VALUE, -1, 1, 0, "a whole number is divided by 0");
        return 1;
    }
    return divisor;
}
static inline int64_t go_quotient(int64_t a, int64_t b) {
    return b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
}
static inline int64_t go_rest(int64_t a, int64_t b) { return b == -1 ? 0 : a % b; }
static inline int64_t go_shift_left(int64_t a, int64_t b) { return (int64_t)((uint64_t)a << b); }

/* 0 where the power, with a negative exponent, is no whole number. */
static inline int64_t go_power(int64_t base, int64_t exponent) {
    if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent & 1 ? -1 : 1) : 0;
    uint64_t power = 1, square = (uint64_t)base;
    for (; exponent > 0; exponent >>= 1, square *= square)
        if (exponent & 1) power *= square;
    return (int64_t)power;
}

/* Floats as whole numbers, towards zero. What does not fit, NaN among it, becomes the smallest
 * number, as in torch on x86; C leaves it open, and other processors do otherwise. */
static inline int32_t go_i32_from_f32(float x) {
    return x >= -0x1p31f && x < 0x1p31f ? (int32_t)x : INT32_MIN;
}
static inline int64_t go_i64_from_f32(float x) {
    return x >= -0x1p63f && x < 0x1p63f ? (int64_t)x : INT64_MIN;
}
static inline int32_t go_i32_from_f64(double x) {
    return x > -0x1p31 - 1.0 && x < 0x1p31 ? (int32_t)x : INT32_MIN;
}
static inline int64_t go_i64_from_f64(double x) {
    return x >= -0x1p63 && x < 0x1p63 ? (int64_t)x : INT64_MIN;
}

/* f16, the binary16 of IEEE 754, by whole numbers: processors differ in what they flush to zero. */
static inline float go_f32_from_f16(uint16_t x) {
    const uint32_t sign = (uint32_t)(x & 0x8000u) << 16, rest = x & 0x7fffu;
    const uint32_t special = rest >= 0x7c00u ? 0x70000000u : 0x38000000u;
    const uint32_t normal = (rest << 13) + special;
    const float small = (float)(int32_t)rest * 0x1p-24f; /* without a leading one: exact */
    uint32_t bits;
    memcpy(&bits, &small, sizeof bits);
    bits = (rest < 0x0400u ? bits : normal) | sign;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* To the nearest, ties to even; NaN to its quiet NaN. */
static inline uint16_t go_f16_from_f32(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    const uint32_t sign = (u >> 16) & 0x8000u, rest = u & 0x7fffffffu;
    /* The last bit of the sum is worth 2^-24, as that of an f16 without a leading one. */
    const float small = __builtin_fabsf(x) + 0.5f;
    uint32_t bits;
    memcpy(&bits, &small, sizeof bits);
    const uint32_t normal = (rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1u)) >> 13;
    uint32_t half = rest < 0x38800000u ? bits - 0x3f000000u : normal;
    half = rest >= 0x47800000u ? 0x7c00u : half;
    half = rest > 0x7f800000u ? 0x7e00u : half;
    return (uint16_t)(half | sign);
}

/* An index that counts from the end where it is negative. */
static inline int64_t go_wrap(int64_t index, int64_t extent) {
    return index < 0 ? index + extent : index;
}

/* An index that comes from data: one outside of 0 .. extent - 1 fails the run. */
static inline int64_t go_check_index(const go_frame *frame, int64_t index, int64_t extent) {
    if (index >= 0 && index < extent) return index;
    go_fail(frame, GO_ERROR_VALUE, -1, extent, index, "an index is outside the table");
    return 0;
}

/* Elements of a task of `total` in a loop, such that the threads end at nearly the same time:
 * at least as many as claiming it is worth, whole cache lines. */
static inline int64_t go_loop_grain(const go_team *team, int64_t total) {
    enum { LEAST = 1024, MOST = 16384, LINE = 64 };
    const int64_t threads = team->size, rounds = (total - 1) / (threads * MOST) + 1;
    const int64_t share = (total - 1) / (threads * rounds) + 1;
    return (go_larger(share, LEAST) + LINE - 1) / LINE * LINE;
}

/* Packs a dense f32 matrix [k][n] into the panels of the f32 GEMM: 16 columns,
 * [k][16], the last panel padded with zeros. */
static inline void go_pack_right(go_team *team, const float *src, int64_t k, int64_t n,
                                 float *dst) {
    const int64_t panels = (n + GO_LANES - 1) / GO_LANES;
    for (int64_t panel; (panel = (int64_t)go_next(team, (size_t)panels)) < panels;) {
        const int64_t first = panel * GO_LANES, width = go_smaller(GO_LANES, n - first);
        float *out = dst + panel * k * GO_LANES;
        for (int64_t row = 0; row < k; row++)
            for (int64_t i = 0; i < GO_LANES; i++)
                out[row * GO_LANES + i] = i < width ? src[row * n + first + i] : 0.0f;
    }
}

/* Whether the new tokens of every sequence fit behind its `past` rows of the cache, at
 * least one row from `start` on; records the failure if not. */
static inline int go_fits_cache(const go_frame *frame, const int64_t *past, const int64_t *start,
                                int64_t sequences, int64_t tokens, int64_t rows) {
    for (int64_t b = 0; b < sequences; b++) {
        if (past[b] < 0 || past[b] > rows - tokens) {
            go_fail(frame, GO_ERROR_VALUE, -1, rows - tokens, past[b],
                    "the new tokens do not fit the cache");
            return 0;
        }
        if (start[b] < 0 || start[b] >= past[b] + tokens) {
            go_fail(frame, GO_ERROR_VALUE, -1, past[b] + tokens - 1, start[b],
                    "a sequence starts outside its rows of the cache");
            return 0;
        }
    }
    return 1;
}

/* The most keys that a sequence has when its new tokens are in the cache. */
static inline int64_t go_most_keys(const int64_t *past, const int64_t *start, int64_t sequences,
                                   int64_t tokens) {
    int64_t most = 0;
    for (int64_t b = 0; b < sequences; b++) most = go_larger(most, past[b] + tokens - start[b]);
    return most;
}

/* How many sequences of `keys` keys attention can take at once in the scratch memory for one
 * with all rows of a cache: 1 or more. */
static inline int64_t go_sequences_together(int64_t rows, int64_t keys) {
    return (rows + 15) / 16 / ((keys + 15) / 16);
}

#endif
