// Tiny loops whose speed on Neoverse N2 follows by hand; check.py has the figures.
.text
.macro FUNC name
    .globl \name
    .type \name, %function
    .p2align 6
\name:
.endm
.macro END name
    subs x0, x0, #1
    b.ne 1b
    ret
    .size \name, . - \name
.endm

FUNC independent        // 16 accumulators: limited by the two vector pipes
1:  .irp r, 0,1,2,3,4,5,6,7,16,17,18,19,20,21,22,23
    smmla v\r\().4s, v30.16b, v31.16b
    .endr
END independent

FUNC accumulate         // one accumulator: limited by late forwarding of the addend (1 cycle)
1:  .rept 16
    smmla v0.4s, v30.16b, v31.16b
    .endr
END accumulate

FUNC dependent          // result feeds a multiplicand: limited by the full latency (3 cycles)
1:  .rept 16
    smmla v0.4s, v0.16b, v31.16b
    .endr
END dependent

FUNC fmla_chain         // one accumulator: addend forwarding of FMLA (2 cycles)
1:  .rept 16
    fmla v0.4s, v30.4s, v31.4s
    .endr
END fmla_chain

FUNC load1              // one load per SMMLA: three load pipes, so still limited by the vector pipes
1:  .irp r, 0,1,2,3,4,5,6,7,16,17,18,19,20,21,22,23
    ldr q31, [x1]
    smmla v\r\().4s, v30.16b, v31.16b
    .endr
END load1

FUNC load2              // two loads per SMMLA: 32 loads over three pipes
1:  .irp r, 0,1,2,3,4,5,6,7,16,17,18,19,20,21,22,23
    ldr q30, [x1]
    ldr q31, [x1, #16]
    smmla v\r\().4s, v30.16b, v31.16b
    .endr
END load2

FUNC convert            // SCVTF of four lanes: two micro-ops on one pipe
1:  .irp r, 0,1,2,3,4,5,6,7,16,17,18,19,20,21,22,23
    scvtf v\r\().4s, v31.4s
    .endr
END convert

FUNC rename             // plain adds: limited by five instructions per cycle (18 per iteration)
1:  .rept 8
    add x2, x3, #1
    nop
    .endr
END rename

    .globl _start
_start:
    adr x20, buffer
    .irp f, independent, accumulate, dependent, fmla_chain, load1, load2, convert, rename
    mov x0, #2000
    mov x1, x20
    bl \f
    .endr
    mov x0, #0
    mov x8, #93
    svc #0
    .p2align 4
buffer:
    .zero 64
    .section .note.GNU-stack,"",%progbits
