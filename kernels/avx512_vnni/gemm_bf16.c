/* bf16 GEMM: 12 rows x 32 columns, 24 accumulators of one zmm register; widened to f32,
 * or with VDPBF16PS where the level has it. */
#include "gemm_bf16_pairs.h"

GO_GEMM_BF16(GO_NAME(gemm_f32_bf16_bf16_12x32x2), GO_PAIRS_ROWS, GO_PAIRS_COLS, go_pairs_tile)
