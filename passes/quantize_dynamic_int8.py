"""Multiplies by int8 weights, and quantizes activations row by row when they arrive.

                                              %1 = go.quantize_rows(%x)            # qa8r
    %1 = go.linear(%x, weight=%w)      ->     %2 = go.linear(%1, weight=%q, scale=%s, format=int8)

Weights: symmetric int8, one scale per output channel. Activations: asymmetric int8, scale and zero
point per row at run time (kernels/reference.py defines both). One quantized tensor serves all
linears that read the same input. A table that `go.gather` shares with a linear, as the embedding of
a language model whose head is tied to it, is looked up in the quantized weights: they are there
once, and a row is the one that the head multiplies by.
A linear with an operand `scale` has rows in int8: i8 [n, k] and f32 [n] are taken as they are.
Left in floating point: a depth or width below 16, where quantizing costs more than it saves.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from graphopt.ir import DType, Graph, Node, Value, constant
from graphopt.ir.ops import Gather, Linear, QuantizeRows
from graphopt.kernels import reference
from graphopt.kernels.formats import INT8
from graphopt.passes.base import Pass
from graphopt.passes.support.product import SMALLEST, PackedRows, require_finite


class QuantizeDynamicInt8(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """Rewrites every linear that is worth it."""
        chosen = [
            node
            for node in graph.nodes
            if isinstance(node.op, Linear) and node.op.format is None and self._accepts(node)
        ]
        whole = [node.operands["weight"] for node in chosen if "scale" not in node.operands]
        with ThreadPoolExecutor() as pool:
            distinct = list(dict.fromkeys(whole))
            rounded = dict(zip(distinct, pool.map(_rounded, distinct), strict=True))
        packed, nodes = PackedRows(QuantizeRows()), list[Node]()
        linears = set(chosen)
        for node in graph.nodes:
            op = node.op
            if node in linears:
                packed.give(node, nodes)
                node.as_op(Linear).format = INT8
                if (weight := node.operands["weight"]) in rounded:
                    node.operands |= rounded[weight]
            elif isinstance(op, Gather) and node.operands["table"] in rounded:
                found = rounded[node.operands["table"]]
                node.operands |= {"table": found["weight"], "scale": found["scale"]}
                op.format = INT8
                node.decide(self.name, "int8: rows of the weights that a linear multiplies by")
            nodes.append(node)
        graph.nodes = nodes
        return bool(chosen)

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


def _rounded(weight: Value) -> dict[str, Value]:
    """Operands of a linear in place of an f32 weight."""
    assert weight.data is not None
    channels = reference.quantize_channels(weight.data)
    scale = Value(DType.F32, channels.scale.shape, f"{weight.name}.scale", data=channels.scale)
    return {"weight": constant(channels.q, weight.name), "scale": scale}
