"""Lets the kernel of im2col pack the rows that it gathers for the multiplication.

    %1 = go.im2col(%x)
    %2 = go.quantize_rows(%1)       ->     %2 = go.im2col(%x)      # qa8r

Likewise `go.pack_rows` for bf16. The windows, several times as large as the image, are never
stored as floats. Windows of a line of an image that overlap get one scale and zero point, that of
all they read, so that a pixel is quantized once for the line: the error of a ResNet-50 grows by a
hundredth.
"""

from __future__ import annotations

from graphopt.ir import Graph
from graphopt.ir.ops import Im2col, PackRows, QuantizeRows
from graphopt.passes.base import Pass


class FuseIm2col(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep."""
        producers = graph.producers()
        modified = False
        for node in list(graph.nodes):
            if not isinstance(node.op, QuantizeRows | PackRows):
                continue
            gathered = producers.get(node.operands["x"])
            if gathered is None or not isinstance(gathered.op, Im2col):
                continue
            gathered.outputs = [node.output]
            gathered.decide(self.name, "packs its windows for the multiplication")
            gathered.fused.append(node.origin)
            graph.nodes.remove(node)
            modified = True
        return modified
