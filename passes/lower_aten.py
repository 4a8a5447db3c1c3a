"""Turns `aten.*` nodes into `go.*` nodes.

    %3 = aten.addmm(%bias, %x, %w)          %3 = go.linear(%x, %w, %bias)
    %4 = aten.unsqueeze(%3, dim=1)    ->    %4 = go.reshape(%3)
    %5 = aten.gelu(%4)                      %5 = go.pointwise(%4, expr=gelu_erf(x0))

A node that no rule takes stays as it is, runs in torch, and carries the reason. Softmax and
reductions along inner axes are moved to the last axis by permutes, which later cost nothing or one
copy. Ops that change values in place never arrive here: capture makes them functional.
"""

from __future__ import annotations

from graphopt.ir import Graph, Node, Value
from graphopt.passes.base import Pass
from graphopt.passes.lowering import contractions, pointwise, sequences, views
from graphopt.passes.lowering.builder import Builder, Unsupported

RULES = {**views.RULES, **pointwise.RULES, **contractions.RULES, **sequences.RULES}


class LowerAten(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """Lowers every node that has a rule."""
        mapping: dict[Value, Value] = {}
        nodes: list[Node] = []
        for node in graph.nodes:
            node.inputs = [mapping.get(v, v) for v in node.inputs]
            if node.is_lowered:
                nodes.append(node)
                continue
            builder = Builder(node)
            try:
                rule = RULES.get(node.op)
                if rule is None:
                    raise Unsupported(f"no rule for {node.op}")
                result = rule(builder)
            except Unsupported as refusal:
                node.decide(self.name, f"left in torch: {refusal}")
                nodes.append(node)
                continue
            results = result if isinstance(result, list) else [result]
            for old, new in zip(node.outputs, results, strict=True):
                mapping[old] = new
                if not new.is_constant and not new.name:
                    new.name = old.name
            nodes.extend(builder.nodes)
        modified = nodes != graph.nodes
        graph.nodes = nodes
        graph.outputs = [mapping.get(v, v) for v in graph.outputs]
        return modified
