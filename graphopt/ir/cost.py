"""What a node costs in a call: multiply-adds, bytes that it moves, bytes out of memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sympy

from graphopt.ir import Dim, Node, Value
from graphopt.ir.symbolic import evaluate, product
from graphopt.kernels import layouts

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Call:
    """What is known of one call of a graph.

    Attributes:
        sizes: of every dim.
        arch: whose layouts packed operands have.
        numbers: contents of inputs that say how much of a state is in use: `past` and `start` of
            a cache, i64 [sequences] (graphopt/llm/decoder/graph.py).
    """

    sizes: Mapping[sympy.Symbol, int]
    arch: str
    numbers: Mapping[Value, Array] = field(default_factory=dict)

    def keys(self, node: Node) -> Array:
        """Rows of the cache that each sequence's last token sees, of a `go.cached_attention`."""
        past, start = (self.numbers[_operand(node, role)] for role in ("past", "start"))
        tokens = evaluate(node.inputs[0].shape[1], self.sizes)
        keys: Array = np.asarray(past) + tokens - np.asarray(start)
        return keys

    def size(self, *extents: Dim) -> int:
        """Product of some extents."""
        return evaluate(product(extents), self.sizes)


def macs(node: Node, call: Call) -> int:
    """Multiply-adds of the node's products; 0 for ops without. Hidden keys do not count."""
    count = _MACS.get(node.op)
    return count(node, call) if count else 0


def moved_bytes(node: Node, call: Call) -> int:
    """Bytes of operands and results, each once, as they are stored (packed, quantized).

    Of a table the rows that are looked up count, of a cache those that are read or written.
    """
    given = [v for v in node.inputs if not (v.is_constant or v.is_state or _is_table(node, v))]
    total = memory_bytes(node, call) + sum(_stored(v, call) for v in (*given, *node.outputs))
    if node.op == "go.gather" and not node.inputs[0].is_constant:
        total += _looked_up(node, call)
    if node.op == "go.rope":
        total += call.size(*node.inputs[0].shape[:2]) * _cached_row_bytes(node, call)
    return total


def memory_bytes(node: Node, call: Call) -> int:
    """Bytes that no cache of a CPU holds from one call to the next.

    These are constants, packed as kernels read them, and cached keys and values.
    """
    total = 0
    if node.op == "go.cached_attention":
        total += int(call.keys(node).sum()) * _cached_row_bytes(node, call)
    for value in node.inputs:
        if not value.is_constant:
            continue
        if node.op == "go.linear" and value is node.inputs[1]:
            total += _weight_bytes(node, value, call)
        elif _is_table(node, value):
            total += _looked_up(node, call)
        elif value is not node.operand("scale"):  # counted with the blocks
            total += _stored(value, call)
    return total


def _cached_row_bytes(node: Node, call: Call) -> int:
    """Bytes of keys and values of a token in one layer, with scales where they are int8."""
    cache, scales = _operand(node, "cache"), node.operand("scales")
    kv_heads, dim = (evaluate(extent, call.sizes) for extent in cache.shape[4:])
    per_head = dim * cache.dtype.itemsize + (0 if scales is None else scales.dtype.itemsize)
    return 2 * kv_heads * per_head


def _weight_bytes(node: Node, weight: Value, call: Call) -> int:
    """Bytes of a right operand [n, k] as kernels read it, in whole panels."""
    n, k = weight.shape
    scheme, group = node.attrs.get("scheme", "f32"), node.attrs.get("group", 0)
    packed = {"int8": "qa8", "int4": "qs4b" if group else "qs4c"}.get(scheme, scheme)
    rule = layouts.layout(call.arch, packed)
    return int(layouts.packed_rhs_bytes(rule, n, k, group=group))


def _is_table(node: Node, value: Value) -> bool:
    return node.op == "go.gather" and value is node.inputs[0]


def _looked_up(node: Node, call: Call) -> int:
    table = node.inputs[0]
    width = 1 if node.attrs.get("scheme") == "int8" else table.dtype.itemsize
    return call.size(*node.output.shape) * width


def _stored(value: Value, call: Call) -> int:
    """Bytes of a whole value; of packed rows those that there are, not of a whole panel."""
    if not value.packed:
        return call.size(*value.shape) * value.dtype.itemsize
    rule = layouts.layout(call.arch, {"qa8r": "qa8"}.get(value.packed, value.packed))
    panel = layouts.packed_lhs_bytes(rule, rule.mr, call.size(value.shape[-1]))
    return call.size(*value.shape[:-1]) * int(panel) // rule.mr


def _operand(node: Node, role: str) -> Value:
    value = node.operand(role)
    assert value is not None, f"{node.op} has an operand {role}"
    return value


def _attention(node: Node, call: Call) -> int:
    q, k, v = node.inputs[:3]
    batch, heads, queries, dim = (evaluate(extent, call.sizes) for extent in q.shape)
    keys, dim_v = call.size(k.shape[2]), call.size(v.shape[3])
    pairs = queries * keys
    if node.attrs.get("causal"):
        pairs = int(np.minimum(np.arange(1, queries + 1), keys).sum())
    return batch * heads * pairs * (dim + dim_v)


def _cached_attention(node: Node, call: Call) -> int:
    _, tokens, heads, dim = (evaluate(extent, call.sizes) for extent in node.inputs[0].shape)
    pairs = sum(int(keys) * tokens - tokens * (tokens - 1) // 2 for keys in call.keys(node))
    return pairs * heads * 2 * dim


_MACS: dict[str, Callable[[Node, Call], int]] = {
    "go.linear": lambda n, c: c.size(*n.output.shape, n.inputs[1].shape[1]),
    "go.matmul": lambda n, c: c.size(*n.output.shape, n.inputs[0].shape[-1]),
    "go.depthwise": lambda n, c: c.size(*n.output.shape, n.inputs[1].shape[0]),
    "go.attention": _attention,
    "go.cached_attention": _cached_attention,
    "go.conv": lambda n, c: c.size(*n.output.shape, *n.inputs[1].shape[1:]),
}
