"""A decoder as onnxruntime runs it best: MatMulNBits, GroupQueryAttention, fused norms.

The graph is what onnxruntime's own tools make of a Llama-class model: int4 blocks of 32 multiplied
with activations that are quantized at run time (`accuracy_level` 4), query, key and value in one
product, rotary embedding inside attention, keys and values in a buffer that attention writes to,
head and embedding in int8 blocks of 32. Logits are those of the last token.

    tokens i64 [1, T]   total i32 [1] (tokens with these)   seen i32 [1] (one less)
    past_key_<n>, past_value_<n> f32 [1, kv heads, rows, head size]
        -> logits f32 [1, vocabulary], present_key_<n>, present_value_<n> (the same buffers)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.dependencies import require
from graphopt.errors import BenchmarkError
from graphopt.kernels.reference import f32_from_bf16, quantize_blocks_int4
from graphopt.llm.decoder.graph import DecoderGraph, DecoderWeights, LayerWeights
from graphopt.llm.decoder.matrices import BlockMatrix, Matrix, dense

Array = np.ndarray[Any, Any]

_OPSET, _IR = 21, 10
_MICROSOFT = "com.microsoft"
_BLOCK = 32
_INT8_LEVEL = 4  # of MatMulNBits: activations in int8


def write_onnx(weights: DecoderWeights, out: Path) -> None:
    """Writes `out` and, beside it, its weights.

    Args:
        weights: of a decoder. Blocks of int4 are taken as they are; other matrices, and blocks that
            add something (GGUF's Q4_1), are rounded to blocks of 32 first.
        out: the file to make.

    Raises:
        BenchmarkError: for a decoder whose layers are not those of Llama.
        MissingDependencyError: without onnx.
    """
    onnx = require("onnx", "onnxruntime's graph")
    if weights.graph_class is not DecoderGraph:
        raise BenchmarkError(f"{weights.name} has other layers than GroupQueryAttention's")
    built = _OnnxDecoder(weights)
    model = onnx.helper.make_model(
        built.graph(),
        opset_imports=[
            onnx.helper.make_opsetid("", _OPSET),
            onnx.helper.make_opsetid(_MICROSOFT, 1),
        ],
        ir_version=_IR,
    )
    onnx.save_model(
        model,
        str(out),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{out.name}.weights",
    )


class _OnnxDecoder:
    """Nodes and constants of one decoder."""

    def __init__(self, weights: DecoderWeights) -> None:
        self._onnx = require("onnx", "onnxruntime's graph")
        self._weights = weights
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._ports: list[Any] = []

    def graph(self) -> Any:
        """The whole decoder."""
        w, types = self._weights, self._onnx.TensorProto
        inputs = [
            self._port("tokens", types.INT64, (1, "T")),
            self._port("seen", types.INT32, (1,)),
            self._port("total", types.INT32, (1,)),
        ]
        self._angles()
        stream, change = self._embedding(), ""
        for number, layer in enumerate(w.layers):
            stream, change = self._layer(number, layer, stream, change)
        normed, _ = self._norm("norm", stream, change, w.norm)
        self._constant("last", np.array([-1]))
        token = self._node("Gather", [normed, "last"], "last_token", axis=1)
        self._constant("flat", np.array([1, w.shape.hidden]))
        row = self._node("Reshape", [token, "flat"], "last_row")
        quantized = _int8_blocks(w.head)
        logits = self._product("logits", row, *quantized, bits=8)
        output = self._port(logits, types.FLOAT, (1, w.shape.vocabulary))
        pasts = [p for name, p in self._ports if name.startswith("past")]
        presents = [p for name, p in self._ports if name.startswith("present")]
        return self._onnx.helper.make_graph(
            self._nodes, w.name, [*inputs, *pasts], [output, *presents], self._constants
        )

    def _angles(self) -> None:
        shape = self._weights.shape
        radians = np.arange(shape.context)[:, None] * self._weights.frequencies
        for name, turned in (("cos", np.cos(radians)), ("sin", np.sin(radians))):
            self._constant(name, (turned * self._weights.attention_factor).astype(np.float32))

    def _embedding(self) -> str:
        q, scale = _int8_blocks(self._weights.embedding)
        names = [self._constant("embedding.q", q.reshape(len(q), -1)), "tokens"]
        names.append(self._constant("embedding.scale", scale))
        names.append(self._constant("embedding.zero", np.full(scale.shape, 128, np.uint8)))
        options = {"gather_axis": 0, "quantize_axis": 1, "block_size": _BLOCK, "bits": 8}
        return self._node("GatherBlockQuantized", names, "embedded", _MICROSOFT, **options)

    def _layer(self, number: int, layer: LayerWeights, stream: str, change: str) -> tuple[str, str]:
        """The residual stream without the layer's last product, and that product."""
        where = f"layers.{number}"
        normed, stream = self._norm(f"{where}.attention_norm", stream, change, layer.attention_norm)
        qkv = self._matrix(f"{where}.qkv", normed, layer.qkv)
        if layer.qkv_bias is not None:
            bias = self._constant(f"{where}.qkv_bias", layer.qkv_bias)
            qkv = self._node("Add", [qkv, bias], f"{where}.biased")
        seen = self._attention(number, qkv)
        change = self._matrix(f"{where}.output", seen, layer.output)
        name = f"{where}.feed_forward_norm"
        normed, stream = self._norm(name, stream, change, layer.feed_forward_norm)
        both = self._matrix(f"{where}.gate_up", normed, layer.gate_up)
        gate, up = f"{where}.gate", f"{where}.up"
        split = {"axis": -1, "num_outputs": 2}
        self._nodes.append(self._onnx.helper.make_node("Split", [both], [gate, up], **split))
        active = self._node("QuickGelu", [gate], f"{where}.silu", _MICROSOFT, alpha=1.0)
        gated = self._node("Mul", [active, up], f"{where}.gated")
        return stream, self._matrix(f"{where}.down", gated, layer.down)

    def _attention(self, number: int, qkv: str) -> str:
        shape, types = self._weights.shape, self._onnx.TensorProto
        rows = (1, shape.kv_heads, "S", shape.head_dim)
        ports = [f"{t}_{part}_{number}" for t in ("past", "present") for part in ("key", "value")]
        self._ports += [(name, self._port(name, types.FLOAT, rows)) for name in ports]
        seen = f"layers.{number}.seen"
        self._nodes.append(
            self._onnx.helper.make_node(
                "GroupQueryAttention",
                [qkv, "", "", *ports[:2], "seen", "total", "cos", "sin"],
                [seen, *ports[2:]],
                domain=_MICROSOFT,
                num_heads=shape.heads,
                kv_num_heads=shape.kv_heads,
                scale=self._weights.attention_scale,
                do_rotary=1,
                rotary_interleaved=0,
            )
        )
        return seen

    def _norm(self, where: str, stream: str, change: str, weight: Array) -> tuple[str, str]:
        """The normalized stream with the change added, and that stream itself."""
        scale, epsilon = self._constant(f"{where}.weight", weight), self._weights.shape.epsilon
        if not change:
            inputs, op = [stream, scale], "SimplifiedLayerNormalization"
            return self._node(op, inputs, where, axis=-1, epsilon=epsilon), stream
        self._nodes.append(
            self._onnx.helper.make_node(
                "SkipSimplifiedLayerNormalization",
                [stream, change, scale],
                [where, "", "", f"{where}.sum"],
                domain=_MICROSOFT,
                epsilon=epsilon,
            )
        )
        return where, f"{where}.sum"

    def _matrix(self, where: str, x: str, matrix: Matrix) -> str:
        return self._product(where, x, *_int4_blocks(matrix), bits=4)

    def _product(self, where: str, x: str, q: Array, scale: Array, bits: int) -> str:
        options = {
            "N": len(q),
            "K": scale.shape[1] * _BLOCK,
            "bits": bits,
            "block_size": _BLOCK,
            "accuracy_level": _INT8_LEVEL,
        }
        inputs = [x, self._constant(f"{where}.q", q), self._constant(f"{where}.scale", scale)]
        return self._node("MatMulNBits", inputs, where, _MICROSOFT, **options)

    def _node(
        self, op: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any
    ) -> str:
        make = self._onnx.helper.make_node
        self._nodes.append(make(op, list(inputs), [output], domain=domain, **attributes))
        return output

    def _constant(self, name: str, array: Array) -> str:
        tensor = self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        self._constants.append(tensor)
        return name

    def _port(self, name: str, kind: int, shape: Sequence[int | str]) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, kind, shape)


def _int4_blocks(matrix: Matrix) -> tuple[Array, Array]:
    """Pairs of values + 8 as u8 [n, k / 32, 16], the first one low; scales f32 [n, k / 32]."""
    if isinstance(matrix, BlockMatrix) and _is_plain(matrix):
        q, scale = matrix.q, matrix.scale
    else:
        blocks = quantize_blocks_int4(dense(matrix), _BLOCK)
        q, scale = blocks.q, blocks.scale
    values = (q + np.int8(8)).view(np.uint8)
    pairs = values[:, 0::2] | values[:, 1::2] << np.uint8(4)
    return pairs.reshape(len(q), -1, _BLOCK // 2), f32_from_bf16(scale)


def _is_plain(matrix: BlockMatrix) -> bool:
    return matrix.least is None and matrix.q.shape[1] == _BLOCK * matrix.scale.shape[1]


def _int8_blocks(matrix: Matrix) -> tuple[Array, Array]:
    """Values + 128 as u8 [n, k / 32, 32], and scales f32 [n, k / 32]: rounding as Q8_0 does it."""
    values = dense(matrix)
    blocks = values.reshape(len(values), -1, _BLOCK)
    scale = (np.abs(blocks).max(-1) / 127).astype(np.float32)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    q = np.rint(blocks * inverse[..., None]) + 128
    return q.astype(np.uint8), scale
