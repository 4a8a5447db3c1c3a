"""The argument structs of include/go_kernel.h as ctypes.

Sizes and fields are those of the C structs. Pointer fields are ``c_void_p`` and start empty.
"""

from ctypes import Structure, c_float, c_int, c_size_t, c_ssize_t, c_void_p

F32, BF16 = 0, 1
ACTIVATIONS = (
    "none",
    "relu",
    "gelu_erf",
    "gelu_tanh",
    "silu",
    "sigmoid",
    "tanh",
    "relu6",
    "hardsigmoid",
    "hardswish",
    "leaky_relu",
)


class Epilogue(Structure):
    """go_epilogue."""

    _fields_ = (
        ("bias", c_void_p),
        ("activation", c_int),
        ("factor", c_void_p),
        ("factor_stride", c_ssize_t),
        ("factor_dtype", c_int),
        ("residual", c_void_p * 2),
        ("residual_stride", c_ssize_t * 2),
        ("residual_dtype", c_int * 2),
        ("last", c_int),
        ("slope", c_float),
    )


class GemmArgs(Structure):
    """go_gemm_args."""

    _fields_ = (
        ("m", c_size_t),
        ("n", c_size_t),
        ("k", c_size_t),
        ("group", c_size_t),
        ("lhs", c_void_p),
        ("lhs_stride", c_ssize_t),
        ("rhs", c_void_p),
        ("dst", c_void_p),
        ("dst_stride", c_ssize_t),
        ("dst_dtype", c_int),
        ("epilogue", Epilogue),
        ("packed", c_void_p),
    )


class PackLhsArgs(Structure):
    """go_pack_lhs_args."""

    _fields_ = (
        ("m", c_size_t),
        ("k", c_size_t),
        ("src", c_void_p),
        ("src_stride", c_ssize_t),
        ("src_dtype", c_int),
        ("dst", c_void_p),
        ("values", c_void_p),
        ("operands", c_void_p),
        ("scratch", c_void_p),
    )


#: What a convolution and the packing of its windows say of them.
_WINDOW = (
    ("in_h", c_size_t),
    ("in_w", c_size_t),
    ("out_h", c_size_t),
    ("out_w", c_size_t),
    ("kh", c_size_t),
    ("kw", c_size_t),
    ("stride_h", c_size_t),
    ("stride_w", c_size_t),
    ("dilation_h", c_size_t),
    ("dilation_w", c_size_t),
    ("pad_top", c_ssize_t),
    ("pad_left", c_ssize_t),
)


class Im2colArgs(Structure):
    """go_im2col_args."""

    _fields_ = (
        ("batch", c_size_t),
        ("channels", c_size_t),
        *_WINDOW,
        ("src", c_void_p),
        ("src_stride", c_ssize_t * 3),
        ("src_dtype", c_int),
        ("dst", c_void_p),
        ("scratch", c_void_p),
    )


class NormArgs(Structure):
    """go_norm_args."""

    _fields_ = (
        ("rows", c_size_t),
        ("cols", c_size_t),
        ("src", c_void_p),
        ("src_stride", c_ssize_t),
        ("src_dtype", c_int),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("eps", c_float),
        ("rms", c_int),
        ("dst", c_void_p),
        ("dst_stride", c_ssize_t),
        ("dst_dtype", c_int),
        ("packed", c_void_p),
    )


class SoftmaxArgs(Structure):
    """go_softmax_args."""

    _fields_ = (
        ("rows", c_size_t),
        ("cols", c_size_t),
        ("src", c_void_p),
        ("src_stride", c_ssize_t),
        ("src_dtype", c_int),
        ("log", c_int),
        ("dst", c_void_p),
        ("dst_stride", c_ssize_t),
        ("dst_dtype", c_int),
    )


class AttentionArgs(Structure):
    """go_attention_args."""

    _fields_ = (
        ("batch", c_size_t),
        ("heads", c_size_t),
        ("kv_heads", c_size_t),
        ("tq", c_size_t),
        ("tk", c_size_t),
        ("dim", c_size_t),
        ("dim_v", c_size_t),
        ("scale", c_float),
        ("causal", c_int),
        ("replaces", c_int),
        ("unseen_zero", c_int),
        ("dtype", c_int),
        ("q", c_void_p),
        ("k", c_void_p),
        ("v", c_void_p),
        ("q_stride", c_ssize_t * 3),
        ("k_stride", c_ssize_t * 3),
        ("v_stride", c_ssize_t * 3),
        ("past", c_void_p),
        ("start", c_void_p),
        ("k_scale", c_void_p),
        ("v_scale", c_void_p),
        ("scale_stride", c_ssize_t * 2),
        ("mask", c_void_p),
        ("mask_stride", c_ssize_t * 4),
        ("dst", c_void_p),
        ("dst_stride", c_ssize_t * 3),
        ("dst_dtype", c_int),
        ("scratch", c_void_p),
    )


class RopeArgs(Structure):
    """go_rope_args."""

    _fields_ = (
        ("batch", c_size_t),
        ("time", c_size_t),
        ("heads", c_size_t),
        ("kv_heads", c_size_t),
        ("dim", c_size_t),
        ("q", c_void_p),
        ("k", c_void_p),
        ("v", c_void_p),
        ("q_stride", c_ssize_t * 3),
        ("k_stride", c_ssize_t * 3),
        ("v_stride", c_ssize_t * 3),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("position", c_void_p),
        ("dst", c_void_p),
        ("dst_stride", c_ssize_t * 3),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("cache_stride", c_ssize_t * 3),
        ("key_scales", c_void_p),
        ("value_scales", c_void_p),
        ("scale_stride", c_ssize_t * 2),
        ("dst_dtype", c_int),
    )


class DepthwiseArgs(Structure):
    """go_depthwise_args."""

    _fields_ = (
        ("batch", c_size_t),
        ("t_in", c_size_t),
        ("t_out", c_size_t),
        ("channels", c_size_t),
        ("kernel", c_size_t),
        ("stride", c_size_t),
        ("dilation", c_size_t),
        ("pad_left", c_ssize_t),
        ("src", c_void_p),
        ("src_stride", c_ssize_t * 2),
        ("src_dtype", c_int),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("mask_in", c_void_p),
        ("mask_out", c_void_p),
        ("mask_in_stride", c_ssize_t * 2),
        ("mask_out_stride", c_ssize_t * 2),
        ("identity", c_int),
        ("activation", c_int),
        ("residual", c_void_p),
        ("residual_stride", c_ssize_t * 2),
        ("residual_dtype", c_int),
        ("dst", c_void_p),
        ("dst_stride", c_ssize_t * 2),
        ("dst_dtype", c_int),
    )


class ConvArgs(Structure):
    """go_conv_args."""

    _fields_ = (
        ("batch", c_size_t),
        ("groups", c_size_t),
        ("in_c", c_size_t),
        ("out_c", c_size_t),
        *_WINDOW,
        ("tile_rows", c_size_t),
        ("tile_cols", c_size_t),
        ("src", c_void_p),
        ("src_stride", c_ssize_t * 3),
        ("src_dtype", c_int),
        ("rhs", c_void_p),
        ("dst", c_void_p),
        ("dst_stride", c_ssize_t * 3),
        ("dst_dtype", c_int),
        ("epilogue", Epilogue),
        ("scratch", c_void_p),
    )


CELLS = ("lstm", "gru", "tanh", "relu")


class RecurrentArgs(Structure):
    """go_recurrent_args."""

    _fields_ = (
        ("batch", c_size_t),
        ("time", c_size_t),
        ("directions", c_size_t),
        ("hidden", c_size_t),
        ("width", c_size_t),
        ("cell_kind", c_int),
        ("gates", c_void_p),
        ("gates_stride", c_ssize_t * 2),
        ("weight", c_void_p),
        ("weight_bytes", c_size_t),
        ("bias", c_void_p),
        ("projection", c_void_p),
        ("projection_bytes", c_size_t),
        ("pack", c_void_p),
        ("product", c_void_p),
        ("state", c_void_p),
        ("cell", c_void_p),
        ("lengths", c_void_p),
        ("dst", c_void_p),
        ("dst_stride", c_ssize_t * 2),
        ("last_state", c_void_p),
        ("last_cell", c_void_p),
        ("scratch", c_void_p),
    )


CIF_RULES = ("integrate", "prefix")
CIF_COUNTS = ("floor", "round", "fires")


class CifArgs(Structure):
    """go_cif_args."""

    _fields_ = (
        ("batch", c_size_t),
        ("frames", c_size_t),
        ("channels", c_size_t),
        ("max_tokens", c_size_t),
        ("rule", c_int),
        ("count", c_int),
        ("threshold", c_float),
        ("hidden", c_void_p),
        ("hidden_stride", c_ssize_t * 2),
        ("alphas", c_void_p),
        ("alphas_stride", c_ssize_t * 2),
        ("dst", c_void_p),
        ("peaks", c_void_p),
        ("counts", c_void_p),
        ("tokens", c_void_p),
        ("scratch", c_void_p),
    )
