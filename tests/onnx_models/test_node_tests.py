"""A part of the node tests of the onnx package; `make onnx-node` runs all of them."""

import re

import pytest

from tests.onnx_models.node_tests import cases, outcome

#: One or two of each rule, by its name in the onnx package.
NAMES = """
add_bcast and_bcast3v1d argmax_keepdims_example_select_last_index averagepool_2d_same_lower
averagepool_2d_pads_count_include_pad averagepool_2d_ceil basic_conv_with_padding
conv_with_autopad_same convinteger_with_padding convtranspose_group_2 batchnorm_epsilon
bitshift_left_uint8 cast_DOUBLE_to_FLOAT16 celu clip_default_int8_min concat_2d_axis_negative_1
constantofshape_int_zeros cumsum_1d_reverse_exclusive depthtospace_crd_mode_example
dequantizelinear_blocked dynamicquantizelinear_max_adjusted expand_dim_changed
eyelike_with_dtype gather_negative_indices gather_elements_negative_indices
gathernd_example_int32_batch_dim1 gelu_tanh_2 gemm_all_attributes globalaveragepool
gridsample_bilinear group_normalization_epsilon hardmax_one_hot hardsigmoid instancenorm_epsilon
isinf_negative l2normalization_axis_1 layer_normalization_3d_axis1_epsilon logsoftmax_axis_0 lrn
lstm_with_initial_bias simple_rnn_batchwise matmul_1d_3d matmulinteger max_int64 maxpool_2d_ceil
maxpool_with_argmax_2d_precomputed_pads mean_example mod_mixed_sign_int64 mvn
nllloss_NCd1d2_with_weight onehot_negative_indices constant_pad_axes reflect_pad wrap_pad
pow_types_float32_int64 prelu_broadcast qlinearconv qlinearmatmul_2D_uint8_float32
quantizelinear_axis reduce_l2_keep_dims_example reduce_log_sum_exp_default_axes_keepdims_example
reduce_prod_negative_axes_keepdims_example reduce_sum_empty_axes_input_noop_example
reshape_allowzero_reordered reshape_reordered_all_dims resize_downsample_sizes_cubic_antialias
resize_upsample_sizes_nearest_ceil_half_pixel resize_downsample_scales_linear_align_corners
reversesequence_time rms_normalization_2d_axis0 scatternd_add
scatter_elements_with_reduction_max selu shape_start_1_end_negative_1 shrink_soft
slice_neg_steps slice_end_out_of_bounds softmax_negative_axis softplus spacetodepth_example
split_2d_uneven_split_opset18 squeeze_negative_axes tile top_k_smallest
top_k_same_values_largest triu_zero tril_out_neg unsqueeze_unsorted_axes upsample_nearest
where_long_example xor_bcast4v2d attention_4d_gqa_with_past_and_present
""".split()  # noqa: SIM905  a list would be of a hundred lines
FOUND = {case.name: case for case in cases(f"^test_({'|'.join(map(re.escape, NAMES))})$")}


@pytest.mark.parametrize("name", NAMES)
def test_node(name: str) -> None:
    found = outcome(FOUND[f"test_{name}"])
    assert found.kind in ("right", "right with constants"), found.why
