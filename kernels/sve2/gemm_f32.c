/* f32 GEMM: 6 rows x 16 columns in the 24 accumulators of NEON; no wider than SVE on
 * cores with 128-bit vectors. */
#include "gemm_f32.h"

GO_GEMM_F32(go_gemm_f32_f32_f32_6x16x1_sve2, 6, 1)
