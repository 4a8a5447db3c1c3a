/* Rows of f32 or bf16 into the packed int8 left operand. */
#include "quantize_panel.h"

GO_QUANTIZE_ROWS(GO_NAME(pack_qa8r_8x8))
