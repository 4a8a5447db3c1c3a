"""Models of one or a few ONNX nodes, run by onnxruntime and OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphopt.bench.kernels.workloads import Array, Operands, Workload
from graphopt.dependencies import require
from graphopt.kernels.reference import f32_from_bf16, quantize_blocks_int4, quantize_channels

Call = Callable[[], Array]
_OPSET = 17
_MICROSOFT = "com.microsoft"


def _node(op: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> Any:
    helper = require("onnx", "the benchmark").helper
    return helper.make_node(op, list(inputs), [output], domain=domain, **attributes)


def _model(
    nodes: Sequence[Any], inputs: Mapping[str, Array], constants: Mapping[str, Array], kind: str
) -> bytes:
    """A model whose last node gives its output, of the ONNX type ``kind``."""
    onnx = require("onnx", "the benchmark")
    helper, types = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        list(nodes),
        "kernel",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in inputs.items()
        ],
        [helper.make_tensor_value_info(nodes[-1].output[0], getattr(types, kind), None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def _session(
    nodes: Sequence[Any],
    inputs: Mapping[str, Array],
    constants: Mapping[str, Array],
    threads: int,
    kind: str = "FLOAT",
) -> Call:
    """A call of onnxruntime on bound inputs; its threads stop spinning when it ends."""
    ort = require("onnxruntime", "the benchmark")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    session = ort.InferenceSession(
        _model(nodes, inputs, constants, kind), options, providers=["CPUExecutionProvider"]
    )
    names, feeds = [nodes[-1].output[0]], dict(inputs)

    def call() -> Array:
        result: Array = session.run(names, feeds)[0]
        return result

    return call


def integer_operands(work: Operands) -> tuple[Array, Array, Array]:
    """A as uint8 [m, k] of one scale, its zero point, and B as int8 [k, n]."""
    x = work.data["x"]
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / 255
    zero = np.uint8(np.rint(-low / scale))
    a = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)
    return a, np.array(zero), np.ascontiguousarray(quantize_channels(work.data["w"]).q.T)


def integer_product(work: Workload) -> Array:
    """The exact product of :func:`integer_operands`, float64 [m, n]."""
    a, zero, b = integer_operands(work.operands)
    return (a.astype(np.float64) - float(zero)) @ b.astype(np.float64)


def matmul_integer(work: Operands, threads: int) -> Call:
    """MatMulInteger alone: operands already int8."""
    a, zero, b = integer_operands(work)
    node = _node("MatMulInteger", ("a", "b", "zero"), "y")
    return _session([node], {"a": a}, {"b": b, "zero": zero}, threads, "INT32")


def dynamic_matmul(work: Operands, threads: int) -> Call:
    """DynamicQuantizeLinear, MatMulInteger and scales, as ``quantize_dynamic`` writes them."""
    onnx = require("onnx", "the benchmark")
    weights = quantize_channels(work.data["w"])
    helper = onnx.helper
    quantize = helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "scale", "zero"])
    nodes = [
        quantize,
        _node("MatMulInteger", ("a", "b", "zero"), "sums"),
        _node("Cast", ("sums",), "floats", to=onnx.TensorProto.FLOAT),
        _node("Mul", ("scale", "scales"), "both"),
        _node("Mul", ("floats", "both"), "y"),
    ]
    constants = {"b": np.ascontiguousarray(weights.q.T), "scales": weights.scale}
    return _session(nodes, {"x": work.data["x"]}, constants, threads)


def matmul_nbits(work: Operands, threads: int) -> Call:
    """MatMulNBits on the int4 blocks of our own quantization, A quantized to int8 at run time."""
    group, k = work.label.group, work.label.k
    assert group is not None, "only blocks"
    weights = quantize_blocks_int4(work.data["w"], group)
    nibbles = (weights.q + 8).astype(np.uint8)
    pairs = nibbles[:, 0::2] | nibbles[:, 1::2] << np.uint8(4)
    constants = {
        "b": np.ascontiguousarray(pairs.reshape(len(pairs), k // group, group // 2)),
        "scales": f32_from_bf16(weights.scale),
    }
    options = {"K": k, "N": work.label.n, "bits": 4, "block_size": group, "accuracy_level": 4}
    node = _node("MatMulNBits", ("x", "b", "scales"), "y", _MICROSOFT, **options)
    return _session([node], {"x": work.data["x"]}, constants, threads)


def matmul(work: Operands, threads: int) -> Call:
    """MatMul in f32."""
    b = np.ascontiguousarray(work.data["w"].T)
    return _session([_node("MatMul", "xb", "y")], {"x": work.data["x"]}, {"b": b}, threads)


def openvino_matmul(work: Operands, threads: int) -> Call:
    """The same model in OpenVINO, kept in f32."""
    openvino = require("openvino", "the benchmark")
    x, b = work.data["x"], np.ascontiguousarray(work.data["w"].T)
    core = openvino.Core()
    model = core.read_model(_model([_node("MatMul", "xb", "y")], {"x": x}, {"b": b}, "FLOAT"))
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

    def call() -> Array:
        request.infer()
        result: Array = request.get_output_tensor().data
        return result

    return call


def layer_norm(work: Operands, threads: int) -> Call:
    """LayerNormalization."""
    node = _node("LayerNormalization", ("x", "weight", "bias"), "y", axis=-1, epsilon=1e-5)
    constants = {name: work.data[name] for name in ("weight", "bias")}
    return _session([node], {"x": work.data["x"]}, constants, threads)


def depthwise(work: Operands, threads: int) -> Call:
    """Conv with a group for each channel, [1, channels, time]."""
    x = work.data["x"].T.copy()[None]
    w = work.data["w"].T.copy()[:, None]
    pad = w.shape[2] // 2
    node = _node("Conv", ("x", "w"), "y", group=x.shape[1], pads=[pad, pad])
    return _session([node], {"x": x}, {"w": w}, threads)


def attention(work: Operands, threads: int) -> Call:
    """com.microsoft MultiHeadAttention, [1, time, heads * dim]."""
    inputs = {name: work.data[name].reshape(1, work.label.m, -1) for name in "qkv"}
    heads = work.data["q"].shape[1]
    node = _node("MultiHeadAttention", "qkv", "y", _MICROSOFT, num_heads=heads)
    return _session([node], inputs, {}, threads)
