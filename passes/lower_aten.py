"""Turns `aten.*` nodes into `go.*` nodes.

    %3 = aten.addmm(%bias, %x, %w)          %3 = go.linear(%x, %w, %bias)
    %4 = aten.unsqueeze(%3, dim=1)    ->    %4 = go.reshape(%3)
    %5 = aten.gelu(%4)                      %5 = go.pointwise(%4, expr=gelu_erf(x0))

A node that no rule takes stays as it is, runs in torch, and carries the reason. A rule belongs to
one overload of an operator, with the schema that it was written for: a later torch that says
something else is not misread. Whatever a node was given is read by its rule, or has its default,
or cannot matter (`_HARMLESS` in `builder.py`, `implied` of a rule); else the node is left in torch.
Floats of 16 bits are widened where a rule is for f32, and its results rounded, as torch does it.
Softmax along an inner axis is moved to the last axis by permutes, which later cost nothing or one
copy. Ops that change values in place never arrive here: capture makes them functional.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphopt.errors import LoweringError
from graphopt.ir import Dim, Graph, Node, Value
from graphopt.ir.symbolic import evaluate, most
from graphopt.passes.base import Pass
from graphopt.passes.lowering import (
    attention,
    convolutions,
    experts,
    functions,
    indexing,
    lines,
    masks,
    norms,
    padding,
    parts,
    pointwise,
    pooling,
    products,
    rearranging,
    recurrent,
    reductions,
    resampling,
    sequences,
    views,
)
from graphopt.passes.lowering.builder import Builder, FoundKey, NotWidened, Unsupported
from graphopt.passes.lowering.schema import Rule, overload
from graphopt.passes.lowering.widening import Widening

RULES: dict[str, Rule] = {
    **views.RULES,
    **parts.RULES,
    **experts.RULES,
    **padding.RULES,
    **indexing.RULES,
    **rearranging.RULES,
    **resampling.RULES,
    **pointwise.RULES,
    **functions.RULES,
    **reductions.RULES,
    **norms.RULES,
    **pooling.RULES,
    **lines.RULES,
    **masks.RULES,
    **products.RULES,
    **attention.RULES,
    **convolutions.RULES,
    **recurrent.RULES,
    **sequences.RULES,
}


MAX_RANK = 8
"""GO_MAX_RANK of graphopt.h: axes of a tensor that a compiled part gets or gives."""


_SHARE = 4
"""A size that data decide is taken for a quarter of the most: frames for each token of speech."""


class LowerAten(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """Lowers every node that has a rule."""
        mapping: dict[Value, Value] = {}
        nodes: list[Node] = []
        widening = Widening()
        found: dict[FoundKey, Value] = {}
        for node in graph.nodes:
            node.replace_operands(mapping)
            if node.is_lowered:
                nodes.append(node)
                continue
            builder = Builder(node, found)
            try:
                made, results = lower_node(builder, widening)
            except Unsupported as refusal:
                node.decide(self.name, f"left in torch: {refusal}")
                nodes.append(node)
                continue
            except Exception as error:
                raise LoweringError(node.op.name, node.origin.source, repr(error)) from error
            for old, new in zip(node.outputs, results, strict=True):
                mapping[old] = new
                if not new.is_constant and not new.name:
                    new.name = old.name
            nodes.extend(made)
            found.update(builder.found)
            _bound(graph, builder.bounds)
        modified = nodes != graph.nodes
        graph.nodes = nodes
        graph.outputs = [mapping.get(v, v) for v in graph.outputs]
        return modified


def _bound(graph: Graph, bounds: Mapping[str, Dim]) -> None:
    """Notes the largest size of dims that nodes compute, over dims of the inputs."""
    known = {i.symbol: i.bound for i in graph.dims.values() if i.bound is not None}
    for name, bound in bounds.items():
        largest = most(bound, known)
        hint = max(1, evaluate(largest, graph.hints()) // _SHARE)
        graph.dims[name] = replace(graph.dims[name], hint=hint, bound=largest, found=False)


def lower_node(builder: Builder, widening: Widening) -> tuple[list[Node], list[Value]]:
    """The nodes that replace that of a builder, and what replaces its outputs.

    A rule that is not for floats of 16 bits gets them widened.

    Raises:
        Unsupported: with the reason, if no rule takes the node.
    """
    node = builder.node
    try:
        return builder.nodes, _lower(builder)
    except NotWidened:
        raise
    except Unsupported:
        builder.found.clear()
        builder.bounds.clear()
        if builder.op.dim or not widening.concerns(node):
            raise
    return widening.lower(node, _lower)


def _lower(builder: Builder) -> list[Value]:
    """What replaces the outputs of the builder's node; raises Unsupported with the reason."""
    schema = builder.op.schema
    rule = RULES.get(overload(schema))
    if rule is None:
        raise Unsupported(f"no rule for {overload(schema)}")
    if rule.schema != schema:
        raise Unsupported(f"its rule is for {rule.schema}, this torch has {schema}")
    node = builder.node
    rank = max((v.rank for v in (*node.inputs, *node.outputs)), default=0)
    if rank > MAX_RANK:
        raise Unsupported(f"a tensor of {rank} axes")
    result = rule.lower(builder)
    builder.refuse_unread(rule)
    if builder.op.dim and not any(n.op.computes == builder.op.dim for n in builder.nodes):
        raise Unsupported("a size of its result that torch knows once it has run")
    return result if isinstance(result, list) else [result]
