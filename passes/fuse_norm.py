"""Makes one node of a norm that a model wrote out.

    s = go.pointwise(x, expr=mul(x0, x0))
    m = go.reduce(s, kind=mean, axes=(2))
    r = go.pointwise(m, expr=add(x0, eps))      ->    y = go.norm(x, weight, eps=eps, rms=True)
    r = go.pointwise(r, expr=rsqrt(x0))
    y = go.pointwise(x, r, expr=mul(x0, x1))
    y = go.pointwise(y, weight, expr=mul(x0, x1))

1. Rows times the reciprocal root of their mean square, or over the root, are an RMS norm; the same
   of rows less their mean a layer norm. A mean may be a sum over the width.
2. A constant for each channel, multiplied before or behind, becomes the weight; one that is added
   behind, the bias.
Left alone: norms over other axes, eps of 0 (a row of zeros is NaN there), unbiased variances.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.ir import DType, Graph, Node, Value, constant
from graphopt.ir.ops import Norm, Pointwise, Reduce
from graphopt.ir.scalar import Scalar
from graphopt.passes.base import Pass
from graphopt.passes.support.pattern import Neighbours, binary, other_side


@dataclass(frozen=True)
class _Root:
    """The root of the mean square of rows, or of rows less their mean, or its reciprocal."""

    x: Value
    rms: bool
    eps: float
    inverse: bool


class FuseNorm(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep."""
        around = _Norms(graph)
        modified = False
        for node in list(graph.nodes):
            if isinstance(node.op, Pointwise) and (norm := around.norm_of(node)) is not None:
                norm.decide(self.name, "one pass over its rows")
                around.replace(node, norm)
                for role in ("weight", "bias"):
                    around.take_channels(norm, role)
                modified = True
        return modified


class _Norms(Neighbours):
    """What values are, by how they are computed."""

    def norm_of(self, node: Node) -> Node | None:
        """The norm that a node multiplies or divides last."""
        for function in ("mul", "div"):
            pair = binary(node, function)
            if pair is None or node.output.dtype is not DType.F32:
                continue
            sides = [(pair.left, pair.right), (pair.right, pair.left)]
            for rows, root in sides[: 2 if function == "mul" else 1]:
                if isinstance(rows, Value) and isinstance(root, Value):
                    found = self._root(root)
                    if found is not None and found.inverse == (function == "mul"):
                        return self._norm(node, rows, found)
        return None

    def _norm(self, node: Node, rows: Value, root: _Root) -> Node | None:
        x, weight = root.x, None
        if not self._is_numerator(rows, root):
            product = self.made_by(rows, Pointwise)
            pair = binary(product, "mul") if product is not None else None
            sides = [] if pair is None else [(pair.left, pair.right), (pair.right, pair.left)]
            for inner, factor in sides:
                if isinstance(inner, Value) and self._is_numerator(inner, root):
                    weight = _channels(factor, x)
            if weight is None:
                return None
        if x.shape != node.output.shape or x.dtype is not DType.F32:
            return None
        norm = Node.of(Norm(root.eps, root.rms), x, origin=node.origin, weight=weight)
        norm.outputs = node.outputs
        return norm

    def _is_numerator(self, rows: Value, root: _Root) -> bool:
        return rows is root.x if root.rms else self._centered(rows) is root.x

    def _root(self, value: Value) -> _Root | None:
        node = self.made_by(value, Pointwise)
        expr = node.as_op(Pointwise).expr if node is not None else None
        if node is None or expr is None or expr.op not in ("sqrt", "rsqrt"):
            return None
        (below,) = expr.args
        if below.op == "operand":
            node = self.made_by(node.inputs[0], Pointwise)
            pair = binary(node, "add") if node is not None else None
        else:
            pair = binary(_part(node, below), "add")
        if pair is None:
            return None
        mean, eps = (
            (pair.right, pair.left) if isinstance(pair.left, float) else (pair.left, pair.right)
        )
        if not isinstance(mean, Value) or not isinstance(eps, float) or not eps > 0:
            return None
        squares = self._mean_of(mean)
        found = None if squares is None else self._squared(squares)
        return None if found is None else _Root(*found, eps, expr.op == "rsqrt")

    def _squared(self, squares: Value) -> tuple[Value, bool] | None:
        """The rows of which these are the squares, and whether they are as they came."""
        node = self.made_by(squares, Pointwise)
        if node is None:
            return None
        if (pair := binary(node, "mul")) is not None:
            if pair.left is not pair.right or not isinstance(pair.left, Value):
                return None
            x = self._centered(pair.left)
            return (pair.left, True) if x is None else (x, False)
        expr = node.as_op(Pointwise).expr
        if expr.op != "mul" or expr.args[0] != expr.args[1]:
            return None
        x = self._difference(_part(node, expr.args[0]))
        return None if x is None else (x, False)

    def _centered(self, rows: Value) -> Value | None:
        """The x of `x - mean(x)`."""
        node = self.made_by(rows, Pointwise)
        return None if node is None else self._difference(node)

    def _difference(self, node: Node) -> Value | None:
        pair = binary(node, "sub")
        if pair is None or not isinstance(pair.left, Value) or not isinstance(pair.right, Value):
            return None
        return pair.left if self._mean_of(pair.right) is pair.left else None

    def _mean_of(self, value: Value) -> Value | None:
        """The rows of which a value is the mean, with an axis of 1 in place of theirs."""
        reduced, total = self.made_by(value, Reduce), "mean"
        if reduced is None:
            node = self.made_by(value, Pointwise)
            pair = binary(node, "div") if node is not None else None
            if pair is None or not isinstance(pair.left, Value):
                return None
            reduced, total = self.made_by(pair.left, Reduce), "sum"
            if reduced is None or pair.right != reduced.operands["x"].shape[-1]:
                return None
        x, op = reduced.operands["x"], reduced.as_op(Reduce)
        fits = op.kind == total and op.axes == (x.rank - 1,) and value.rank == x.rank
        return x if fits else None

    def take_channels(self, norm: Node, role: str) -> None:
        """Rule 2, behind a norm."""
        follower = self.only_user(norm.output, Pointwise)
        if follower is None or role in norm.operands or "bias" in norm.operands:
            return
        pair = binary(follower, "mul" if role == "weight" else "add")
        other = None if pair is None else other_side(pair, norm.output)
        channels = None if other is None else _channels(other, norm.output)
        if channels is None or follower.output.shape != norm.output.shape:
            return
        norm.operands[role] = channels
        self.absorb(norm, follower)
        self.graph.nodes.remove(follower)


def _part(node: Node, expr: Scalar) -> Node:
    """A node that computes a part of what another does."""
    return Node(Pointwise(expr, node.output.shape), node.operands, node.outputs)


def _channels(value: Value | float, rows: Value) -> Value | None:
    """A constant with a number for each channel of rows, of one axis."""
    width = rows.shape[-1]
    if not isinstance(value, Value) or value.data is None or value.dtype is not DType.F32:
        return None
    if value.data.shape[-1:] != (width,) or value.data.size != width:
        return None
    return value if value.rank == 1 else constant(value.data.reshape(-1), value.name)
