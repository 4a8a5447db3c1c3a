/* Exit status: bit 0, SMOPA is wrong; bit 1, a function with ZA of its own did not save that of
 * its caller. */
#include <arm_sme.h>
#include <string.h>

#include "sme_runtime.h"

enum { LONGEST = 256 }; /* bytes of a vector */

/* What a caller leaves where TPIDR2_EL0 points to. */
typedef struct {
    uint8_t *save;
    uint16_t slices;
    uint8_t reserved[6];
} za_owner;

__arm_new("za") __arm_locally_streaming static
    __attribute__((noinline)) void outer_product(const int8_t *n, const int8_t *m, int32_t *sums) {
    svzero_za();
    svmopa_za32_s8_m(3, svptrue_b8(), svptrue_b8(), svld1_s8(svptrue_b8(), n),
                     svld1_s8(svptrue_b8(), m));
    for (uint32_t r = 0; r < svcntw(); r++, sums += svcntw())
        svst1_hor_za32(3, r, svptrue_b32(), sums);
}

static void own_za(const uint8_t *values, const za_owner *owner) {
    __asm__ volatile("smstart za" ::: "memory");
    for (uint32_t r = 0; r < svcntsb(); r++, values += svcntsb()) {
        register uint32_t slice __asm__("w12") = r;
        __asm__ volatile("ldr za[%w0, 0], [%1]" ::"r"(slice), "r"(values) : "memory");
    }
    __asm__ volatile("msr TPIDR2_EL0, %0" ::"r"(owner) : "memory");
}

int main(void) {
    static uint8_t values[LONGEST * LONGEST], saved[LONGEST * LONGEST];
    static int8_t n[LONGEST], m[LONGEST];
    static int32_t sums[LONGEST * LONGEST / 16];
    const size_t side = svcntsw();
    for (int i = 0; i < LONGEST; i++) n[i] = (int8_t)(37 * i + 11), m[i] = (int8_t)(91 * i + 5);
    for (int i = 0; i < LONGEST * LONGEST; i++) values[i] = (uint8_t)(i % 251);
    const za_owner owner = {saved, (uint16_t)svcntsb(), {0}};
    own_za(values, &owner);
    outer_product(n, m, sums);
    int wrong = memcmp(values, saved, svcntsb() * svcntsb()) ? 2 : 0;
    for (size_t i = 0; i < side * side; i++) {
        int32_t sum = 0;
        for (size_t k = 0; k < 4; k++) sum += n[i / side * 4 + k] * m[i % side * 4 + k];
        if (sum != sums[i]) wrong |= 1;
    }
    return wrong;
}
