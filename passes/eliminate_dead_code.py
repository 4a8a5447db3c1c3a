"""Removes nodes whose results nobody reads.

Kept even without readers: `go.check` (it can refuse an input), nodes that write to a state or
compute a dim that a shape, an attribute or a condition has, and the nodes that feed them. A
random draw that nobody reads goes: it has no effect on the result.
"""

from __future__ import annotations

from graphopt.ir import Graph, Node
from graphopt.ir.networks import symbols
from graphopt.ir.scalar import symbols_in
from graphopt.passes.base import Pass


class EliminateDeadCode(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep from the outputs backwards."""
        needed = set(graph.outputs)
        found = {info.symbol for info in graph.dims.values() if not info.sources}
        sizes = symbols((), graph.outputs) | symbols_in(graph.conditions)
        kept: list[Node] = []
        for node in reversed(graph.nodes):
            own = found & symbols([node], ()) if found else set()
            finds_size = bool(node.op.computes and own & sizes)
            if node.must_run or finds_size or any(v in needed for v in node.outputs):
                kept.append(node)
                needed.update(node.inputs)
                sizes |= own
        for name, info in list(graph.dims.items()):
            if not info.sources and info.symbol not in sizes:
                del graph.dims[name]
        modified = len(kept) != len(graph.nodes)
        graph.nodes = kept[::-1]
        return modified
