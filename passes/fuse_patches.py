"""Lets the kernel that makes patches pack them for the multiplication.

    %1 = go.patches(%x)
    %2 = go.quantize_rows(%1)       ->     %2 = go.patches(%x)      # qa8r

Likewise `go.pack_rows` for bf16. The windows, several times as large as the image, are never
stored as floats.
"""

from __future__ import annotations

from graphopt.ir import Graph
from graphopt.ir.ops import PackRows, Patches, QuantizeRows
from graphopt.passes.base import Pass


class FusePatches(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep."""
        producers = graph.producers()
        modified = False
        for node in list(graph.nodes):
            if not isinstance(node.op, QuantizeRows | PackRows):
                continue
            patches = producers.get(node.operands["x"])
            if patches is None or not isinstance(patches.op, Patches):
                continue
            patches.outputs = [node.output]
            patches.decide(self.name, "packs its windows for the multiplication")
            patches.fused.append(node.origin)
            graph.nodes.remove(node)
            modified = True
        return modified
