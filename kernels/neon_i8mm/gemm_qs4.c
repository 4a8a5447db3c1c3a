/* int4 GEMM with SMMLA: 8 rows x 8 columns with a scale per column, 8 x 4 with blocks, and
 * ways of their own for one row and for up to four. */
#include "qs4_gemv.h"
#include "qs4_sweep.h"

void GO_NAME(gemm_f32_qa8r_qs4c_8x8x16)(go_team *team, const go_gemm_args *args);
void GO_NAME(gemm_f32_qa8r_qs4c_8x8x16)(go_team *team, const go_gemm_args *args) {
    const go_qs4_layout w = go_qs4c_layout(args);
    if (qs4_is_gemv(args, &w))
        qs4_gemv(team, args, &w, 0);
    else
        go_gemm_drive_sweeps(team, args, 8, 16, w.depth + 16, qs4c_sweep);
}

void GO_NAME(gemm_f32_qa8r_qs4b_8x8x16)(go_team *team, const go_gemm_args *args);
void GO_NAME(gemm_f32_qa8r_qs4b_8x8x16)(go_team *team, const go_gemm_args *args) {
    const go_qs4_layout w = go_qs4b_layout(args);
    if (qs4_is_gemv(args, &w))
        qs4_gemv(team, args, &w, 1);
    else
        go_gemm_drive_sweeps(team, args, 8, 16, w.depth + 16, qs4b_sweep);
}
