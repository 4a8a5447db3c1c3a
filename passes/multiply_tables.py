"""Multiplies by a table, then picks results, instead of multiplying by rows picked from it.

    %1 = go.gather(table, indices=%i)     # f32[T, S, 64]     %1 = go.linear(%q, weight=table)
    %2 = go.permute(%1, axes=(0, 2, 1))                  ->   %2 = go.pointwise(%1, %i,
    %3 = go.matmul(%q, right=%2)          # f32[T, M, S]              expr=%1[i0, i1, %i])

So are the scores of relative positions that Conformers add to those of attention: of a table of
few distances, whose rows are picked for every pair of frames.
Left alone: tables with more rows than are picked at once, and rows that somebody else reads too.
"""

from __future__ import annotations

from graphopt.ir import DType, Graph, Node, scalar
from graphopt.ir.ops import Gather, Linear, Matmul, Permute, Pointwise, Reshape
from graphopt.ir.symbolic import evaluate
from graphopt.passes.base import Pass
from graphopt.passes.support.pattern import Neighbours


class MultiplyTables(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """Rewrites each product by itself; what picked the rows is then read by nobody."""
        around, hints = Neighbours(graph), graph.hints()
        nodes: list[Node] = []
        for node in graph.nodes:
            gather = _picked(node, around) if isinstance(node.op, Matmul) else None
            if gather is not None:
                rows, picked = gather.operands["table"].shape[0], node.output.shape[-1]
                if evaluate(rows, hints) <= evaluate(picked, hints):
                    nodes += _rewritten(node, gather)
                    continue
            nodes.append(node)
        modified = nodes != graph.nodes
        graph.nodes = nodes
        return modified


def _picked(node: Node, around: Neighbours) -> Node | None:
    """What picks the columns of the right matrix out of a constant table."""
    right = node.operands["right"]
    permute = around.made_by(right, Permute)
    if permute is None or not around.is_private(right):
        return None
    *batch, last, before = permute.as_op(Permute).axes
    if (*batch, before, last) != tuple(range(right.rank)):
        return None
    rows = permute.operands["x"]
    gather = around.made_by(rows, Gather)
    if gather is None or not around.is_private(rows) or gather.as_op(Gather).format:
        return None
    table = gather.operands["table"]
    fits = table.is_constant and table.dtype is DType.F32 and table.rank == 2
    return gather if fits else None


def _rewritten(node: Node, gather: Node) -> list[Node]:
    left, indices = node.operands["left"], gather.operands["indices"]
    (out,) = node.outputs
    made = Node.of(Linear(), left, gather.operands["table"], origin=node.origin)
    shape = (*indices.shape[:-1], 1, indices.shape[-1])
    spread = Node.of(Reshape(shape), indices, origin=gather.origin)
    number = scalar.cast(scalar.operand(1, indices.dtype), DType.I64)
    places = [*map(scalar.index, range(out.rank - 1)), number]
    expr = scalar.load(0, DType.F32, places)
    pick = Node.of(Pointwise(expr, out.shape), made.output, spread.output, origin=node.origin)
    pick.outputs = [out]
    pick.decide(MultiplyTables().name, "multiplied by the table, whose rows were picked before")
    return [made, spread, pick]
