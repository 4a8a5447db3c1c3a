"""The graph of a Llama-class decoder, from its weights.

One graph serves prefill and decode: the number of new tokens `T` is a dim, and so are the number
of sequences `B`, of rows of the cache `S`, and of tokens whose logits are wanted, `R`. Keys and
values live in a state: an input that the graph writes to; those of i8 have scales in another.

    tokens i64 [B, T]   past i64 [B]   start i64 [B]   rows i64 [R]
    cache f32, bf16 or i8 [layers, 2, B, S, kv heads, head size]   ->    logits f32 [R, vocabulary]
    scales f32 [layers, 2, B, kv heads, S], if the cache is i8

Token t of sequence b goes to row `past[b] + t` of the cache and sees the rows from `start[b]` to
its own; its position is `past[b] + t - start[b]`. `rows` counts tokens as b * T + t.

Sources: Touvron et al., "LLaMA" (2023), and Grattafiori et al., "The Llama 3 Herd of Models"
(2024), for RMS norm, rotary embedding, grouped queries and SwiGLU; Qwen2 adds biases to the
projections of query, key and value, Qwen3 norms of each head of query and key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.ir import DimInfo, DType, Graph, Node, Origin, Shape, Value, constant, scalar
from graphopt.ir.scalar import Scalar
from graphopt.ir.symbolic import simplify, symbol
from graphopt.kernels import reference
from graphopt.llm.decoder.matrices import Matrix, dense
from graphopt.llm.decoder.products import Products

Array = np.ndarray[Any, Any]
_HINTS = {"B": 1, "T": 16, "R": 1, "S": 512}


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder.

    Attributes:
        hidden: width of the residual stream.
        heads: query heads.
        kv_heads: heads of key and value; divides `heads`.
        head_dim: width of a head; even.
        intermediate: width of the feed-forward layer.
        vocabulary: number of tokens.
        context: largest number of positions.
        epsilon: of the RMS norms.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int
    epsilon: float


@dataclass(eq=False)
class LayerWeights:
    """Weights of one layer, matrices in torch's order [out, in]; arrays are f32.

    Attributes:
        attention_norm: [hidden].
        qkv: query, key and value rows one after the other.
        output: [hidden, heads * head_dim].
        feed_forward_norm: [hidden].
        gate_up: gate and up rows one after the other, [2 * intermediate, hidden].
        down: [hidden, intermediate].
        qkv_bias: or None.
        query_norm: [head_dim], or None.
        key_norm: [head_dim], or None.
    """

    attention_norm: Array
    qkv: Matrix
    output: Matrix
    feed_forward_norm: Array
    gate_up: Matrix
    down: Matrix
    qkv_bias: Array | None = None
    query_norm: Array | None = None
    key_norm: Array | None = None


@dataclass(eq=False)
class DecoderWeights:
    """A whole decoder.

    Attributes:
        name: of the graph.
        shape: sizes.
        frequencies: radians per position of each pair of a head, f32 [head_dim / 2].
        attention_factor: factor on cosine and sine (1 but for scaled rotary embeddings).
        embedding: [vocabulary, hidden], in f32 or 8 bits.
        layers: from the first to the last.
        norm: [hidden].
        head: [vocabulary, hidden], likewise; the embedding itself where they are tied.
    """

    name: str
    shape: DecoderShape
    frequencies: Array
    attention_factor: float
    embedding: Matrix
    layers: list[LayerWeights]
    norm: Array
    head: Matrix


def decoder_graph(
    weights: DecoderWeights,
    cache: DType,
    keep_blocks: bool = False,
    head: str = "float",
    narrow_embedding: bool = False,
) -> Graph:
    """The graph of a decoder in `go.*` nodes.

    Args:
        weights: all of it.
        cache: element type of keys and values: f32, bf16, or i8 with scales; attention is bf16 for
            the latter two.
        keep_blocks: multiply by the int4 values of a `BlockMatrix`; otherwise it becomes f32.
        head: `float` leaves the head as it is; `int8` keeps rows of int8 of it, and `int4` will,
            through `quantize_weights_int4`, keep int4: both serve an embedding that is tied to it
            too, and one that is not is rows of int8; `exact` keeps int8 and in int4 what that
            leaves over. With all but the first a `ByteMatrix` is multiplied in int8.
        narrow_embedding: keep an embedding that is not quantized in bf16.
    """
    return _Decoder(weights, cache, keep_blocks, head, narrow_embedding).graph


@dataclass(eq=False)
class _Decoder:
    weights: DecoderWeights
    cache_type: DType
    keep_blocks: bool
    head: str
    narrow_embedding: bool
    graph: Graph = field(init=False)

    def __post_init__(self) -> None:
        w, shape = self.weights, self.weights.shape
        self.graph = Graph(w.name)
        keep_bytes, exact = self.head != "float", self.head == "exact"
        self.products = Products(self.graph, self.keep_blocks, keep_bytes, exact)
        self.bytes = self.products.rows(w.head, "head") if self.head == "int8" else None
        self.whole = constant(dense(w.head), "head.weight") if self.head == "int4" else None
        self._inputs()
        self._angles()
        x = self._embedding()
        for number, layer in enumerate(w.layers):
            x = self._layer(f"layers.{number}", number, layer, x)
        flat = self.emit("head", "go.reshape", [x], (simplify(self.b * self.t), shape.hidden))
        picked = self.emit("head", "go.gather", [flat, self.rows], (self.r, shape.hidden))
        normed = self._norm("norm", picked, w.norm)
        self.graph.outputs = [self._head(normed)]

    def _embedding(self) -> Value:
        """Rows of the table: the head's own, or ones in int8, f32 or bf16."""
        w, where = self.weights, "embedding"
        shape: Shape = (*self.bt, w.shape.hidden)
        tied = w.head is w.embedding
        if tied and self.whole is not None:
            return self.emit(where, "go.gather", [self.whole, self.tokens], shape)
        if self.head in ("int8", "int4"):
            shared = self.bytes if tied else None
            rows = shared or self.products.rows(w.embedding, where)
            return self.products.look_up(where, rows, self.tokens)
        array = dense(w.embedding)
        if not self.narrow_embedding:
            return self.emit(where, "go.gather", [constant(array, where), self.tokens], shape)
        table = Value(DType.BF16, array.shape, where, data=reference.bf16_from_f32(array))
        found = self.emit(where, "go.gather", [table, self.tokens], shape, DType.BF16)
        wide = scalar.cast(scalar.operand(0, DType.BF16), DType.F32)
        return self._pointwise(where, wide, [found], shape)

    def _head(self, x: Value) -> Value:
        if self.bytes is not None:
            return self.products.by_rows("head", x, self.bytes)
        if self.whole is not None:
            return self.products.linear("head", x, self.whole)
        write = self.products.split if self.head == "exact" else self.products.product
        return write("head", x, self.weights.head)

    def _inputs(self) -> None:
        shape = self.weights.shape
        self.b, self.t, self.r, self.s = (symbol(name) for name in _HINTS)
        self.bt: Shape = (self.b, self.t)
        self.tokens = Value(DType.I64, self.bt, "tokens")
        self.past = Value(DType.I64, (self.b,), "past")
        self.start = Value(DType.I64, (self.b,), "start")
        self.rows = Value(DType.I64, (self.r,), "rows")
        layers = len(self.weights.layers)
        rows: Shape = (layers, 2, self.b, self.s, shape.kv_heads, shape.head_dim)
        self.cache = Value(self.cache_type, rows, "cache", is_state=True)
        self.states = {"cache": self.cache}
        if self.cache_type is DType.I8:
            scales: Shape = (layers, 2, self.b, shape.kv_heads, self.s)
            self.states["scales"] = Value(DType.F32, scales, "scales", is_state=True)
        self.graph.inputs = [self.tokens, self.past, self.start, self.rows, *self.states.values()]
        sources = {"B": ((0, 0), (1, 0), (2, 0), (4, 2)), "T": ((0, 1),)}
        sources |= {"R": ((3, 0),), "S": ((4, 3),)}
        self.graph.dims = {
            name: DimInfo(symbol(name), hint, sources[name]) for name, hint in _HINTS.items()
        }

    def emit(
        self,
        where: str,
        op: str,
        inputs: list[Value],
        shape: Shape,
        dtype: DType = DType.F32,
        **attrs: Any,
    ) -> Value:
        """Appends a node with one output and returns it."""
        out = Value(dtype, shape)
        self.graph.nodes.append(Node(op, inputs, [out], attrs, Origin(where)))
        return out

    def _pointwise(self, where: str, expr: Scalar, inputs: list[Value], shape: Shape) -> Value:
        return self.emit(where, "go.pointwise", inputs, shape, expr.dtype, expr=expr)

    def _angles(self) -> None:
        """Cosine and sine of every new token, [B, T, head_dim / 2]."""
        per_sequence: Shape = (self.b, 1, 1)
        past, start = (
            self.emit("rope", "go.reshape", [v], per_sequence, DType.I64)
            for v in (self.past, self.start)
        )
        shape: Shape = (*self.bt, len(self.weights.frequencies))
        row = scalar.apply("add", scalar.operand(0, DType.I64), scalar.index(1))
        position = scalar.apply("sub", row, scalar.operand(1, DType.I64))
        radians = scalar.apply(
            "mul", scalar.cast(position, DType.F32), scalar.operand(2, DType.F32)
        )
        operands = [past, start, constant(self.weights.frequencies, "frequencies")]
        factor = scalar.const(self.weights.attention_factor, DType.F32)

        def turned(function: str) -> Value:
            expr = scalar.apply(function, radians)
            if self.weights.attention_factor != 1.0:
                expr = scalar.apply("mul", expr, factor)
            return self._pointwise("rope", expr, operands, shape)

        self.cos, self.sin = turned("cos"), turned("sin")

    def _norm(self, where: str, x: Value, weight: Array) -> Value:
        return self.emit(
            where,
            "go.norm",
            [x, constant(weight, f"{where}.weight")],
            x.shape,
            roles=("x", "weight"),
            eps=self.weights.shape.epsilon,
            rms=True,
        )

    def _columns(self, where: str, x: Value, first: int, count: int) -> Value:
        shape: Shape = (*x.shape[:-1], count)
        return self.emit(where, "go.slice", [x], shape, axis=len(shape) - 1, start=first, step=1)

    def _layer(self, where: str, number: int, layer: LayerWeights, x: Value) -> Value:
        x = self.products.add(where, x, self._attention(f"{where}.attention", number, layer, x))
        return self.products.add(where, x, self._feed_forward(f"{where}.feed_forward", layer, x))

    def _attention(self, where: str, number: int, layer: LayerWeights, x: Value) -> Value:
        shape = self.weights.shape
        normed = self._norm(f"{where}.norm", x, layer.attention_norm)
        qkv = self.products.product(f"{where}.qkv", normed, layer.qkv, layer.qkv_bias)
        first = 0
        parts: list[Value] = []
        for heads in (shape.heads, shape.kv_heads, shape.kv_heads):
            width = heads * shape.head_dim
            part = self._columns(where, qkv, first, width)
            split: Shape = (*self.bt, heads, shape.head_dim)
            parts.append(self.emit(where, "go.reshape", [part], split))
            first += width
        q, k, v = parts
        if layer.query_norm is not None:
            q = self._norm(f"{where}.query_norm", q, layer.query_norm)
        if layer.key_norm is not None:
            k = self._norm(f"{where}.key_norm", k, layer.key_norm)
        rotated = self.emit(
            where,
            "go.rope",
            [q, k, v, self.cos, self.sin, self.past, self.start, *self.states.values()],
            q.shape,
            DType.F32 if self.cache_type is DType.F32 else DType.BF16,
            roles=("q", "k", "v", "cos", "sin", "past", "start", *self.states),
            layer=number,
        )
        seen = self.emit(
            where,
            "go.cached_attention",
            [rotated, self.past, self.start, *self.states.values()],
            q.shape,
            roles=("q", "past", "start", *self.states),
            layer=number,
            scale=float(shape.head_dim) ** -0.5,
        )
        joined: Shape = (*self.bt, shape.heads * shape.head_dim)
        merged = self.emit(where, "go.reshape", [seen], joined)
        return self.products.product(f"{where}.output", merged, layer.output)

    def _feed_forward(self, where: str, layer: LayerWeights, x: Value) -> Value:
        width = self.weights.shape.intermediate
        normed = self._norm(f"{where}.norm", x, layer.feed_forward_norm)
        both = self.products.product(f"{where}.gate_up", normed, layer.gate_up)
        gate, up = self._columns(where, both, 0, width), self._columns(where, both, width, width)
        silu = scalar.apply("silu", scalar.operand(0, DType.F32))
        expr = scalar.apply("mul", silu, scalar.operand(1, DType.F32))
        gated = self._pointwise(where, expr, [gate, up], gate.shape)
        return self.products.product(f"{where}.down", gated, layer.down)
