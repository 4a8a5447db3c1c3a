/* f32 GEMM: 6 rows x 16 columns, 12 accumulators of one ymm register. */
#include "gemm_f32.h"

GO_GEMM_F32(GO_NAME(gemm_f32_f32_f32_6x16x1), 6, 1)
