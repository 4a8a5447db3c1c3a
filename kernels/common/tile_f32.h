/* The f32 micro-kernel of gemm_f32.h at the tile that suits the instruction set,
 * for ops with a matrix product inside. */
#ifndef GO_TILE_F32_H
#define GO_TILE_F32_H

#include "gemm_f32.h"

#if defined(__AVX512F__)
enum { GO_TILE_ROWS = 12, GO_TILE_VECTORS = 2 };
#elif defined(__AVX2__) || defined(__aarch64__)
enum { GO_TILE_ROWS = 6, GO_TILE_VECTORS = 1 };
#else
enum { GO_TILE_ROWS = 1, GO_TILE_VECTORS = 1 };
#endif

/* The columns one call of go_tile_f32 may be given. */
enum { GO_TILE_COLS = GO_TILE_VECTORS * GO_LANES };

/* tile[r * ld + c] = sum_k a[r][k] b[k][c] for any number of rows and up to
 * GO_TILE_COLS columns, written in whole vectors: one chain of fused multiply-adds
 * in order of k, from 0; or, of go_more_tile_f32, from what is in the tile. */
static __attribute__((noinline, unused)) void go_tile_f32(const go_f32_operands *operands,
                                                          size_t rows, size_t cols, float *tile,
                                                          size_t ld) {
    if (cols > GO_LANES)
        go_f32_rows(GO_TILE_ROWS, GO_TILE_VECTORS, 0, operands, rows, tile, ld);
    else
        go_f32_rows(GO_TILE_ROWS, 1, 0, operands, rows, tile, ld);
}

static __attribute__((noinline, unused)) void go_more_tile_f32(const go_f32_operands *operands,
                                                               size_t rows, size_t cols,
                                                               float *tile, size_t ld) {
    if (cols > GO_LANES)
        go_f32_rows(GO_TILE_ROWS, GO_TILE_VECTORS, 1, operands, rows, tile, ld);
    else
        go_f32_rows(GO_TILE_ROWS, 1, 1, operands, rows, tile, ld);
}

#endif
