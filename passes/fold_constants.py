"""Computes at compile time what depends on constants alone.

    %0 = go.pointwise(expr=exp(mul(f32(i0), -0.03)))  # f32[280]     ->     const0: f32[280]

Left alone: results with a symbolic size, results above 64 MiB, and `go.expand` (a broadcast costs
nothing at run time and would cost memory as a constant).
"""

from __future__ import annotations

import numpy as np

from graphopt.ir import Graph, Node, Value
from graphopt.ir.interpret import run_node
from graphopt.ir.numbers import narrow, widen
from graphopt.ir.ops import Expand, Pointwise
from graphopt.ir.symbolic import is_static, product
from graphopt.passes.base import Pass

_LARGEST = 64 << 20


class FoldConstants(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep in topological order."""
        mapping: dict[Value, Value] = {}
        kept: list[Node] = []
        for node in graph.nodes:
            node.replace_operands(mapping)
            if self._foldable(node):
                mapping[node.output] = self._fold(node)
            else:
                kept.append(node)
        graph.nodes = kept
        graph.replace(mapping)
        return bool(mapping)

    @staticmethod
    def _foldable(node: Node) -> bool:
        return (
            node.is_lowered
            and not isinstance(node.op, Expand)
            and len(node.outputs) == 1
            and all(v.is_constant for v in node.inputs)
            and is_static(node.output.shape)
            and int(product(node.output.shape)) * node.output.dtype.itemsize <= _LARGEST
            and not _reads_size(node)
        )

    @staticmethod
    def _fold(node: Node) -> Value:
        arrays = [widen(v.data, v.dtype) for v in node.inputs if v.data is not None]
        (result,) = run_node(node, arrays, {})
        out = node.output
        data = np.array(narrow(result, out.dtype), order="C")
        return Value(out.dtype, out.shape, out.name or node.op.name.removeprefix("go."), data=data)


def _reads_size(node: Node) -> bool:
    return isinstance(node.op, Pointwise) and any(s.op == "size" for s in node.op.expr.walk())
