/* bf16 GEMM on packed panels: what all ISA levels share. Sums are f32; the epilogue
 * is that of go_kernel.h. A level supplies the tile. Layouts: kernels/packing.py. */
#ifndef GO_GEMM_BF16_H
#define GO_GEMM_BF16_H

#include "gemm_driver.h"
#include "go_epilogue.h"
#include "layouts.h"

/* Operands of one tile: `rows` rows and `panels` panels of columns, `depth` (a multiple
 * of 8) values deep. */
typedef struct {
    const uint16_t *lhs; /* row r starts at r * depth (MR = 1); or one panel */
    const uint16_t *rhs;
    size_t rhs_stride; /* values from panel to panel */
    size_t rows, panels, depth;
} go_bf16_tile;

GO_INLINE go_bf16_tile go_bf16_tile_at(const go_gemm_args *args, size_t row, size_t rows,
                                       size_t col, size_t cols) {
    size_t depth = (args->k + 7) / 8 * 8;
    return (go_bf16_tile){
        .lhs = (const uint16_t *)args->lhs + row * depth,
        .rhs = (const uint16_t *)args->rhs + col * depth,
        .rhs_stride = GO_BF16_NR * depth,
        .rows = rows,
        .panels = go_ceil_div(cols, GO_BF16_NR),
        .depth = depth,
    };
}

/* Defines the kernel `symbol` from a function that computes and stores a column block of
 * a task, tile_m rows at a time. */
#define GO_GEMM_BF16_SWEEPS(symbol, tile_m, tile_n, sweep)                                   \
    void symbol(go_team *team, const go_gemm_args *args);                                    \
    void symbol(go_team *team, const go_gemm_args *args) {                                   \
        go_gemm_drive_sweeps(team, args, tile_m, tile_n, args->k * sizeof(uint16_t), sweep); \
    }

/* Defines the kernel `symbol` from float_tile(tile, sums, ld), which fills
 * sums[r * ld + c]. */
#define GO_GEMM_BF16(symbol, tile_m, tile_n, float_tile)                                      \
    static void finished_tile(const go_gemm_args *args, size_t row, size_t rows, size_t col,  \
                              size_t cols) {                                                  \
        go_bf16_tile t = go_bf16_tile_at(args, row, rows, col, cols);                         \
        float sums[(tile_m) * (tile_n)];                                                      \
        float_tile(&t, sums, tile_n);                                                         \
        go_epilogue_tile(args, row, rows, col, cols, sums, tile_n);                           \
    }                                                                                         \
    void symbol(go_team *team, const go_gemm_args *args);                                     \
    void symbol(go_team *team, const go_gemm_args *args) {                                    \
        go_gemm_drive(team, args, tile_m, tile_n, args->k * sizeof(uint16_t), finished_tile); \
    }

#endif
