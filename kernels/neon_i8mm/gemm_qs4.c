/* int4 GEMM with SMMLA: 8 rows x 8 columns with a scale per column, 8 x 4 with blocks. */
#include "qs4_sweep.h"

void GO_NAME(gemm_f32_qa8r_qs4c_8x8x16)(go_team *team, const go_gemm_args *args);
void GO_NAME(gemm_f32_qa8r_qs4c_8x8x16)(go_team *team, const go_gemm_args *args) {
    go_gemm_drive_sweeps(team, args, 8, 16, go_qa8_depth(args->k) + 16, qs4c_sweep);
}

void GO_NAME(gemm_f32_qa8r_qs4b_8x8x16)(go_team *team, const go_gemm_args *args);
void GO_NAME(gemm_f32_qa8r_qs4b_8x8x16)(go_team *team, const go_gemm_args *args) {
    go_gemm_drive_sweeps(team, args, 8, 16, args->k + 16, qs4b_sweep);
}
