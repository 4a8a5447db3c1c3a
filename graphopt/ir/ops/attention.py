"""Attention, over the keys of a call and over those of a cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphopt.dtype import DType
from graphopt.ir.graph import Node, Value
from graphopt.ir.op import F32_ONLY, F32_OR_BF16, Array, Op, Operand, Operands, Sizes, Strides
from graphopt.ir.symbolic import evaluate
from graphopt.kernels import reference, reference_ops

if TYPE_CHECKING:
    from graphopt.ir.cost import Call


@dataclass
class Attention(Op):
    """softmax(q k^T * scale + mask) v for q, k, v [batch, heads, time, head size].

    Attributes:
        scale: of the scores.
        causal: whether query i sees keys 0 to i alone, counted from the first key.
        replaces: whether the mask takes the place of a score where it is not 0.
        unseen_zero: whether a query that sees no key gives zeros, not NaN.

    No scores are stored. Heads of q may share those of k and v. A mask is f32 and broadcasts to
    the scores.
    """

    scale: float
    causal: bool = False
    replaces: bool = False
    unseen_zero: bool = False

    NAME = "go.attention"
    OPERANDS = (
        *(
            Operand(name, Strides.DENSE_LAST, bf16=True, dtypes=F32_OR_BF16)
            for name in ("q", "k", "v")
        ),
        Operand("mask", optional=True, dtypes=F32_ONLY),
    )
    KERNEL = "go_attention"
    STORES_BF16 = True

    def results(self, given: Operands) -> list[Value]:
        return [Value(DType.F32, (*given["q"].shape[:3], given["v"].shape[3]))]

    def problem(self, node: Node) -> str | None:
        q, k, v = (node.operands[name] for name in ("q", "k", "v"))
        if not q.rank == k.rank == v.rank == 4:
            return f"attention of {q.shape}, {k.shape} and {v.shape}"
        if q.shape[3] != k.shape[3]:
            return f"queries of {q.shape[3]} for keys of {k.shape[3]}"
        return None if q.dtype is k.dtype is v.dtype else "q, k and v have several types"

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        q, k, v = (given[name].swapaxes(1, 2) for name in ("q", "k", "v"))
        causal = reference_ops.CAUSAL_FIRST if self.causal else reference_ops.SEES_ALL
        mask = given.get("mask")
        y = reference_ops.attention(
            q, k, v, self.scale, mask, causal, self.replaces, self.unseen_zero
        )
        return [y.swapaxes(1, 2)]

    def macs(self, node: Node, call: Call) -> int:
        q, k, v = (node.operands[name].shape for name in ("q", "k", "v"))
        batch, heads, queries, dim = (evaluate(extent, call.sizes) for extent in q)
        keys, dim_v = call.size(k[2]), call.size(v[3])
        pairs = queries * keys
        if self.causal:
            pairs = int(np.minimum(np.arange(1, queries + 1), keys).sum())
        return batch * heads * pairs * (dim + dim_v)


#: A cache of keys and values, [layers, 2, sequences, rows, kv heads, head size]; of one in int8 the
#: scales, [layers, 2, sequences, kv heads, rows]; rows in use, and of those the first that is seen.
_CACHE = (
    Operand("past", dtypes=frozenset({DType.I64})),
    Operand("start", dtypes=frozenset({DType.I64})),
    Operand("cache", dtypes=frozenset({DType.F32, DType.BF16, DType.I8})),
    Operand("scales", optional=True, dtypes=F32_ONLY),
)


def _cache_problem(node: Node, layer: int) -> str | None:
    cache, scales = node.operands["cache"], node.operands.get("scales")
    if cache.rank != 6 or not cache.is_state:
        return "its cache is no state of six axes"
    if (scales is not None) != (cache.dtype is DType.I8):
        return f"a cache of {cache.dtype.value} {'with' if scales else 'without'} scales"
    layers = cache.shape[0]
    return None if isinstance(layers, int) and 0 <= layer < layers else f"no layer {layer}"


def _row_bytes(node: Node, call: Call) -> int:
    """Bytes of keys and values of a token in one layer, with scales where they are int8."""
    cache, scales = node.operands["cache"], node.operands.get("scales")
    kv_heads, dim = (evaluate(extent, call.sizes) for extent in cache.shape[4:])
    per_head = dim * cache.dtype.itemsize + (0 if scales is None else scales.dtype.itemsize)
    return 2 * kv_heads * per_head


@dataclass
class Rope(Op):
    """The rotated query; rotated keys, and the values, go to the cache of a layer.

    q, k, v are [batch, time, heads, head size], the angles' cosines and sines [batch, time, half]:
    Su et al. 2021, "RoFormer", in halves as Llama has them.
    """

    layer: int

    NAME = "go.rope"
    OPERANDS = (
        *(Operand(name, Strides.DENSE_LAST, dtypes=F32_ONLY) for name in ("q", "k", "v")),
        Operand("cos", Strides.DENSE, dtypes=F32_ONLY),
        Operand("sin", Strides.DENSE, dtypes=F32_ONLY),
        *_CACHE,
    )
    KERNEL = "go_rope"
    WRITES = frozenset({"cache", "scales"})

    def results(self, given: Operands) -> list[Value]:
        wide = given["cache"].dtype is DType.F32
        return [Value(DType.F32 if wide else DType.BF16, given["q"].shape)]

    def problem(self, node: Node) -> str | None:
        return _cache_problem(node, self.layer)

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        cos, sin = (given[role][:, :, None] for role in ("cos", "sin"))

        def rotated(x: Array) -> Array:
            first, second = np.split(x, 2, axis=-1)
            return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

        for part, new in enumerate((rotated(given["k"]), given["v"])):
            for b, past in enumerate(given["past"]):
                rows = slice(past, past + new.shape[1])
                if "scales" in given:
                    heads = reference.quantize_heads(new[b])
                    given["cache"][self.layer, part, b, rows] = heads.q
                    given["scales"][self.layer, part, b, :, rows] = heads.scale.T
                else:
                    given["cache"][self.layer, part, b, rows] = new[b]
        return [rotated(given["q"])]

    def operand_bytes(self, node: Node, name: str, call: Call) -> int:
        if name == "scales":
            return 0  # counted with the cache
        if name != "cache":
            return super().operand_bytes(node, name, call)
        return call.size(*node.operands["q"].shape[:2]) * _row_bytes(node, call)


@dataclass
class CachedAttention(Op):
    """Causal attention of new tokens to the rows of a layer's cache from `start` on.

    A token of the padding before `start` sees none, and gets zeros.
    """

    layer: int
    scale: float

    NAME = "go.cached_attention"
    OPERANDS = (Operand("q", dtypes=F32_OR_BF16), *_CACHE)
    KERNEL = "go_attention"

    def results(self, given: Operands) -> list[Value]:
        return [Value(DType.F32, given["q"].shape)]

    def problem(self, node: Node) -> str | None:
        return _cache_problem(node, self.layer)

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        q, past, start = (given[role] for role in ("q", "past", "start"))
        cache = given["cache"][self.layer].astype(np.float32)
        if "scales" in given:
            cache *= given["scales"][self.layer].swapaxes(2, 3)[..., None]
        keys, values = cache
        seen = []
        for b in range(len(q)):
            rows = slice(start[b], past[b] + q.shape[1])
            new, past_k, past_v = (a[None] for a in (q[b], keys[b, rows], values[b, rows]))
            y = reference_ops.attention(
                new,
                past_k,
                past_v,
                self.scale,
                causal=reference_ops.CAUSAL_LAST,
                unseen_zero=True,
            )
            seen.append(y[0])
        return [np.stack(seen)]

    def macs(self, node: Node, call: Call) -> int:
        shape = node.operands["q"].shape
        _, tokens, heads, dim = (evaluate(extent, call.sizes) for extent in shape)
        pairs = sum(int(keys) * tokens - tokens * (tokens - 1) // 2 for keys in call.keys(node))
        return pairs * heads * 2 * dim

    def operand_bytes(self, node: Node, name: str, call: Call) -> int:
        if name == "scales":
            return 0  # counted with the cache
        if name != "cache":
            return super().operand_bytes(node, name, call)
        return int(call.keys(node).sum()) * _row_bytes(node, call)
