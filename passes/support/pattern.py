"""Questions that fusion passes ask about the neighbourhood of a node."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.ir import Graph, Node, Value
from graphopt.ir.op import Op
from graphopt.ir.ops import Pointwise


class Neighbours:
    """Producers and users of every value of a graph, as they were when it was made."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producer = graph.producers()
        self.users = graph.users()
        self._outputs = set(graph.outputs)

    def made_by(self, value: Value, op: type[Op]) -> Node | None:
        """The producer, if it is of this op."""
        node = self.producer.get(value)
        return node if node is not None and isinstance(node.op, op) else None

    def is_private(self, value: Value) -> bool:
        """True if exactly one node reads the value and the caller of the graph does not."""
        return len(self.users[value]) == 1 and value not in self._outputs

    def only_user(self, value: Value, op: type[Op]) -> Node | None:
        """The single reader of a private value, if it is of this op."""
        if not self.is_private(value):
            return None
        (node,) = self.users[value]
        return node if isinstance(node.op, op) else None

    def absorb(self, node: Node, follower: Node) -> None:
        """Records that `node` now does the work of `follower` and makes its output."""
        node.outputs = follower.outputs
        node.fused.append(follower.origin)
        self.producer[node.output] = node
        for value in follower.inputs:
            self.users[value] = [node if u is follower else u for u in self.users[value]]

    def replace(self, node: Node, other: Node) -> None:
        """Puts another node, which makes the same output, in the place of one."""
        self.graph.nodes[self.graph.nodes.index(node)] = other
        self.producer[other.output] = other
        for value in node.inputs:
            self.users[value] = [user for user in self.users[value] if user is not node]
        for value in other.inputs:
            self.users[value] = [*self.users[value], other]


@dataclass(frozen=True)
class Binary:
    """`left op right`, where one side may be a number."""

    left: Value | float
    right: Value | float


def binary(node: Node, op: str) -> Binary | None:
    """The sides of a pointwise node that is one binary function of operands or numbers."""
    expr = node.as_op(Pointwise).expr
    if expr.op != op or len(expr.args) != 2:
        return None
    inputs, sides = node.inputs, list[Value | float]()
    for arg in expr.args:
        if arg.op == "operand":
            sides.append(inputs[arg.value])  # type: ignore[index]
        elif arg.op == "const":
            sides.append(float(arg.value))  # type: ignore[arg-type]
        else:
            return None
    return Binary(*sides)


def other_side(pair: Binary, value: Value) -> Value | float | None:
    """The side that is not `value`; None if both are or neither is."""
    if (pair.left is value) == (pair.right is value):
        return None
    return pair.right if pair.left is value else pair.left
