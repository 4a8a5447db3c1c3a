/* go_split: rows of f32 or bf16, each followed by what int8 leaves of it.
 *
 *   dst[2 r]     = x
 *   dst[2 r + 1] = fma(-scale, q - zp, x)     q, zp, scale: as quantize_row.h packs x
 *
 * Both rows quantized and multiplied, the sum of the two results has the error of 16 bits.
 */
#include "quantize_row.h"

GO_INLINE void split_row(const void *src, go_dtype type, size_t k, float *dst) {
    go_range range = go_range_init();
    for (size_t j = 0; j < k; j += GO_LANES) {
        size_t n = k - j < GO_LANES ? k - j : GO_LANES;
        go_range_add(&range, go_load_as(src, (ptrdiff_t)j, type, n));
    }
    go_quantizer z = go_quantizer_of_range(&range);
    for (size_t j = 0; j < k; j += GO_LANES) {
        size_t n = k - j < GO_LANES ? k - j : GO_LANES;
        go_f32x16 x = go_load_as(src, (ptrdiff_t)j, type, n);
        go_f32x16 steps = go_to_f32(go_quantize16(&z, x) - go_splat_i32(z.zp));
        go_store_n(dst + j, x, n);
        go_store_n(dst + k + j, go_fma(-go_splat(z.scale), steps, x), n);
    }
}

void GO_NAME(split)(go_team *team, const go_pack_lhs_args *a);

void GO_NAME(split)(go_team *team, const go_pack_lhs_args *a) {
    for (size_t row; (row = go_next(team, a->m)) < a->m;) {
        const void *src = go_at(a->src, (ptrdiff_t)row * a->src_stride, a->src_dtype);
        float *dst = (float *)a->dst + 2 * row * a->k;
        if (a->src_dtype == GO_BF16)
            split_row(src, GO_BF16, a->k, dst);
        else
            split_row(src, GO_F32, a->k, dst);
    }
}
