"""Runs neighbouring element-wise nodes in one loop.

    %1 = go.pointwise(%x, expr=mul(x0, 22.6))           %2 = go.pointwise(%x, %p,
    %2 = go.pointwise(%1, %p, expr=add(x0, x1))   ->          expr=add(mul(x0, 22.6), x1))

1. A node that only one other reads is computed inside that one, unless it would be computed again
   for every element that it is broadcast to, or wherever it is loaded, and costs more than a few
   operations. What is loaded is computed at the indices of the load.
2. A node without inputs (indices, constants) is computed wherever it is read.
Left alone: results with more than eight operands or more than 80 operations an element; checks of
indices that would no longer run for every element.
"""

from __future__ import annotations

from dataclasses import replace

from graphopt.ir import DType, Graph, Node, Value
from graphopt.ir.ops import Pointwise
from graphopt.ir.scalar import Scalar, const, load, substitute
from graphopt.passes.base import Pass
from graphopt.passes.support.pattern import Neighbours

_MOST_OPERANDS = 8
_MOST_COST = 80
_CHEAP = 4


class FusePointwise(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """From the first node to the last, each takes in its producers."""
        around = Neighbours(graph)
        modified = False
        for node in graph.nodes:
            if isinstance(node.op, Pointwise):
                while (producer := self._fusable(node, around)) is not None:
                    _inline(node, producer)
                    for value in producer.inputs:
                        around.users[value] = [
                            node if u is producer else u for u in around.users[value]
                        ]
                    modified = True
        if modified:
            read = {v for n in graph.nodes for v in n.inputs} | set(graph.outputs)
            graph.nodes = [
                n for n in graph.nodes if not isinstance(n.op, Pointwise) or n.output in read
            ]
        return modified

    @staticmethod
    def _fusable(node: Node, around: Neighbours) -> Node | None:
        own, inputs = node.as_op(Pointwise).expr, node.inputs
        for value in inputs:
            producer = around.made_by(value, Pointwise)
            if producer is None:
                continue
            expr = producer.as_op(Pointwise).expr
            if producer.operands and not around.is_private(value):
                continue
            reads = [s.op for s in own.walk() if _reads(s, value, inputs)]
            loaded, broadcast = "load" in reads, value.shape != node.output.shape
            if (loaded or broadcast) and expr.cost > _CHEAP:
                continue
            if broadcast and "operand" in reads and _reads_broadcast_index(expr, value, node):
                continue
            if _has(expr, "check") and (loaded or _has(own, "where", "and", "or")):
                continue
            operands, uses = {*producer.inputs, *inputs} - {value}, len(reads)
            if len(operands) > _MOST_OPERANDS or uses * expr.cost + own.cost > _MOST_COST:
                continue
            return producer
        return None


def _reads(s: Scalar, value: Value, inputs: list[Value]) -> bool:
    return s.op in ("operand", "load") and inputs[s.value] is value  # type: ignore[index]


def _has(expr: Scalar, *functions: str) -> bool:
    return any(s.op in functions for s in expr.walk())


def _reads_broadcast_index(expr: Scalar, value: Value, node: Node) -> bool:
    shift = node.output.rank - value.rank
    return any(
        s.op == "index" and value.shape[s.value] != node.output.shape[s.value + shift]  # type: ignore[operator,index]
        for s in expr.walk()
    )


def _inline(node: Node, producer: Node) -> None:
    """Replaces the operand that `producer` makes by its expression."""
    value, op, inner = producer.output, node.as_op(Pointwise), producer.as_op(Pointwise)
    outer_inputs, inner_inputs = node.inputs, producer.inputs
    inputs = [v for v in dict.fromkeys([*outer_inputs, *inner_inputs]) if v is not value]
    number = {v: i for i, v in enumerate(inputs)}
    shift = node.output.rank - value.rank

    def of_producer(leaf: Scalar) -> Scalar:
        if leaf.op == "index":
            return Scalar("index", leaf.dtype, value=leaf.value + shift)  # type: ignore[operator]
        return _renumbered(leaf, inner_inputs, number)

    def at(indices: tuple[Scalar, ...]) -> Scalar:
        """The producer's expression at other indices than those of its result."""

        def moved(leaf: Scalar) -> Scalar:
            if leaf.op == "index":
                return indices[leaf.value]  # type: ignore[index]
            if leaf.op == "operand":
                source = inner_inputs[leaf.value]  # type: ignore[index]
                own = indices[value.rank - source.rank :]
                zero = const(0, DType.I64)
                there = (zero if e == 1 else i for e, i in zip(source.shape, own, strict=True))
                return load(number[source], leaf.dtype, tuple(there))
            return _renumbered(leaf, inner_inputs, number)

        return substitute(inner.expr, moved)

    def of_node(leaf: Scalar) -> Scalar:
        if not _reads(leaf, value, outer_inputs):
            return _renumbered(leaf, outer_inputs, number)
        return at(leaf.args) if leaf.op == "load" else substitute(inner.expr, of_producer)

    op.expr = substitute(op.expr, of_node)
    node.operands = {f"x{i}": v for i, v in enumerate(inputs)}
    node.fused.append(producer.origin)


def _renumbered(leaf: Scalar, inputs: list[Value], number: dict[Value, int]) -> Scalar:
    """What reads one of some operands, with that operand's new number."""
    if leaf.op in ("operand", "load"):
        return replace(leaf, value=number[inputs[leaf.value]])  # type: ignore[index]
    return leaf
