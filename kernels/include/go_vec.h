/* Sixteen f32 lanes as one portable value.
 *
 * Built on the vector extension of gcc and clang: one zmm register, two ymm,
 * four NEON q registers, or plain scalars. Every float reduction of the kernels
 * runs over these 16 lanes and folds them in one fixed order, and every
 * multiply-add is an explicit fused one, so that a float result has the same
 * bits on every instruction set.
 */
#ifndef GO_VEC_H
#define GO_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include <arm_neon.h>
#elif defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "go_kernel.h"

#define GO_LANES 16

/* GO_NAME(norm) is go_norm_avx2 when compiled with -DGO_ISA=avx2. */
#define GO_NAME_3(op, isa) go_##op##_##isa
#define GO_NAME_2(op, isa) GO_NAME_3(op, isa)
#define GO_NAME(op) GO_NAME_2(op, GO_ISA)

#define GO_INLINE static inline __attribute__((always_inline, unused))

/* Loops from 0 to a constant count whose bodies must become straight code. */
#if defined(__clang__)
#define GO_UNROLL _Pragma("clang loop unroll(full)")
#else
#define GO_UNROLL _Pragma("GCC unroll 64")
#endif
#define GO_UNROLLED(i, count) GO_UNROLL for (int i = 0; i < (count); i++)
#define GO_UNROLLED_BY(i, count, step) GO_UNROLL for (int i = 0; i < (count); i += (step))

/* Makes the compiler forget how the pointer was computed, so that it keeps it in
 * a register instead of deriving it from another one in the loop. */
#define GO_OPAQUE(p) __asm__("" : "+r"(p))

/* Values and, with aligned and may_alias relaxed, the same in memory. */
typedef float go_f32x16 __attribute__((vector_size(64)));
typedef int32_t go_i32x16 __attribute__((vector_size(64)));
typedef uint32_t go_u32x16 __attribute__((vector_size(64)));
typedef uint16_t go_u16x16 __attribute__((vector_size(32)));
typedef int16_t go_i16x16 __attribute__((vector_size(32)));
typedef int8_t go_i8x16 __attribute__((vector_size(16)));
typedef float go_f32x16_mem __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t go_i32x16_mem __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t go_u16x16_mem __attribute__((vector_size(32), aligned(2), may_alias));
typedef int8_t go_i8x16_mem __attribute__((vector_size(16), aligned(1), may_alias));

GO_INLINE go_f32x16 go_splat(float x) {
    return (go_f32x16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

GO_INLINE go_f32x16 go_zero(void) { return (go_f32x16){0}; }

GO_INLINE go_i32x16 go_splat_i32(int32_t x) {
    return (go_i32x16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

/* The same 64 bytes under another type. */
GO_INLINE go_u32x16 go_bits(go_f32x16 v) { return (go_u32x16)v; }
GO_INLINE go_f32x16 go_from_bits(go_u32x16 v) { return (go_f32x16)v; }

/* a * b + c with one rounding. */
GO_INLINE go_f32x16 go_fma(go_f32x16 a, go_f32x16 b, go_f32x16 c) {
#if defined(__clang__)
    return __builtin_elementwise_fma(a, b, c);
#else
    go_f32x16 r;
    for (int i = 0; i < GO_LANES; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return r;
#endif
}

/* Lanes of `a` where the mask (0 or -1, the result of a comparison) is set, else of `b`. */
GO_INLINE go_f32x16 go_select(go_i32x16 mask, go_f32x16 a, go_f32x16 b) {
    return (go_f32x16)((mask & (go_i32x16)a) | (~mask & (go_i32x16)b));
}

/* One instruction where the CPU has it: `b` if either operand is NaN. With the
 * running extremum as `b` a NaN in the data is skipped. */
GO_INLINE go_f32x16 go_max_skip_nan(go_f32x16 a, go_f32x16 b) { return go_select(a > b, a, b); }
GO_INLINE go_f32x16 go_min_skip_nan(go_f32x16 a, go_f32x16 b) { return go_select(a < b, a, b); }

/* Round to the nearest integer, ties to even, for |v| < 2^22: adding 1.5 * 2^23
 * leaves no fraction bits. Needs no instruction beyond an addition. */
GO_INLINE go_f32x16 go_rint_small(go_f32x16 v) {
    const go_f32x16 magic = go_splat(12582912.0f);
    return (v + magic) - magic;
}

/* Fold 16 lanes into one, always as ((i, i+8), (i, i+4), (i, i+2), (0, 1)). */
GO_INLINE float go_sum(go_f32x16 v) {
    float a[8];
    for (int i = 0; i < 8; i++) a[i] = v[i] + v[i + 8];
    for (int i = 0; i < 4; i++) a[i] += a[i + 4];
    return (a[0] + a[2]) + (a[1] + a[3]);
}

/* The largest lane of a vector without NaN. */
GO_INLINE float go_fold_max(go_f32x16 v) {
    float a[8];
    for (int i = 0; i < 8; i++) a[i] = v[i] > v[i + 8] ? v[i] : v[i + 8];
    for (int i = 0; i < 4; i++) a[i] = a[i] > a[i + 4] ? a[i] : a[i + 4];
    float x = a[0] > a[2] ? a[0] : a[2], y = a[1] > a[3] ? a[1] : a[3];
    return x > y ? x : y;
}

GO_INLINE int32_t go_sum_i32(go_i32x16 v) {
    int32_t a[8];
    for (int i = 0; i < 8; i++) a[i] = v[i] + v[i + 8];
    for (int i = 0; i < 4; i++) a[i] += a[i + 4];
    return (a[0] + a[2]) + (a[1] + a[3]);
}

GO_INLINE go_f32x16 go_to_f32(go_i32x16 v) { return __builtin_convertvector(v, go_f32x16); }

/* ---- f32 in memory ---------------------------------------------------- */

GO_INLINE go_f32x16 go_load(const float *p) { return *(const go_f32x16_mem *)p; }
GO_INLINE void go_store(float *p, go_f32x16 v) { *(go_f32x16_mem *)p = v; }
GO_INLINE go_i32x16 go_load_i32(const int32_t *p) { return *(const go_i32x16_mem *)p; }

/* The first n lanes, n < 16, of f32 or of halves of it; lanes beyond n are 0. With masks where
 * the CPU has them; but the address sanitizer sees copies only. */
#if defined(__AVX512VL__) && defined(__AVX512BW__) && !defined(__SANITIZE_ADDRESS__)
GO_INLINE __mmask16 go_first_lanes(size_t n) { return (__mmask16)((1u << n) - 1); }
GO_INLINE go_f32x16 go_load_few(const float *p, size_t n) {
    return (go_f32x16)_mm512_maskz_loadu_ps(go_first_lanes(n), p);
}
GO_INLINE void go_store_few(float *p, go_f32x16 v, size_t n) {
    _mm512_mask_storeu_ps(p, go_first_lanes(n), (__m512)v);
}
GO_INLINE go_u16x16 go_load_few_halves(const uint16_t *p, size_t n) {
    return (go_u16x16)_mm256_maskz_loadu_epi16(go_first_lanes(n), p);
}
GO_INLINE void go_store_few_halves(uint16_t *p, go_u16x16 v, size_t n) {
    _mm256_mask_storeu_epi16(p, go_first_lanes(n), (__m256i)v);
}
#else
GO_INLINE go_f32x16 go_load_few(const float *p, size_t n) {
    go_f32x16 v = {0};
    memcpy(&v, p, n * sizeof(float));
    return v;
}
GO_INLINE void go_store_few(float *p, go_f32x16 v, size_t n) { memcpy(p, &v, n * sizeof(float)); }
GO_INLINE go_u16x16 go_load_few_halves(const uint16_t *p, size_t n) {
    go_u16x16 v = {0};
    memcpy(&v, p, n * sizeof(uint16_t));
    return v;
}
GO_INLINE void go_store_few_halves(uint16_t *p, go_u16x16 v, size_t n) {
    memcpy(p, &v, n * sizeof(uint16_t));
}
#endif

/* The same for n <= 16. Touches no memory beyond n. */
GO_INLINE go_f32x16 go_load_n(const float *p, size_t n) {
    return n >= GO_LANES ? go_load(p) : go_load_few(p, n);
}
GO_INLINE void go_store_n(float *p, go_f32x16 v, size_t n) {
    if (n >= GO_LANES)
        go_store(p, v);
    else
        go_store_few(p, v, n);
}

/* ---- bf16 -------------------------------------------------------------- */

GO_INLINE go_f32x16 go_widen_bf16(go_u16x16 v) {
    return go_from_bits(__builtin_convertvector(v, go_u32x16) << 16);
}

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
/* BFCVTN keeps the payload of a NaN: as an unsigned number a negative one lies above
 * 0xffc0, as a signed number a positive one above 0x7fc0. */
GO_INLINE uint16x8_t go_narrow_bf16_8(float32x4_t lo, float32x4_t hi) {
    bfloat16x8_t h = vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(lo), hi);
    uint16x8_t u = vminq_u16(vreinterpretq_u16_bf16(h), vdupq_n_u16(0xffc0));
    return vreinterpretq_u16_s16(vminq_s16(vreinterpretq_s16_u16(u), vdupq_n_s16(0x7fc0)));
}
#endif

/* Round to nearest, ties to even; a NaN becomes the quiet NaN of its sign. */
GO_INLINE go_u16x16 go_narrow_bf16(go_f32x16 v) {
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    float32x4_t q[4];
    go_u16x16 r;
    memcpy(q, &v, sizeof q);
    uint16x8_t h[2] = {go_narrow_bf16_8(q[0], q[1]), go_narrow_bf16_8(q[2], q[3])};
    memcpy(&r, h, sizeof r);
    return r;
#else
    go_u32x16 u = go_bits(v);
    go_u32x16 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    go_u32x16 quiet = ((u >> 16) & 0x8000u) | 0x7fc0u;
    go_u32x16 nan = (go_u32x16)(v != v);
    return __builtin_convertvector((nan & quiet) | (~nan & rounded), go_u16x16);
#endif
}

/* The same for the result of an operation, which is never denormal; a NaN may keep its payload. */
GO_INLINE go_u16x16 go_narrow_any(go_f32x16 v) {
#if defined(__AVX512BF16__)
    const __m256bh h = _mm512_cvtneps_pbh((__m512)v);
    go_u16x16 r;
    memcpy(&r, &h, sizeof r);
    return r;
#else
    return go_narrow_bf16(v);
#endif
}

/* The same, and a NaN becomes the quiet NaN of its sign. */
GO_INLINE go_u16x16 go_narrow_result(go_f32x16 v) {
#if defined(__AVX512BF16__)
    const go_u32x16 quiet = (go_bits(v) & 0x80000000u) | 0x7fc00000u;
    v = go_select(v != v, go_from_bits(quiet), v);
#endif
    return go_narrow_any(v);
}

GO_INLINE float go_f32_from_bf16(uint16_t x) {
    uint32_t u = (uint32_t)x << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

GO_INLINE uint16_t go_bf16_from_f32(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if (x != x) return (uint16_t)(((u >> 16) & 0x8000u) | 0x7fc0u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

GO_INLINE go_f32x16 go_load_bf16(const uint16_t *p) {
    return go_widen_bf16(*(const go_u16x16_mem *)p);
}
GO_INLINE void go_store_bf16(uint16_t *p, go_f32x16 v) { *(go_u16x16_mem *)p = go_narrow_bf16(v); }
GO_INLINE go_f32x16 go_load_bf16_n(const uint16_t *p, size_t n) {
    return n >= GO_LANES ? go_load_bf16(p) : go_widen_bf16(go_load_few_halves(p, n));
}
GO_INLINE void go_store_narrow_n(uint16_t *p, go_u16x16 h, size_t n) {
    if (n >= GO_LANES)
        *(go_u16x16_mem *)p = h;
    else
        go_store_few_halves(p, h, n);
}

/* ---- rows of f32 or bf16, the type known at run time ------------------- */

/* Address of element i of an array of f32, bf16 or int8. */
GO_INLINE ptrdiff_t go_size_of(go_dtype t) { return t == GO_I8 ? 1 : t == GO_BF16 ? 2 : 4; }
GO_INLINE const void *go_at(const void *p, ptrdiff_t i, go_dtype t) {
    return (const char *)p + i * go_size_of(t);
}
GO_INLINE void *go_at_mut(void *p, ptrdiff_t i, go_dtype t) {
    return (char *)p + i * go_size_of(t);
}

/* n lanes (n <= 16) starting at element i, widened to f32. */
GO_INLINE go_f32x16 go_load_as(const void *p, ptrdiff_t i, go_dtype t, size_t n) {
    if (t == GO_BF16) return go_load_bf16_n((const uint16_t *)p + i, n);
    return go_load_n((const float *)p + i, n);
}
/* Stores the first n lanes of the result of an operation. */
GO_INLINE void go_store_as(void *p, ptrdiff_t i, go_dtype t, go_f32x16 v, size_t n) {
    if (t == GO_BF16)
        go_store_narrow_n((uint16_t *)p + i, go_narrow_result(v), n);
    else
        go_store_n((float *)p + i, v, n);
}

#endif
