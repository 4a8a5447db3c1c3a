/* go_math64.h over arrays, as a kernel that the test host can run. */
#include "go_math64.h"
#include "go_team.h"

typedef struct {
    size_t n;
    int function;
    const double *src, *other;
    double *dst;
} math64_probe_args;

#define EACH(call)                                   \
    for (size_t i = 0; i < a->n; i++) {              \
        const double x = a->src[i], y = a->other[i]; \
        (void)y;                                     \
        a->dst[i] = call;                            \
    }                                                \
    break

void math64_probe(go_team *team, const math64_probe_args *a);

void math64_probe(go_team *team, const math64_probe_args *a) {
    if (go_next(team, 1) != 0) return;
    switch (a->function) {
        case 0:
            EACH(go_exp(x));
        case 1:
            EACH(go_exp2(x));
        case 2:
            EACH(go_expm1(x));
        case 3:
            EACH(go_log(x));
        case 4:
            EACH(go_log2(x));
        case 5:
            EACH(go_log10(x));
        case 6:
            EACH(go_log1p(x));
        case 7:
            EACH(go_atan(x));
        case 8:
            EACH(go_asin(x));
        case 9:
            EACH(go_acos(x));
        case 10:
            EACH(go_sinh(x));
        case 11:
            EACH(go_cosh(x));
        case 12:
            EACH(go_tanh(x));
        case 13:
            EACH(go_asinh(x));
        case 14:
            EACH(go_acosh(x));
        case 15:
            EACH(go_atanh(x));
        case 16:
            EACH(go_erf(x));
        case 17:
            EACH(go_erfc(x));
        case 18:
            EACH(go_sigmoid(x));
        case 19:
            EACH(go_silu(x));
        case 20:
            EACH(go_gelu_erf(x));
        case 21:
            EACH(go_gelu_tanh(x));
        case 22:
            EACH(go_rsqrt(x));
        case 23:
            EACH(go_pow(x, y));
        case 24:
            EACH(go_atan2(x, y));
    }
}
