/* Rows of f32 or bf16 into the packed bf16 left operand. NEON serves vectors of 128 bits best. */
#include "../neon_i8mm/pack_bf16_panel.h"

GO_PACK_BF16(go_pack_bf16_8x4_sve2)
