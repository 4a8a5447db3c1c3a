"""Removes nodes whose results nobody reads.

Kept even without readers: `go.check` (it can refuse an input), `aten.item` (it becomes one), nodes
that compute a dim (it may be in any shape) or write to a state, and the nodes that feed them. A
random draw that nobody reads goes: it has no effect on the result.
"""

from __future__ import annotations

from graphopt.ir import Graph, Node
from graphopt.passes.base import Pass


class EliminateDeadCode(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep from the outputs backwards."""
        needed = set(graph.outputs)
        kept: list[Node] = []
        for node in reversed(graph.nodes):
            if node.must_run or any(v in needed for v in node.outputs):
                kept.append(node)
                needed.update(node.inputs)
        modified = len(kept) != len(graph.nodes)
        graph.nodes = kept[::-1]
        return modified
