/* int8 GEMM with SDOT: 8 rows x 8 columns, 16 accumulators of four columns. */
#include "dot_sweep.h"

GO_GEMM_DOT(GO_NAME(gemm_f32_qa8r_qs8c_8x8x8), DOT_QS8C)
