/* What compilers call in the prologue of a function with ZA of its own, and what the runtime
 * library of zig lacks. Weak: a library that has them may be linked as well. Both may change
 * only few registers (Arm, Procedure Call Standard, "SME support routines"). */
#ifndef GO_SME_RUNTIME_H
#define GO_SME_RUNTIME_H

/* Saves a ZA that a caller of this library still needs, if there is one: TPIDR2_EL0 then holds
 * the address of where it goes and of the number of its slices. */
__asm__(
    ".arch_extension sme\n"
    ".weak __arm_tpidr2_save\n"
    ".hidden __arm_tpidr2_save\n"
    ".type __arm_tpidr2_save, %function\n"
    "__arm_tpidr2_save:\n"
    "    mrs x14, TPIDR2_EL0\n"
    "    cbz x14, 2f\n"
    "    ldr x16, [x14]\n"
    "    ldrh w17, [x14, #8]\n"
    "    cbz x16, 2f\n"
    "    mov w15, wzr\n"
    "    b 1f\n"
    "0:  str za[w15, 0], [x16]\n"
    "    addsvl x16, x16, #1\n"
    "    add w15, w15, #1\n"
    "1:  cmp w15, w17\n"
    "    b.lo 0b\n"
    "2:  ret\n"
    ".size __arm_tpidr2_save, . - __arm_tpidr2_save\n");

/* The length of vectors before streaming mode, which only a debugger would like to know: 0
 * stands for a CPU without SVE. */
__asm__(
    ".weak __arm_get_current_vg\n"
    ".hidden __arm_get_current_vg\n"
    ".type __arm_get_current_vg, %function\n"
    "__arm_get_current_vg:\n"
    "    mov x0, xzr\n"
    "    ret\n"
    ".size __arm_get_current_vg, . - __arm_get_current_vg\n");

#endif
