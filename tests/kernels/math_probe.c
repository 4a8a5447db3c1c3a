/* go_math.h over arrays, as a kernel that the test host can run. */
#include "go_math.h"
#include "go_team.h"

typedef struct {
    size_t n; /* a multiple of 16 */
    int function;
    const float *src;
    float *dst;
} math_probe_args;

#define EACH_16(name)                                            \
    for (size_t i = 0; i < a->n; i += 16) {                      \
        float lane[16];                                          \
        memcpy(lane, a->src + i, sizeof lane);                   \
        for (size_t j = 0; j < 16; j++) lane[j] = name(lane[j]); \
        memcpy(a->dst + i, lane, sizeof lane);                   \
    }                                                            \
    break

void math_probe(go_team *team, const math_probe_args *a);

void math_probe(go_team *team, const math_probe_args *a) {
    if (go_next(team, 1) != 0) return;
    switch (a->function) {
        case 0:
            EACH_16(go_expf);
        case 1:
            EACH_16(go_logf);
        case 2:
            EACH_16(go_erff);
        case 3:
            EACH_16(go_tanhf);
        case 4:
            EACH_16(go_sigmoidf);
        case 5:
            EACH_16(go_siluf);
        case 6:
            EACH_16(go_gelu_erff);
        case 7:
            EACH_16(go_gelu_tanhf);
        case 8:
            EACH_16(go_sinf);
        case 9:
            EACH_16(go_cosf);
        case 10:
            EACH_16(go_rsqrtf);
        case 11:
            EACH_16(go_exp_negativef);
        case 12:
            EACH_16(go_exp_weightf);
        case 13:
            EACH_16(go_tanf);
    }
}
