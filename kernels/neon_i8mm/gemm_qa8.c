/* int8 GEMM with SMMLA: 8 rows x 8 columns, 16 accumulators of 2 x 2. */
#include "qa8_sweep.h"

GO_GEMM_QA8_SWEEPS(GO_NAME(gemm_f32_qa8r_qs8c_8x8x8), 8, 16, qa8_sweep)
