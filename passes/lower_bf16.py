"""Keeps intermediates in bf16 and multiplies float matrices with BFMMLA.

    %1 = go.linear(%x, weight=%w)           %1 = go.pack_rows(%x)                      # panels
    %2 = go.norm(%1)                 ->     %2 = go.linear(%1, weight=%w, format=bf16) # bf16
                                            %3 = go.norm(%2)

1. A linear that is not int8 gets `format=bf16` if the GEMM is to be bf16 too.
2. A result of a linear, norm, attention or depthwise convolution is stored as bf16 if all its
   readers take bf16. They compute in f32; only storage is narrow.
Left in f32: the residual stream (a sum that is added to again: rounding it at each of many layers
would add up), graph inputs and outputs, and what only f32 kernels read.
"""

from __future__ import annotations

from dataclasses import replace

from graphopt.ir import DType, Graph, Node, Value, scalar
from graphopt.ir.ops import Attention, Linear, PackRows, Pointwise
from graphopt.ir.ops.products import RESIDUALS
from graphopt.ir.scalar import Scalar
from graphopt.kernels.formats import BF16
from graphopt.passes.base import Pass
from graphopt.passes.support.product import PackedRows, require_finite


class LowerBf16(Pass):
    """See the module.

    Args:
        gemm: whether linears that are still float multiply in bf16.
    """

    def __init__(self, gemm: bool) -> None:
        self._gemm = gemm

    def run(self, graph: Graph) -> bool:
        """First the multiplications, then the storage between them."""
        modified = self._gemm and self._lower_linears(graph)
        self._readers = graph.users()
        self._outputs = set(graph.outputs)
        makers = [n for n in graph.nodes if n.op.STORES_BF16]
        candidates = [n for n in makers if n.output.dtype is DType.F32]
        refusals = {node: self._refusal(node) for node in candidates}
        self._refuse_mixed_attention(graph, refusals)
        for node, refusal in refusals.items():
            if refusal is None:
                self._narrow(node.output)
                node.decide(self.name, "stored as bf16")
                modified = True
            else:
                node.decide(self.name, f"kept f32: {refusal}")
        return modified

    @staticmethod
    def _refuse_mixed_attention(graph: Graph, refusals: dict[Node, str | None]) -> None:
        """Query, key and value have one type: if one of them stays f32, all do."""
        producers = graph.producers()
        attentions = [n for n in graph.nodes if isinstance(n.op, Attention)]
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

    def _lower_linears(self, graph: Graph) -> bool:
        packed = PackedRows(PackRows())
        nodes: list[Node] = []
        modified = False
        for node in graph.nodes:
            op = node.op
            if isinstance(op, Linear) and op.format is None:
                require_finite(node.operands["weight"])
                packed.give(node, nodes)
                op.format = BF16
                node.decide(self.name, "bf16: products in bf16, sums in f32")
                modified = True
            nodes.append(node)
        graph.nodes = nodes
        return modified

    def _refusal(self, node: Node) -> str | None:
        """Why the output must stay f32, or None."""
        value = node.output
        sums = any(role in node.operands for role in RESIDUALS)
        if sums and any(self._adds(user, value) for user in self._readers[value]):
            return "residual stream"
        return self._unreadable(value)

    @staticmethod
    def _adds(user: Node, value: Value) -> bool:
        return any(user.operands.get(role) is value for role in RESIDUALS)

    def _unreadable(self, value: Value) -> str | None:
        if value in self._outputs:
            return "output of the graph"
        for user in self._readers[value]:
            if user.op.is_view:
                refusal = self._unreadable(user.output)
                if refusal is not None:
                    return refusal
                continue
            read_as = [user.op.operand(r) for r, v in user.operands.items() if v is value]
            if not all(operand is not None and operand.bf16 for operand in read_as):
                return f"read by {user.op} in f32"
        return None

    def _narrow(self, value: Value) -> None:
        """Changes the type of a value, of views of it, and of expressions that read it."""
        value.dtype = DType.BF16
        for user in self._readers[value]:
            if user.op.is_view:
                self._narrow(user.output)
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
