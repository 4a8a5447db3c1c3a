"""Looks rows up in the packed weights of an int8 linear that multiplies by the same table.

    %1 = go.gather(w, %tokens)                     %1 = go.gather(w, %tokens, scheme=int8)
    %2 = go.linear(%x, weight=w, scheme=int8)  ->  %2 = go.linear(%x, weight=w, scheme=int8)

The embedding of a language model whose head is tied to it: one copy of the largest matrix, and a
row that is the one the head multiplies by. Left alone: a table that no linear reads in int8.
"""

from __future__ import annotations

from graphopt.ir import Graph
from graphopt.ir.ops import Gather, Linear
from graphopt.passes.base import Pass


class ShareTable(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep, behind the passes that decide schemes."""
        packed = {
            node.operands["weight"]
            for node in graph.nodes
            if isinstance(node.op, Linear) and node.op.scheme == "int8"
        }
        modified = False
        for node in graph.nodes:
            op = node.op
            if not isinstance(op, Gather) or op.scheme or node.operands["table"] not in packed:
                continue
            op.scheme = "int8"
            node.decide(self.name, "int8: rows of the weights that a linear multiplies by")
            modified = True
        return modified
