/* The sequences of each level. Operands and sums pass through an empty asm in every
 * step, so that no compiler can move a product out of the loop. */
#include "peak.h"

#include "go_vec.h"

enum { CHAINS = 12 };

/* A loop called `name` over sums of type `sum`; STEP(x) adds to x. */
#define PEAK_LOOP(name, sum, operand, first, a0, b0, STEP)                      \
    static void name(go_team *team, const go_peak_args *args) {                 \
        for (size_t task; (task = go_next(team, args->tasks)) < args->tasks;) { \
            sum x[CHAINS];                                                      \
            for (int i = 0; i < CHAINS; i++) x[i] = first;                      \
            operand a = a0, b = b0;                                             \
            for (size_t step = 0; step < args->steps; step++) {                 \
                GO_UNROLLED (i, CHAINS) {                                       \
                    KEEP(a);                                                    \
                    KEEP(b);                                                    \
                    x[i] = STEP(x[i]);                                          \
                    KEEP(x[i]);                                                 \
                }                                                               \
            }                                                                   \
        }                                                                       \
    }

#if defined(__AVX512VNNI__)
#include <immintrin.h>
#define KEEP(v) __asm__ volatile("" : "+v"(v))
#define FMA(x) _mm512_fmadd_ps(a, b, x)
#define DPBUSD(x) _mm512_dpbusd_epi32(x, a, b)
PEAK_LOOP(vfmadd, __m512, __m512, _mm512_set1_ps(1), _mm512_set1_ps(0.5f), _mm512_set1_ps(0.25f),
          FMA)
PEAK_LOOP(dpbusd, __m512i, __m512i, _mm512_setzero_si512(), _mm512_set1_epi8(3),
          _mm512_set1_epi8(2), DPBUSD)
#if defined(__AVX512BF16__)
#define DPBF16(x) _mm512_dpbf16_ps(x, (__m512bh)a, (__m512bh)b)
PEAK_LOOP(dpbf16, __m512, __m512i, _mm512_set1_ps(1), _mm512_set1_epi16(0x3F00),
          _mm512_set1_epi16(0x3E80), DPBF16)
#define BF16_PEAK {"peak_bf16_vdpbf16ps", dpbf16, CHAINS * 32}
#else
#define BF16_PEAK {"peak_bf16_vfmadd", vfmadd, CHAINS * 16}
#endif
const go_peak_loop go_peak_loops[] = {
    {"peak_f32_vfmadd", vfmadd, CHAINS * 16},
    BF16_PEAK,
    {"peak_int8_vpdpbusd", dpbusd, CHAINS * 64},
    {0, 0, 0},
};

#elif defined(__AVX2__)
#include <immintrin.h>
#define KEEP(v) __asm__ volatile("" : "+x"(v))
#define FMA(x) _mm256_fmadd_ps(a, b, x)
#define MADD(x) _mm256_add_epi32(x, _mm256_madd_epi16(a, b))
/* As in avx2/gemm_qa8.c: the sign of a moves to b; |a| serves many columns and is not counted. */
#define PAIRS _mm256_maddubs_epi16(a, _mm256_sign_epi8(b, a))
#define SIGN(x) _mm256_add_epi32(x, _mm256_madd_epi16(PAIRS, _mm256_set1_epi16(1)))
PEAK_LOOP(vfmadd, __m256, __m256, _mm256_set1_ps(1), _mm256_set1_ps(0.5f), _mm256_set1_ps(0.25f),
          FMA)
PEAK_LOOP(madd, __m256i, __m256i, _mm256_setzero_si256(), _mm256_set1_epi16(3),
          _mm256_set1_epi16(2), MADD)
PEAK_LOOP(sign, __m256i, __m256i, _mm256_setzero_si256(), _mm256_set1_epi8(3), _mm256_set1_epi8(2),
          SIGN)
const go_peak_loop go_peak_loops[] = {
    {"peak_f32_vfmadd", vfmadd, CHAINS * 8},
    {"peak_bf16_vfmadd", vfmadd, CHAINS * 8},
    {"peak_int8_vpmaddwd", madd, CHAINS * 16},
    {"peak_int8_vpsignb_vpmaddubsw", sign, CHAINS * 32},
    {0, 0, 0},
};

#elif defined(__ARM_FEATURE_MATMUL_INT8)
#include <arm_neon.h>
#define KEEP(v) __asm__ volatile("" : "+w"(v))
#define FMLA(x) vfmaq_f32(x, a, b)
#define SMMLA(x) vmmlaq_s32(x, a, b)
PEAK_LOOP(fmla, float32x4_t, float32x4_t, vdupq_n_f32(1), vdupq_n_f32(0.5f), vdupq_n_f32(0.25f),
          FMLA)
PEAK_LOOP(smmla, int8x16_t, int32x4_t, vdupq_n_s32(0), vdupq_n_s8(3), vdupq_n_s8(2), SMMLA)
#define BF(v) vreinterpretq_bf16_u16(v)
#define BFMMLA(x) vbfmmlaq_f32(x, BF(a), BF(b))
PEAK_LOOP(bfmmla, uint16x8_t, float32x4_t, vdupq_n_f32(1), vdupq_n_u16(0x3F00), vdupq_n_u16(0x3E80),
          BFMMLA)
const go_peak_loop go_peak_loops[] = {
    {"peak_f32_fmla", fmla, CHAINS * 4},
    {"peak_bf16_bfmmla", bfmmla, CHAINS * 16},
    {"peak_int8_smmla", smmla, CHAINS * 32},
    {0, 0, 0},
};

#else /* scalar levels have no instruction of their own to be measured by */
const go_peak_loop go_peak_loops[] = {{0, 0, 0}};
#endif

void go_peak_read(go_team *team, const go_read_args *args) {
    const size_t runs = args->bytes / GO_READ_RUN;
    for (size_t run; (run = go_next(team, runs)) < runs;) {
        const int32_t *at = (const int32_t *)((const char *)args->src + run * GO_READ_RUN);
        go_i32x16 sum[4] = {0};
        for (size_t i = 0; i < GO_READ_RUN / 4; i += 4 * GO_LANES)
            GO_UNROLLED (j, 4) sum[j] ^= go_load_i32(at + i + (size_t)j * GO_LANES);
        GO_UNROLLED (j, 4) __asm__ volatile("" ::"m"(sum[j]));
    }
}

void go_peak_count(go_team *team, const go_count_args *args) {
    if (go_next(team, 1)) return;
    size_t sum = 0, one = 1;
    for (size_t i = 0; i < args->additions / GO_COUNT_ROUND; i++)
        GO_UNROLLED (j, GO_COUNT_ROUND) {
            sum += one;
            __asm__ volatile("" : "+r"(sum), "+r"(one));
        }
}
