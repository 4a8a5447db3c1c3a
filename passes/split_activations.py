"""Gives quantized activations a second int8 row for what the first one leaves over.

                                                    %1 = go.split_rows(%x)          # [.., 2, K]
    %1 = go.quantize_rows(%x)                       %2 = go.quantize_rows(%1)
    %2 = go.linear(%1, weight=%w, bias=%b)   ->     %3 = go.linear(%2, weight=%w)   # [.., 2, N]
                                                    %4 = go.pointwise(%3[.., 0, :], %3[.., 1, :],
                                                                %b, expr=add(add(x0, x1), x2))

Row and remainder are quantized by the same rule, each with its own scale; the sum of the two
products has the error of 16 bits. The weights are read once for both. Bias, activation and
residuals move into the sum, because they are no products.
Activations per row lose outliers' neighbours: Dettmers et al., "LLM.int8()" (2022), show why
language models need more.
"""

from __future__ import annotations

from graphopt.ir import DType, Graph, Node, Shape, Value, scalar
from graphopt.ir.scalar import Scalar
from graphopt.passes.base import Pass


class SplitActivations(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep; rows that come from `go.split_rows` are done."""
        done = {n.output for n in graph.nodes if n.op == "go.split_rows"}
        users = graph.users()
        packed: set[Value] = set()
        nodes: list[Node] = []
        for node in graph.nodes:
            if (
                node.op == "go.quantize_rows"
                and node.inputs[0] not in done
                and all(user.op == "go.linear" for user in users[node.output])
            ):
                nodes += self._split(node)
                packed.add(node.output)
                nodes.append(node)
            elif node.op == "go.linear" and node.inputs[0] in packed:
                nodes += self._sum(node)
            else:
                nodes.append(node)
        graph.nodes = nodes
        return bool(packed)

    @staticmethod
    def _split(node: Node) -> list[Node]:
        (x,) = node.inputs
        twice = Value(DType.F32, _doubled(x.shape))
        node.inputs = [twice]
        node.output.shape = twice.shape
        return [Node("go.split_rows", [x], [twice], {}, node.origin)]

    def _sum(self, node: Node) -> list[Node]:
        """The linear of both rows, and the sum that finishes the original one."""
        out = node.output
        both = Value(DType.F32, _doubled(out.shape))
        kept = [role for role in ("x", "weight", "scale") if node.operand(role) is not None]
        product = [v for role in kept if (v := node.operand(role)) is not None]
        linear = Node("go.linear", product, [both], dict(node.attrs), node.origin)
        linear.attrs["roles"] = tuple(kept)
        linear.attrs.pop("activation", None)
        linear.reasons = list(node.reasons)
        linear.decide(self.name, "two int8 rows per activation")
        nodes, terms = [linear], list[Value]()
        for number in range(2):
            part = Value(DType.F32, (*out.shape[:-1], 1, out.shape[-1]))
            where = {"axis": out.rank - 1, "start": number, "step": 1}
            row = Value(DType.F32, out.shape)
            nodes.append(Node("go.slice", [both], [part], where, node.origin))
            nodes.append(Node("go.reshape", [part], [row], {}, node.origin))
            terms.append(row)
        rest = [node.operand(role) for role in ("bias", "factor", "residual0", "residual1")]
        operands = [*terms, *(v for v in rest if v is not None)]
        expr = self._finished(node, operands)
        nodes.append(Node("go.pointwise", operands, [out], {"expr": expr}, node.origin))
        return nodes

    @staticmethod
    def _finished(node: Node, operands: list[Value]) -> Scalar:
        """y0 + y1 + bias, the activation, the factor, the residuals: the order of go_epilogue."""
        leaves = iter(
            scalar.cast(scalar.operand(i, v.dtype), DType.F32) for i, v in enumerate(operands)
        )
        total = scalar.apply("add", next(leaves), next(leaves))
        if node.operand("bias") is not None:
            total = scalar.apply("add", total, next(leaves))
        if activation := node.attrs.get("activation"):
            total = scalar.apply(activation, total)
        if node.operand("factor") is not None:
            total = scalar.apply("mul", total, next(leaves))
        for leaf in leaves:
            total = scalar.apply("add", total, leaf)
        return total


def _doubled(shape: Shape) -> Shape:
    return (*shape[:-1], 2, shape[-1])
