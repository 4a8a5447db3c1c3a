/* int4 GEMM with SDOT: 8 rows x 8 columns with a scale per column, 8 x 4 with blocks. */
#include "dot_sweep.h"

GO_GEMM_DOT(GO_NAME(gemm_f32_qa8r_qs4c_8x8x16), DOT_QS4C)
GO_GEMM_DOT(GO_NAME(gemm_f32_qa8r_qs4b_8x8x16), DOT_QS4B)
