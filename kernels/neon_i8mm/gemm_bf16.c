/* bf16 GEMM with BFMMLA: 8 rows x 8 columns, 16 accumulators of 2 x 2. */
#include "bf16_sweep.h"

GO_GEMM_BF16_SWEEPS(GO_NAME(gemm_f32_bf16_bf16_8x8x4), 8, 16, bf16_sweep)
