/* Rows of f32 or bf16 into the packed int8 left operand. NEON serves vectors of 128 bits best. */
#include "../neon_i8mm/quantize_panel.h"

GO_QUANTIZE_ROWS(go_pack_qa8r_8x8_sve2)
