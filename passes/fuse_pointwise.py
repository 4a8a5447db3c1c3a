"""Runs neighbouring element-wise nodes in one loop.

    %1 = go.pointwise(%x, expr=mul(x0, 22.6))           %2 = go.pointwise(%x, %p,
    %2 = go.pointwise(%1, %p, expr=add(x0, x1))   ->          expr=add(mul(x0, 22.6), x1))

1. A node that only one other reads is computed inside that one, unless it would be computed again
   for every element that it is broadcast to and costs more than a few operations.
2. A node without inputs (indices, constants) is computed wherever it is read.
Left alone: results with more than eight operands or more than 80 operations an element.
"""

from __future__ import annotations

from graphopt.ir import Graph, Node, Value
from graphopt.ir.ops import Pointwise
from graphopt.ir.scalar import Scalar, operand, substitute
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
            broadcast = value.shape != node.output.shape
            if broadcast and (expr.cost > _CHEAP or _reads_broadcast_index(expr, value, node)):
                continue
            operands = {*producer.inputs, *inputs} - {value}
            uses = sum(
                s.op == "operand" and inputs[s.value] is value  # type: ignore[index]
                for s in own.walk()
            )
            if len(operands) > _MOST_OPERANDS or uses * expr.cost + own.cost > _MOST_COST:
                continue
            return producer
        return None


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
        if leaf.op == "operand":
            return operand(number[inner_inputs[leaf.value]], leaf.dtype)  # type: ignore[index]
        if leaf.op == "index":
            return Scalar("index", leaf.dtype, value=leaf.value + shift)  # type: ignore[operator]
        return leaf

    def of_node(leaf: Scalar) -> Scalar:
        if leaf.op != "operand":
            return leaf
        source = outer_inputs[leaf.value]  # type: ignore[index]
        if source is value:
            return substitute(inner.expr, of_producer)
        return operand(number[source], leaf.dtype)

    op.expr = substitute(op.expr, of_node)
    node.operands = {f"x{i}": v for i, v in enumerate(inputs)}
    node.fused.append(producer.origin)
