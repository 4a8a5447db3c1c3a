/* The functions of go_math.h on 16 lanes. Clang turns each loop into vector
 * code, with the same bits as 16 calls. */
#ifndef GO_VEC_MATH_H
#define GO_VEC_MATH_H

#include "go_math.h"
#include "go_vec.h"

#define GO_LANEWISE(name, function)                                     \
    GO_INLINE go_f32x16 name(go_f32x16 x) {                             \
        float lane[GO_LANES];                                           \
        go_store(lane, x);                                              \
        for (int i = 0; i < GO_LANES; i++) lane[i] = function(lane[i]); \
        return go_load(lane);                                           \
    }

GO_LANEWISE(go_exp_lanes, go_expf)
GO_LANEWISE(go_exp_negative_lanes, go_exp_negativef)
GO_LANEWISE(go_exp_weight_lanes, go_exp_weightf)

/* Lane numbers 0 .. 15. */
GO_INLINE go_i32x16 go_lane_numbers(void) {
    return (go_i32x16){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
}

/* v with the lanes from n on replaced by `fill`. */
GO_INLINE go_f32x16 go_keep_lanes(go_f32x16 v, size_t n, float fill) {
    go_i32x16 kept = go_lane_numbers() < go_splat_i32((int32_t)n);
    return go_select(kept, v, go_splat(fill));
}

#endif
