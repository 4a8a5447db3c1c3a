/* bf16 GEMM, widened to f32: 4 rows x 16 columns, 8 accumulators of one ymm register;
 * the widened pairs take the rest. */
#include "gemm_bf16_pairs.h"

GO_GEMM_BF16(GO_NAME(gemm_f32_bf16_bf16_4x16x2), GO_PAIRS_ROWS, GO_PAIRS_COLS, go_pairs_tile)
