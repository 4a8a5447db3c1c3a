/* Scales of qs4b on Arm as floats. Of the eight of a block, those of columns 0 to 3 lie in the
 * lower halves of 32-bit words and those of 4 to 7 in the upper ones (kernels/packing.py). A
 * bf16 in an upper half is a float: SVE loads upper halves alone, from the block for columns 4
 * to 7 and from two bytes before it for 0 to 3, and needs no other operation. */
#ifndef GO_QS4B_SCALES_H
#define GO_QS4B_SCALES_H

#include <arm_neon.h>

#include "go_vec.h"

/* Columns 4 half .. 4 half + 3 of the block whose scales begin at `block`. */
#if defined(__ARM_FEATURE_SVE) && __has_include(<arm_neon_sve_bridge.h>)
#include <arm_neon_sve_bridge.h>

GO_INLINE float32x4_t go_qs4b_four_scales(const uint16_t *block, int half) {
    const svbool_t upper = svzip1_b16(svpfalse_b(), svptrue_pat_b16(SV_VL4));
    return svget_neonq_f32(svreinterpret_f32_u16(svld1_u16(upper, block + half - 1)));
}
#else
GO_INLINE float32x4_t go_qs4b_four_scales(const uint16_t *block, int half) {
    const uint16x8_t zero = vdupq_n_u16(0), bits = vld1q_u16(block);
    return vreinterpretq_f32_u16(half ? vtrn2q_u16(zero, bits) : vtrn1q_u16(zero, bits));
}
#endif

#endif
