"""Models that onnxruntime's tools quantized: as they say, and by kernels of whole numbers."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

ort = pytest.importorskip("onnxruntime")

from onnxruntime import quantization as tools  # noqa: E402
from onnxruntime.quantization.matmul_nbits_quantizer import (  # noqa: E402
    DefaultWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)

import graphopt  # noqa: E402
from graphopt.compiler.pipeline import PassManager, lowering_passes, precision_passes  # noqa: E402
from graphopt.config import Config  # noqa: E402
from graphopt.errors import OptionError  # noqa: E402
from graphopt.ir import Graph  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.ir.ops import Linear  # noqa: E402
from graphopt.onnx.files import open_model  # noqa: E402
from graphopt.onnx.importer import compiled_graph  # noqa: E402
from graphopt.testing import FP32_RELATIVE, relative_error  # noqa: E402
from tests.onnx_models.made import model  # noqa: E402

RNG = np.random.default_rng(0)
U8, S8 = tools.QuantType.QUInt8, tools.QuantType.QInt8
QDQ, QOPERATOR = tools.QuantFormat.QDQ, tools.QuantFormat.QOperator
DENSE = """m (float[B, T, 64] x) => (float[B, T, 40] y) {
    h = MatMul(x, w1)
    k = Add(h, b1)
    r = Relu(k)
    g = MatMul(r, w2)
    y = Add(g, b2)
}"""
IMAGES = """m (float[B, 8, 12, 12] x) => (float[B, 20] y) {
    h = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    r = Relu(h)
    g = Conv <strides = [2, 2]> (r, w2, b2)
    p = GlobalAveragePool(g)
    f = Flatten(p)
    y = Gemm <transB = 1> (f, w3, b3)
}"""


def weights(*shape: int) -> Any:
    """Not in the middle of their range, so that zero points are not in that of theirs."""
    return (RNG.standard_normal(shape) * 0.1 + 0.01).astype(np.float32)


MODELS = {
    "dense": (
        model(DENSE, 17, w1=weights(64, 96), b1=weights(96), w2=weights(96, 40), b2=weights(40)),
        RNG.standard_normal((2, 7, 64), np.float32),
    ),
    "images": (
        model(
            IMAGES,
            17,
            w1=weights(24, 8, 3, 3),
            b1=weights(24),
            w2=weights(32, 24, 3, 3),
            b2=weights(32),
            w3=weights(20, 32),
            b3=weights(20),
        ),
        RNG.standard_normal((2, 8, 12, 12), np.float32),
    ),
}


class Examples(tools.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x: Any) -> None:
        self._left = [{"x": x * 1.1}, {"x": x}]

    def get_next(self) -> Any:
        return self._left.pop() if self._left else None


def quantized(folder: Path, name: str, how: str, weight: Any, per_channel: bool) -> Path:
    made, x = MODELS[name]
    source, path = folder / "m.onnx", folder / "quantized.onnx"
    onnx.save(made, source)
    given = {"per_channel": per_channel, "weight_type": weight}
    logging.disable(logging.WARNING)
    try:
        if how == "dynamic":
            tools.quantize_dynamic(source, path, **given)
        else:
            form, activation = (QDQ if "qdq" in how else QOPERATOR), (S8 if "s8" in how else U8)
            given |= {"quant_format": form, "activation_type": activation}
            tools.quantize_static(source, path, Examples(x), **given)
    finally:
        logging.disable(logging.NOTSET)
    return path


def in_onnxruntime(source: Any, x: Any) -> Any:
    session = ort.InferenceSession(source, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def planned(path: Path, precision: str) -> Graph:
    graph = compiled_graph(open_model(path), exact=precision == "fp32").graph
    return PassManager(Config()).run(graph, [*lowering_passes(), *precision_passes(precision)])


def formats(graph: Graph) -> Counter[str]:
    return Counter(str(n.op.format) for n in graph.nodes if isinstance(n.op, Linear))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("weight", [U8, S8])
@pytest.mark.parametrize("how", ["dynamic", "qdq", "qdq s8", "operators", "operators s8"])
@pytest.mark.parametrize("name", list(MODELS))
def test_quantized_models_are_right(
    tmp_path: Path, name: str, how: str, weight: Any, per_channel: bool
) -> None:
    """As onnxruntime where every number counts; elsewhere no farther from the floats than it is."""
    if "s8" in how and weight is U8:
        pytest.skip("onnxruntime has no products of s8 and u8")
    path = quantized(tmp_path, name, how, weight, per_channel)
    made, x = MODELS[name]
    floats, wanted = in_onnxruntime(made.SerializeToString(), x), in_onnxruntime(path, x)
    (y,) = run_graph(planned(path, "fp32"), [x])
    step = 0.0 if how == "dynamic" else 1 / 255  # of the result, where a float ties
    assert relative_error(np.asarray(y), wanted) < FP32_RELATIVE + step
    graph = planned(path, "int8")
    (y,) = run_graph(graph, [x])
    lost = relative_error(wanted, floats)
    assert relative_error(np.asarray(y), floats) < 1.5 * lost + 0.002
    assert formats(graph) == {"int8": 2 if name == "dense" else 3}


@pytest.mark.parametrize("weight", [U8, S8])
def test_weights_are_those_of_the_file(tmp_path: Path, weight: Any) -> None:
    path = quantized(tmp_path, "dense", "dynamic", weight, per_channel=True)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    graph = planned(path, "int8")
    linears = [n for n in graph.nodes if isinstance(n.op, Linear)]
    for node, name in zip(linears, ("w1", "w2"), strict=True):
        numbers, zero = stored[f"{name}_quantized"], stored[f"{name}_zero_point"]
        held = node.operands["weight"].data
        assert held is not None and held.dtype == np.int8
        shift = numbers.T.astype(int) - held
        per_row = shift[:, :1]
        assert (shift == per_row).all()
        assert set(per_row.reshape(-1)) <= {0, 128, *zero.reshape(-1).astype(int).tolist()}
        scale = node.operands["scale"].data
        assert np.array_equal(scale, stored[f"{name}_scale"])


@pytest.mark.parametrize("form", [QDQ, QOPERATOR])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("block", [16, 32])
def test_weights_of_4_bits_in_blocks(
    tmp_path: Path, block: int, symmetric: bool, form: Any
) -> None:
    made, x = MODELS["dense"]
    config = DefaultWeightOnlyQuantConfig(
        block_size=block, is_symmetric=symmetric, quant_format=form
    )
    quantizer = MatMulNBitsQuantizer(onnx.ModelProto.FromString(made.SerializeToString()),
                                     algo_config=config)  # fmt: skip
    quantizer.process()
    onnx.save(quantizer.model.model, path := tmp_path / "m.onnx")
    wanted = in_onnxruntime(path, x)
    (y,) = run_graph(planned(path, "fp32"), [x])
    eight_bits = 0.0 if form is QOPERATOR else 1e-2  # onnxruntime rounds what it multiplies by
    assert relative_error(np.asarray(y), wanted) < FP32_RELATIVE + eight_bits
    graph = planned(path, "int8")
    (y,) = run_graph(graph, [x])
    assert relative_error(np.asarray(y), wanted) < 1e-2 + eight_bits
    kind = "int4" if block == 32 else "f32"  # kernels take blocks of 32
    assert formats(graph)[kind] >= 2


def test_compiled_code_gives_the_same(tmp_path: Path) -> None:
    """Of u8 weights with zero points, and of 4 bits in blocks with theirs."""
    numbers = RNG.integers(0, 256, (64, 32), np.uint8)
    packed = RNG.integers(0, 256, (24, 1, 16), np.uint8)
    made = model(
        """m (float[B, T, 64] x) => (float[B, T, 24] y) {
            q, s, z = DynamicQuantizeLinear(x)
            i = MatMulInteger(q, w, z, zw)
            f = Cast <to = 1> (i)
            r = Mul(s, sw)
            h = Mul(f, r)
            b = Add(h, bias)
            g = Relu(b)
            y = com.microsoft.MatMulNBits <K = 32, N = 24, bits = 4, block_size = 32>
                (g, p, sp, zp)
        }""",
        w=numbers,
        zw=RNG.integers(100, 150, 32, np.uint8),
        sw=RNG.uniform(0.01, 0.02, 32).astype(np.float32),
        bias=weights(32),
        p=packed,
        sp=RNG.uniform(0.01, 0.02, 24).astype(np.float32),
        zp=np.full(24, 7, np.uint8),
    )
    onnx.save(made, path := tmp_path / "m.onnx")
    x = RNG.standard_normal((2, 5, 64), np.float32)
    fast = graphopt.optimize(path, precision="int8", example_inputs=(x,))
    assert "example: as onnxruntime" in fast.report().title
    y = fast(x)
    assert relative_error(y, fast.interpret(x)) < FP32_RELATIVE
    same = graphopt.optimize(path, example_inputs=(x,), faithful=True)
    assert relative_error(same(x), in_onnxruntime(path, x)) < FP32_RELATIVE
    with pytest.raises(OptionError, match="not in int8"):
        graphopt.optimize(path, precision="int8", faithful=True)
