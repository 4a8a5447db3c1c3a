/* Quantizes rows into qa8r panels one after the other. */
#ifndef GO_QUANTIZE_GROUP_H
#define GO_QUANTIZE_GROUP_H

#include "quantize_row.h"

/* Rows of a loop, and rows that are best given at once. */
enum { GO_QUANTIZE_GROUP = 1, GO_QUANTIZE_AT_ONCE = 1 };

/* `count` rows of k values, `stride` values apart, to rows r .. of one panel. */
GO_INLINE void go_quantize_group(const void *src, ptrdiff_t stride, go_dtype dtype, size_t k,
                                 int8_t *panel, size_t r, size_t count) {
    for (size_t i = 0; i < count; i++)
        go_quantize_row(go_at(src, (ptrdiff_t)i * stride, dtype), dtype, k, panel, r + i);
}

#endif
