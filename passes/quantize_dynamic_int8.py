"""Multiplies by int8 weights, and quantizes activations row by row when they arrive.

                                              %1 = go.quantize_rows(%x)            # qa8r
    %1 = go.linear(%x, weight=%w)      ->     %2 = go.linear(%1, weight=%w, scheme=int8)

Weights: symmetric int8, one scale per output channel. Activations: asymmetric int8, scale and zero
point per row at run time (kernels/reference.py defines both). One quantized tensor serves all
linears that read the same input.
A linear with an operand `scale` has rows in int8: i8 [n, k] and f32 [n] are taken as they are.
Left in floating point: a depth or width below 16, where quantizing costs more than it saves.
"""

from __future__ import annotations

from graphopt.ir import Graph, Node
from graphopt.ir.ops import Linear, QuantizeRows
from graphopt.passes.base import Pass
from graphopt.passes.support.product import SMALLEST, PackedRows, require_finite


class QuantizeDynamicInt8(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """Rewrites every linear that is worth it."""
        quantized = PackedRows(QuantizeRows())
        nodes: list[Node] = []
        modified = False
        for node in graph.nodes:
            op = node.op
            if isinstance(op, Linear) and op.scheme is None and self._accepts(node):
                quantized.give(node, nodes)
                op.scheme = "int8"
                modified = True
            nodes.append(node)
        graph.nodes = nodes
        return modified

    def _accepts(self, node: Node) -> bool:
        weight = node.operands["weight"]
        if "scale" in node.operands:
            node.decide(self.name, "int8 with the scales that came, activations per row")
            return True
        out_features, in_features = weight.shape
        if min(in_features, out_features) < SMALLEST:
            node.decide(self.name, f"kept in float: {in_features} x {out_features} is too small")
            return False
        require_finite(weight)
        node.decide(self.name, "int8: weights per channel, activations per row")
        return True
