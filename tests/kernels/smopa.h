/* SMOPA in other words: qemu before 8.2.2 computes a quarter of it (its issue 2083). */
#include <arm_sme.h>

#define svmopa_za32_s8_m(tile, pn, pm, n, m)                                        \
    do {                                                                            \
        const svint32_t quads = svreinterpret_s32_s8(n), none = svdup_n_s32(0);     \
        for (uint32_t row = 0; row < svcntw(); row++) {                             \
            const svint8_t quad = svreinterpret_s8_s32(svdup_lane_s32(quads, row)); \
            const svint32_t sums = svread_hor_za32_s32_m(none, pn, tile, row);      \
            svwrite_hor_za32_s32_m(tile, row, pm, svdot_s32(sums, quad, m));        \
        }                                                                           \
    } while (0)
