/* One vector register of the target: what the inner loops of GEMMs hold in registers.
 * 16 f32 lanes with AVX-512, 8 with AVX, 4 otherwise. The 16-lane values of go_vec.h are
 * the better choice everywhere else; but gcc keeps a value wider than a register in
 * memory. */
#ifndef GO_REG_H
#define GO_REG_H

#include "go_vec.h"

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define GO_REG_LANES 16
#elif defined(__AVX__)
#define GO_REG_LANES 8
#else
#define GO_REG_LANES 4
#endif

enum { GO_REGS = GO_LANES / GO_REG_LANES }; /* registers for 16 columns */

typedef float go_reg __attribute__((vector_size(4 * GO_REG_LANES)));
typedef uint32_t go_reg_u32 __attribute__((vector_size(4 * GO_REG_LANES)));
typedef uint16_t go_reg_bf16_mem
    __attribute__((vector_size(2 * GO_REG_LANES), aligned(2), may_alias));
typedef float go_reg_mem __attribute__((vector_size(4 * GO_REG_LANES), aligned(4), may_alias));

GO_INLINE go_reg go_reg_zero(void) { return (go_reg){0}; }
GO_INLINE go_reg go_reg_load(const void *p) { return *(const go_reg_mem *)p; }
GO_INLINE void go_reg_store(float *p, go_reg v) { *(go_reg_mem *)p = v; }

GO_INLINE go_reg go_reg_splat(float x) {
#if GO_REG_LANES == 16
    return (go_reg)_mm512_set1_ps(x);
#elif GO_REG_LANES == 8
    return (go_reg)_mm256_set1_ps(x);
#else
    return (go_reg){x, x, x, x};
#endif
}

/* From f32 or bf16, which is widened. */
GO_INLINE go_reg go_reg_load_as(const void *p, go_dtype type) {
    if (type != GO_BF16) return go_reg_load(p);
    return (go_reg)(__builtin_convertvector(*(const go_reg_bf16_mem *)p, go_reg_u32) << 16);
}

/* The smaller of x and `most`; keeps NaN. */
GO_INLINE go_reg go_reg_at_most(go_reg x, go_reg most) {
    const go_reg_u32 above = (go_reg_u32)(x > most);
    return (go_reg)((above & (go_reg_u32)most) | (~above & (go_reg_u32)x));
}

/* 0 where x is below it; keeps NaN and -0. */
GO_INLINE go_reg go_reg_relu(go_reg x) {
    const go_reg_u32 negative = (go_reg_u32)(x < go_reg_zero());
    return (go_reg)((go_reg_u32)x & ~negative);
}

GO_INLINE go_reg go_reg_relu6(go_reg x) {
    return go_reg_at_most(go_reg_relu(x), go_reg_splat(6.0f));
}

/* a * b + c with one rounding. */
GO_INLINE go_reg go_reg_fma(go_reg a, go_reg b, go_reg c) {
#if defined(__AVX512F__)
    return (go_reg)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (go_reg)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (go_reg)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    for (int i = 0; i < GO_REG_LANES; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#endif
}

#endif
