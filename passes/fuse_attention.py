"""Turns the arithmetic of attention into one node that never stores the score matrix.

    %1 = go.permute(%k, axes=(0, 1, 3, 2))
    %2 = go.matmul(%q, %1)
    %3 = go.pointwise(%2, expr=div(x0, 11.3))         %5 = go.attention(%q, k=%k, v=%v, mask=%mask,
    %4 = go.pointwise(%3, %mask, expr=add(x0, x1))  ->                  scale=0.088)
    %5 = go.matmul(go.softmax(%4), %v)

1. Scaling of the query, or of the scores before the mask is added, becomes `scale`.
2. An additive f32 mask that broadcasts to the scores is taken along; so is `masked_fill`: a mask of
   that value where it hides, which takes the place of a score (`replaces`), NaN or not.
A row whose scores are all -inf stays NaN, as the softmax that was written gives.
Left alone: scores that something else reads, dropout, scaling after the mask or by 0 or what is not
finite, other ranks than 4, masks that widen the scores, and fills of 0.
"""

from __future__ import annotations

import math
from typing import TypeGuard

from graphopt.ir import DType, Graph, Node, Value, scalar
from graphopt.ir.ops import Attention, Matmul, Permute, Pointwise, Softmax
from graphopt.passes.base import Pass
from graphopt.passes.support.pattern import Neighbours, binary, other_side

_SWAP_LAST = (0, 1, 3, 2)


class FuseAttention(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """Fuses every match; matches do not overlap."""
        around = Neighbours(graph)
        modified = False
        for node in list(graph.nodes):
            if isinstance(node.op, Softmax) and not node.op.log:
                modified |= self._fuse(graph, around, node)
        return modified

    def _fuse(self, graph: Graph, around: Neighbours, softmax: Node) -> bool:
        weighted = around.only_user(softmax.output, Matmul)
        probabilities = softmax.output
        if weighted is None or probabilities.rank != 4:
            return False
        if weighted.operands["left"] is not probabilities:
            return False
        value = softmax.operands["x"]
        scale, mask, extra, replaces = 1.0, None, list[Node](), False
        while (step := around.made_by(value, Pointwise)) is not None:
            if not around.is_private(value):
                return False
            found = self._step(step, around)
            if found is None:
                return False
            value, added, factor, made = found
            if added is not None:
                if mask is not None or scale != 1.0:
                    return False
                mask, extra, replaces = added, made, bool(made)
            scale *= factor
        scores = around.made_by(value, Matmul)
        if scores is None or not around.is_private(value):
            return False
        if value.shape != softmax.output.shape:
            return False
        q, factor = self._unscaled(scores.operands["left"], around)
        transposed = scores.operands["right"]
        extra.append(Node.of(Permute(_SWAP_LAST), transposed, origin=scores.origin))
        attention = Node.of(
            Attention(scale * factor, replaces=replaces),
            q,
            extra[-1].output,
            weighted.operands["right"],
            mask=mask,
            origin=weighted.origin,
        )
        attention.outputs = weighted.outputs
        attention.fused = [scores.origin, softmax.origin]
        attention.decide(self.name, "scores stay in cache: matmul, scale, mask, softmax and matmul")
        position = graph.nodes.index(weighted)
        graph.nodes[position : position + 1] = [*extra, attention]
        return True

    @staticmethod
    def _step(
        step: Node, around: Neighbours
    ) -> tuple[Value, Value | None, float, list[Node]] | None:
        """One node between matmul and softmax: (scores, mask, factor, new nodes)."""
        for op, power in (("mul", 1.0), ("div", -1.0)):
            pair = binary(step, op)
            if pair and isinstance(pair.left, Value) and _scales(pair.right):
                return pair.left, None, pair.right**power, []
        pair = binary(step, "add")
        if pair and isinstance(pair.left, Value) and isinstance(pair.right, Value):
            for scores in (pair.left, pair.right):
                mask = other_side(pair, scores)
                if isinstance(mask, Value) and _leads_to_matmul(scores, around):
                    return scores, mask, 1.0, []
        return _masked_fill(step)

    @staticmethod
    def _unscaled(q: Value, around: Neighbours) -> tuple[Value, float]:
        """The query before a private multiplication with a number, and the number.

        A permute between the two moves behind the attention's own reading of the query.
        """
        node = around.made_by(q, Pointwise)
        if node is not None and around.is_private(q):
            pair = binary(node, "mul")
            if pair and isinstance(pair.left, Value) and _scales(pair.right):
                return pair.left, pair.right
        permute = around.made_by(q, Permute)
        if permute is not None and around.is_private(q):
            inner, factor = FuseAttention._unscaled(permute.operands["x"], around)
            if factor != 1.0:
                permute.operands["x"] = inner
                return q, factor
        return q, 1.0


def _scales(factor: Value | float) -> TypeGuard[float]:
    return isinstance(factor, float) and math.isfinite(factor) and factor != 0.0


def _leads_to_matmul(value: Value, around: Neighbours) -> bool:
    while (node := around.made_by(value, Pointwise)) is not None and node.operands:
        value = node.operands["x0"]
    return around.made_by(value, Matmul) is not None


def _masked_fill(step: Node) -> tuple[Value, Value | None, float, list[Node]] | None:
    expr = step.as_op(Pointwise).expr
    if expr.op != "where" or [a.op for a in expr.args] != ["operand", "const", "operand"]:
        return None
    hide, fill, scores = (a.value for a in expr.args)
    assert isinstance(hide, int) and isinstance(scores, int)
    assert isinstance(fill, int | float)
    if fill == 0:
        return None
    hidden = step.inputs[hide]
    added = scalar.apply(
        "where",
        scalar.operand(0, DType.BOOL),
        scalar.const(fill, DType.F32),
        scalar.const(0.0, DType.F32),
    )
    node = Node.of(Pointwise(added, hidden.shape), hidden, origin=step.origin)
    return step.inputs[scores], node.output, 1.0, [node]
