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

from dataclasses import replace

from graphopt.ir import DType, Graph, Node, Value, scalar
from graphopt.ir.ops import Linear, Pointwise, QuantizeRows, Reshape, Slice, SplitRows
from graphopt.ir.ops.contractions import doubled
from graphopt.ir.scalar import Scalar, activated
from graphopt.passes.base import Pass


class SplitActivations(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep; rows that come from `go.split_rows` are done."""
        done = {n.output for n in graph.nodes if isinstance(n.op, SplitRows)}
        users = graph.users()
        packed: set[Value] = set()
        nodes: list[Node] = []
        for node in graph.nodes:
            if (
                isinstance(node.op, QuantizeRows)
                and node.operands["x"] not in done
                and all(isinstance(user.op, Linear) for user in users[node.output])
            ):
                nodes += self._split(node)
                packed.add(node.output)
                nodes.append(node)
            elif isinstance(node.op, Linear) and node.operands["x"] in packed:
                nodes += self._sum(node)
            else:
                nodes.append(node)
        graph.nodes = nodes
        return bool(packed)

    @staticmethod
    def _split(node: Node) -> list[Node]:
        split = Node.of(SplitRows(), node.operands["x"], origin=node.origin)
        node.operands["x"] = split.output
        node.output.shape = split.output.shape
        return [split]

    def _sum(self, node: Node) -> list[Node]:
        """The linear of both rows, and the sum that finishes the original one."""
        out, given = node.output, node.operands
        whole = replace(node.as_op(Linear), activation=None, last=None)
        linear = Node.of(
            whole, given["x"], given["weight"], scale=given.get("scale"), origin=node.origin
        )
        both = linear.output
        both.shape = doubled(out.shape)
        linear.reasons = list(node.reasons)
        linear.decide(self.name, "two int8 rows per activation")
        nodes, terms = [linear], list[Value]()
        for number in range(2):
            part = Node.of(Slice(out.rank - 1, number, 1), both, origin=node.origin)
            row = Node.of(Reshape(out.shape), part.output, origin=node.origin)
            nodes += [part, row]
            terms.append(row.output)
        rest = [given[r] for r in ("bias", "factor", "residual0", "residual1") if r in given]
        operands = [*terms, *rest]
        last = Node.of(
            Pointwise(self._finished(node, operands), out.shape), *operands, origin=node.origin
        )
        last.outputs = [out]
        return [*nodes, last]

    @staticmethod
    def _finished(node: Node, operands: list[Value]) -> Scalar:
        """y0 + y1 + bias and what follows, in the order of go_epilogue."""
        leaves = iter(
            scalar.cast(scalar.operand(i, v.dtype), DType.F32) for i, v in enumerate(operands)
        )
        total = scalar.apply("add", next(leaves), next(leaves))
        if "bias" in node.operands:
            total = scalar.apply("add", total, next(leaves))
        op = node.as_op(Linear)
        if op.activation:
            total = activated(op.activation, total, op.slope)
        if "factor" in node.operands:
            total = scalar.apply("mul", total, next(leaves))
        for leaf in leaves:
            total = scalar.apply("add", total, leaf)
        return activated(op.last, total, op.slope) if op.last else total
