/* Rows of f32 or bf16 into the packed bf16 left operand. */
#include "pack_bf16_panel.h"

GO_PACK_BF16(GO_NAME(pack_bf16_8x4))
