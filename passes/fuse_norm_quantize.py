"""Quantizes rows while the norm that makes them has them in cache.

    %1 = go.norm(%x)                       %1 = go.norm(%x, writes=(packed))      # qa8r
    %2 = go.quantize_rows(%1)      ->

If something else reads the normalized row too, the kernel writes both (`writes=(dst, packed)`).
The numbers are the same: the kernel quantizes the f32 row, so a bf16 row that would have been
rounded before is quantized more exactly.
"""

from __future__ import annotations

from graphopt.ir import Graph
from graphopt.passes.base import Pass


class FuseNormQuantize(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep."""
        users = graph.users()
        producers = graph.producers()
        outputs = set(graph.outputs)
        modified = False
        for node in list(graph.nodes):
            if node.op != "go.quantize_rows":
                continue
            (x,) = node.inputs
            norm = producers.get(x)
            if norm is None or norm.op != "go.norm" or len(norm.outputs) > 1:
                continue
            alone = len(users[x]) == 1 and x not in outputs
            norm.attrs["writes"] = ("packed",) if alone else ("dst", "packed")
            norm.outputs = [node.output] if alone else [x, node.output]
            if alone:  # nothing of the row is stored, in whatever type
                norm.reasons = [r for r in norm.reasons if not r.startswith("lower_bf16")]
            norm.decide(self.name, "quantizes its rows for the next multiplication")
            norm.fused.append(node.origin)
            graph.nodes.remove(node)
            modified = True
        return modified
