"""Multiplies by int8 weights, and quantizes activations row by row when they arrive.

                                              %1 = go.quantize_rows(%x)            # qa8r
    %1 = go.linear(%x, weight=%w)      ->     %2 = go.linear(%1, weight=%w, scheme=int8)

Weights: symmetric int8, one scale per output channel. Activations: asymmetric int8, scale and zero
point per row at run time (kernels/reference.py defines both). One quantized tensor serves all
linears that read the same input.
Left in floating point: a depth or width below 16, where quantizing costs more than it saves.
"""

from __future__ import annotations

import numpy as np

from graphopt.errors import WeightError
from graphopt.ir import DType, Graph, Node, Value
from graphopt.passes.base import Pass

#: Depths and widths below this are left in floating point.
SMALLEST = 16


class QuantizeDynamicInt8(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """Rewrites every linear that is worth it."""
        quantized: dict[Value, Value] = {}
        nodes: list[Node] = []
        modified = False
        for node in graph.nodes:
            if node.op == "go.linear" and "scheme" not in node.attrs and self._accepts(node):
                x = node.inputs[0]
                if x not in quantized:
                    rows = Value(DType.I8, x.shape, packed="qa8r")
                    quantized[x] = rows
                    nodes.append(Node("go.quantize_rows", [x], [rows], {}, node.origin))
                node.inputs[0] = quantized[x]
                node.attrs["scheme"] = "int8"
                modified = True
            nodes.append(node)
        graph.nodes = nodes
        return modified

    def _accepts(self, node: Node) -> bool:
        weight = node.inputs[1]
        out_features, in_features = weight.shape
        if min(in_features, out_features) < SMALLEST:
            node.decide(self.name, f"kept in float: {in_features} x {out_features} is too small")
            return False
        if weight.data is None or not np.isfinite(weight.data).all():
            raise WeightError(weight.name)
        node.decide(self.name, "int8: weights per channel, activations per row")
        return True
