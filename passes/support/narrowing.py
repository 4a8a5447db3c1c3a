"""Values that are stored as bf16: who can read them, and how their readers change."""

from __future__ import annotations

from dataclasses import replace

from graphopt.ir import DType, Graph, Node, Value, scalar
from graphopt.ir.ops import Attention, Pointwise
from graphopt.ir.scalar import Scalar


class Narrowing:
    """Stores values of a graph as bf16.

    Args:
        graph: whose values are f32; no node may come or go while this is used.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.readers = graph.users()
        self._outputs = set(graph.outputs)

    def refusal(self, value: Value) -> str | None:
        """Why a value must stay f32, or None: somebody reads it who cannot read bf16."""
        if value in self._outputs:
            return "output of the graph"
        for user in self.readers[value]:
            if user.op.is_view:
                refusal = self.refusal(user.output)
                if refusal is not None:
                    return refusal
                continue
            read_as = [user.op.operand(r) for r, v in user.operands.items() if v is value]
            if not all(operand is not None and operand.bf16 for operand in read_as):
                return f"read by {user.op} in f32"
        return None

    def refuse_mixed_attention(self, refusals: dict[Node, str | None]) -> None:
        """Query, key and value have one type: if one of them stays f32, all do.

        Args:
            refusals: of the makers of values, why the value stays f32; receives more.
        """
        producers = self._graph.producers()
        attentions = [n for n in self._graph.nodes if isinstance(n.op, Attention)]
        settled = False
        while not settled:
            settled = True
            for attention in attentions:
                makers = [_maker(attention.operands[r], producers) for r in ("q", "k", "v")]
                narrow = [m for m in makers if m is not None and m in refusals and not refusals[m]]
                if narrow and len(narrow) < len(makers):
                    for maker in narrow:
                        refusals[maker] = "attention reads it beside an f32 tensor"
                    settled = False

    def narrow(self, value: Value) -> None:
        """Changes the type of a value, of views of it, and of expressions that read it."""
        value.dtype = DType.BF16
        for user in self.readers[value]:
            if user.op.is_view:
                self.narrow(user.output)
            elif isinstance(user.op, Pointwise):
                user.op.expr = _reading_bf16(user.op.expr, user, value)


def _maker(value: Value, producers: dict[Value, Node]) -> Node | None:
    """The node that makes the value behind views."""
    while (node := producers.get(value)) is not None and node.op.is_view:
        value = node.operands["x"]
    return node


def _reading_bf16(expr: Scalar, user: Node, value: Value) -> Scalar:
    inputs = user.inputs

    def leaf(s: Scalar) -> Scalar:
        if s.op in ("operand", "load") and inputs[s.value] is value:  # type: ignore[index]
            return scalar.cast(replace(s, dtype=DType.BF16), DType.F32)
        return s

    return scalar.substitute(expr, leaf)
