"""What a node costs: multiply-adds and bytes, at given sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sympy

from graphopt.ir import Dim, Node
from graphopt.symbolic import evaluate, product

Sizes = Mapping[sympy.Symbol, int]


def macs(node: Node, sizes: Sizes) -> int:
    """Multiply-adds of the node's products; 0 for ops without."""
    count = _MACS.get(node.op)
    return evaluate(count(node), sizes) if count else 0


def moved_bytes(node: Node, sizes: Sizes) -> int:
    """Bytes of operands and results, each once; packed weights count as their narrow type."""
    total = 0
    for value in (*node.inputs, *node.outputs):
        size = value.dtype.itemsize
        if node.op == "go.linear" and value.is_constant and value.rank == 2:
            size = {"int8": 1, "bf16": 2}.get(node.attrs.get("scheme", "f32"), 4)
        total += evaluate(product(value.shape), sizes) * size
    return total


def _attention(node: Node) -> Dim:
    q, k, v = node.inputs[:3]
    return product((*q.shape[:3], k.shape[2], q.shape[3] + v.shape[3]))


def _conv(node: Node) -> Dim:
    weight = node.inputs[1]
    return product((*node.output.shape, *weight.shape[1:]))


_MACS: dict[str, Callable[[Node], Dim]] = {
    "go.linear": lambda n: product((*n.output.shape, n.inputs[1].shape[1])),
    "go.matmul": lambda n: product((*n.output.shape, n.inputs[0].shape[-1])),
    "go.depthwise": lambda n: product((*n.output.shape, n.inputs[1].shape[0])),
    "go.attention": _attention,
    "go.conv": _conv,
}
