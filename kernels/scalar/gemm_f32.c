/* f32 GEMM in portable C. Without a fused multiply-add in the baseline x86-64 every
 * step is a call of fmaf: slow, but the same bits. */
#include "gemm_f32.h"

#if defined(__aarch64__)
GO_GEMM_F32(GO_NAME(gemm_f32_f32_f32_4x16x1), 4, 1)
#else
GO_GEMM_F32(GO_NAME(gemm_f32_f32_f32_1x16x1), 1, 1)
#endif
