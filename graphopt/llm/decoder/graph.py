"""The graph of a decoder, from its weights.

One graph serves prefill and decode: the number of new tokens `T` is a dim, and so are the number
of sequences `B`, of rows of the cache `S`, and of tokens whose logits are wanted, `R`. Keys and
values live in a state: an input that the graph writes to; those of i8 have scales in another.

    tokens i64 [B, T]   past i64 [B]   start i64 [B]   rows i64 [R]
    cache f32, bf16 or i8 [layers, 2, B, S, kv heads, head size]   ->    logits f32 [R, vocabulary]
    scales f32 [layers, 2, B, kv heads, S], if the cache is i8

Token t of sequence b goes to row `past[b] + t` of the cache and sees the rows from `start[b]` to
its own; its position is `past[b] + t - start[b]`. `rows` counts tokens as b * T + t.

Sources: Touvron et al., "LLaMA" (2023), and Grattafiori et al., "The Llama 3 Herd of Models"
(2024), for RMS norm, rotary embedding, grouped queries and SwiGLU. Classes of models whose layers
compute something else override methods of `DecoderGraph` (graphopt/llm/architectures).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.ir import DimInfo, DType, Graph, Shape, Value, constant, scalar
from graphopt.ir.op import Op
from graphopt.ir.ops import CachedAttention, Gather, Norm, Pointwise, Reshape, Rope, Slice
from graphopt.ir.scalar import Scalar
from graphopt.ir.symbolic import simplify, symbol
from graphopt.kernels import reference
from graphopt.llm.decoder.linears import Linears
from graphopt.llm.decoder.matrices import Matrix, dense
from graphopt.llm.decoder.traits import Traits

Array = np.ndarray[Any, Any]
Extents = tuple[int, ...]
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
        qkv_bias: of the rows of `qkv`, or None.
        more: what layers of this class have besides, by the names in `DecoderGraph.extents`.

    In each head of query and key the values that are rotated together, pair i, are i and
    head_dim / 2 + i.
    """

    attention_norm: Array
    qkv: Matrix
    output: Matrix
    feed_forward_norm: Array
    gate_up: Matrix
    down: Matrix
    qkv_bias: Array | None = None
    more: Mapping[str, Array] = field(default_factory=dict)


@dataclass(eq=False)
class DecoderWeights:
    """A whole decoder.

    Attributes:
        name: of the graph.
        shape: sizes.
        frequencies: radians per position of each pair of a head, f32 [head_dim / 2]; 0 for one
            that is not rotated.
        attention_factor: factor on cosine and sine of what is rotated (1 but for scaled rotary
            embeddings).
        embedding: [vocabulary, hidden], in f32 or 8 bits.
        layers: from the first to the last.
        norm: [hidden].
        head: [vocabulary, hidden], likewise; the embedding itself where they are tied.
        traits: what it is besides its sizes.
        graph_class: writes its graph.
    """

    name: str
    shape: DecoderShape
    frequencies: Array
    attention_factor: float
    embedding: Matrix
    layers: list[LayerWeights]
    norm: Array
    head: Matrix
    traits: Traits = field(default_factory=Traits)
    graph_class: type[DecoderGraph] = field(default_factory=lambda: DecoderGraph)

    @property
    def attention_scale(self) -> float:
        """Factor on scores."""
        return self.traits.attention_scale or float(self.shape.head_dim) ** -0.5


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
    return weights.graph_class(weights, cache, keep_blocks, head, narrow_embedding).graph


@dataclass(eq=False)
class DecoderGraph:
    """Writes a graph; a class of models overrides what its layers compute otherwise.

    Attributes:
        graph: what is written.
        products: writes products with matrices into it.
        bt: extents of the new tokens, [B, T].

    For the rest see `decoder_graph`. `where` is the place in the model that a node is said to come
    from; `x` is the residual stream, f32 [B, T, hidden].
    """

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
        self.linears = Linears(self.graph, self.keep_blocks, keep_bytes, exact)
        self.bytes = self.linears.rows(w.head, "head") if self.head == "int8" else None
        self.whole = constant(dense(w.head), "head.weight") if self.head == "int4" else None
        self._inputs()
        self._angles()
        x = self.embedding()
        for number, layer in enumerate(w.layers):
            x = self.layer(f"layers.{number}", number, layer, x)
        flat = self.emit("head", Reshape((simplify(self.b * self.t), shape.hidden)), x)
        picked = self.emit("head", Gather(), flat, self.rows)
        normed = self.norm("norm", picked, w.norm)
        self.graph.outputs = [self.logits(normed)]

    @classmethod
    def extents(cls, s: DecoderShape) -> dict[str, Extents]:
        """Sizes of all that a layer may have; what is not in `LayerWeights` is in its `more`."""
        rows = (s.heads + 2 * s.kv_heads) * s.head_dim
        return {
            "attention_norm": (s.hidden,),
            "qkv": (rows, s.hidden),
            "output": (s.hidden, s.heads * s.head_dim),
            "feed_forward_norm": (s.hidden,),
            "gate_up": (2 * s.intermediate, s.hidden),
            "down": (s.hidden, s.intermediate),
            "qkv_bias": (rows,),
        }

    def embedding(self) -> Value:
        """Rows of the table: the head's own, or ones in int8, f32 or bf16."""
        w, where = self.weights, "embedding"
        shape: Shape = (*self.bt, w.shape.hidden)
        tied = w.head is w.embedding
        if tied and self.whole is not None:
            return self.emit(where, Gather(), self.whole, self.tokens)
        if self.head in ("int8", "int4"):
            shared = self.bytes if tied else None
            rows = shared or self.linears.rows(w.embedding, where)
            return self.linears.look_up(where, rows, self.tokens)
        array = dense(w.embedding)
        if not self.narrow_embedding:
            return self.emit(where, Gather(), constant(array, where), self.tokens)
        table = Value(DType.BF16, array.shape, where, data=reference.bf16_from_f32(array))
        found = self.emit(where, Gather(), table, self.tokens)
        wide = scalar.cast(scalar.operand(0, DType.BF16), DType.F32)
        return self.pointwise(where, wide, [found], shape)

    def logits(self, x: Value) -> Value:
        """Of normalized rows [R, hidden]: [R, vocabulary]."""
        if self.bytes is not None:
            return self.linears.by_rows("head", x, self.bytes)
        if self.whole is not None:
            return self.linears.linear("head", x, self.whole)
        write = self.linears.split if self.head == "exact" else self.linears.gemm
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

    def emit(self, where: str, op: Op, *operands: Value, **named: Value) -> Value:
        """Appends a node with one output and returns it; see `Node.of`."""
        return self.linears.emit(where, op, *operands, **named)

    def pointwise(self, where: str, expr: Scalar, inputs: list[Value], shape: Shape) -> Value:
        """An expression over the elements of values that are broadcast to one shape.

        Args:
            where: place in the model.
            expr: the expression; operand i is an element of `inputs[i]`.
            inputs: what it reads.
            shape: of the result.
        """
        return self.emit(where, Pointwise(expr, shape), *inputs)

    def _angles(self) -> None:
        """Cosine and sine of every new token, [B, T, head_dim / 2]."""
        per_sequence: Shape = (self.b, 1, 1)
        past, start = (self.emit("rope", Reshape(per_sequence), v) for v in (self.past, self.start))
        shape: Shape = (*self.bt, len(self.weights.frequencies))
        row = scalar.apply("add", scalar.operand(0, DType.I64), scalar.index(1))
        position = scalar.apply("sub", row, scalar.operand(1, DType.I64))
        radians = scalar.apply(
            "mul", scalar.cast(position, DType.F32), scalar.operand(2, DType.F32)
        )
        frequencies, factor = self.weights.frequencies, self.weights.attention_factor
        operands = [past, start, constant(frequencies, "frequencies")]
        factors = scalar.const(factor, DType.F32)
        if factor != 1.0 and not frequencies.all():  # what is not rotated keeps its length
            each = np.where(frequencies == 0, np.float32(1), np.float32(factor))
            operands.append(constant(each, "attention_factor"))
            factors = scalar.operand(3, DType.F32)

        def turned(function: str) -> Value:
            expr = scalar.apply(function, radians)
            if factor != 1.0:
                expr = scalar.apply("mul", expr, factors)
            return self.pointwise("rope", expr, operands, shape)

        self.cos, self.sin = turned("cos"), turned("sin")

    def norm(self, where: str, x: Value, weight: Array) -> Value:
        """RMS norm along the last axis.

        Args:
            where: place in the model.
            x: f32 [.., n].
            weight: f32 [n], the gain.

        Returns:
            f32 [.., n].
        """
        gain = constant(weight, f"{where}.weight")
        return self.emit(where, Norm(self.weights.shape.epsilon, rms=True), x, gain)

    def columns(self, where: str, x: Value, first: int, count: int) -> Value:
        """A range of the last axis.

        Args:
            where: place in the model.
            x: [.., n].
            first: index of the first column.
            count: number of columns.

        Returns:
            [.., count], a view.
        """
        return self.emit(where, Slice(x.rank - 1, first, count), x)

    def layer(self, where: str, number: int, layer: LayerWeights, x: Value) -> Value:
        """The residual stream behind a layer.

        Args:
            where: place in the model.
            number: of the layer, from 0: the index of its keys and values in the cache.
            layer: its weights.
            x: the stream before it, f32 [B, T, hidden].

        Returns:
            f32 [B, T, hidden].
        """
        x = self.linears.add(where, x, self.attention(f"{where}.attention", number, layer, x))
        return self.linears.add(where, x, self.feed_forward(f"{where}.feed_forward", layer, x))

    def attention(self, where: str, number: int, layer: LayerWeights, x: Value) -> Value:
        """What attention adds to the stream.

        Args:
            where: place in the model.
            number: of the layer, from 0: the index of its keys and values in the cache.
            layer: its weights.
            x: the stream, f32 [B, T, hidden], before the norm.

        Returns:
            f32 [B, T, hidden].
        """
        shape = self.weights.shape
        normed = self.norm(f"{where}.norm", x, layer.attention_norm)
        qkv = self.linears.gemm(f"{where}.qkv", normed, layer.qkv, layer.qkv_bias)
        first = 0
        parts: list[Value] = []
        for heads in (shape.heads, shape.kv_heads, shape.kv_heads):
            width = heads * shape.head_dim
            part = self.columns(where, qkv, first, width)
            split: Shape = (*self.bt, heads, shape.head_dim)
            parts.append(self.emit(where, Reshape(split), part))
            first += width
        q, k, v = parts
        q, k = self.heads(where, layer, q, k)
        cache = {"past": self.past, "start": self.start, **self.states}
        rotated = self.emit(where, Rope(number), q, k, v, self.cos, self.sin, **cache)
        attention = CachedAttention(number, self.weights.attention_scale)
        seen = self.emit(where, attention, rotated, **cache)
        joined: Shape = (*self.bt, shape.heads * shape.head_dim)
        merged = self.emit(where, Reshape(joined), seen)
        return self.linears.gemm(f"{where}.output", merged, layer.output)

    def heads(self, where: str, layer: LayerWeights, q: Value, k: Value) -> tuple[Value, Value]:
        """Query and key as they will be rotated; unchanged, unless a class of models overrides it.

        Args:
            where: the attention's place in the model.
            layer: weights of the layer.
            q: f32 [B, T, heads, head_dim].
            k: f32 [B, T, kv_heads, head_dim].

        Returns:
            Both, in the same shapes.
        """
        return q, k

    def feed_forward(self, where: str, layer: LayerWeights, x: Value) -> Value:
        """What the feed-forward network adds to the stream.

        Args:
            where: place in the model.
            layer: weights of the layer.
            x: the stream, f32 [B, T, hidden], before the norm.

        Returns:
            f32 [B, T, hidden].
        """
        width = self.weights.shape.intermediate
        normed = self.norm(f"{where}.norm", x, layer.feed_forward_norm)
        both = self.linears.gemm(f"{where}.gate_up", normed, layer.gate_up)
        gate, up = self.columns(where, both, 0, width), self.columns(where, both, width, width)
        active = self.activation(scalar.operand(0, DType.F32))
        expr = scalar.apply("mul", active, scalar.operand(1, DType.F32))
        gated = self.pointwise(where, expr, [gate, up], gate.shape)
        return self.linears.gemm(f"{where}.down", gated, layer.down)

    def activation(self, gate: Scalar) -> Scalar:
        """Of the gate."""
        return scalar.apply("silu", gate)
