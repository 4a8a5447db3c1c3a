/* f32 GEMM: 12 rows x 32 columns, 24 accumulators of one zmm register. */
#include "gemm_f32.h"

GO_GEMM_F32(GO_NAME(gemm_f32_f32_f32_12x32x1), 12, 2)
