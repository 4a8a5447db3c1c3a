/* Packed operands of GEMMs, as kernels/layouts.py has them for the architecture; all its levels
 * share them. MR rows of the left operand or NR columns of the right one make a panel, in which
 * KR values of each along k are adjacent. */
#ifndef GO_LAYOUTS_H
#define GO_LAYOUTS_H

#if defined(__aarch64__)
enum { GO_BF16_MR = 8, GO_BF16_NR = 8, GO_BF16_KR = 4 };
enum { GO_QA8_MR = 8, GO_QS8_NR = 8, GO_QA8_KR = 8, GO_BIASED = 0 };
#define GO_PACK_BF16 pack_bf16_8x4
#define GO_PACK_QA8R pack_qa8r_8x8
#else
enum { GO_BF16_MR = 1, GO_BF16_NR = 16, GO_BF16_KR = 2 };
enum { GO_QA8_MR = 1, GO_QS8_NR = 16, GO_QA8_KR = 4, GO_BIASED = 1 };
#define GO_PACK_BF16 pack_bf16_1x2
#define GO_PACK_QA8R pack_qa8r_1x4
#endif

enum {
    GO_F32_NR = 16,
    GO_QS8_TAIL = GO_BIASED ? 8 : 16, /* bytes behind the values of each column */
    /* Rows at whose multiples tasks begin: panels are halved, so that there are enough tasks
     * for many threads. */
    GO_BF16_ROWS = (GO_BF16_MR + 1) / 2,
    GO_QA8_ROWS = (GO_QA8_MR + 1) / 2,
};

#endif
