"""Lets the kernel that computes a result also finish it: activation, gate, residual additions.

    %1 = go.linear(%x, weight=%w, bias=%b)
    %2 = go.pointwise(%1, expr=relu(x0))           %3 = go.linear(%x, weight=%w, bias=%b,
    %3 = go.pointwise(%2, %r, expr=add(x0, x1)) ->                residual0=%r, activation=relu)

Linear and convolution: one activation, then one multiplication by a tensor of the result's shape
(as in SwiGLU: silu(gate) * up), then up to two additions of such tensors, then another activation
(as behind the shortcut of a residual network).
Depthwise convolution along time, after those: one activation, one addition.
Left alone: results that several nodes read, operands that broadcast, other orders.
"""

from __future__ import annotations

from graphopt.ir import DType, Graph, Node, Value, scalar
from graphopt.ir.ops import Conv, Depthwise, Linear, Pointwise
from graphopt.ir.ops.contractions import ACTIVATIONS, RESIDUALS
from graphopt.passes.base import Pass
from graphopt.passes.support.pattern import Neighbours, binary, other_side

_X = scalar.operand(0, DType.F32)
#: Activations by the expression that a node of its own has for them.
_EXPRESSIONS = {scalar.activated(a, _X): a for a in ACTIVATIONS if a != "leaky_relu"}


class FuseEpilogue(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """Follows each host as far as its kernel can finish the work."""
        modified = False
        around = Neighbours(graph)
        position = {node: i for i, node in enumerate(graph.nodes)}
        hosts = [n for n in graph.nodes if isinstance(n.op, Linear | Conv)]
        hosts += [n for n in graph.nodes if isinstance(n.op, Depthwise)]
        for node in hosts:
            while (follower := self._fusable(node, around)) is not None:
                self._absorb(node, follower, around)
                position[node] = position[follower]
                graph.nodes.remove(follower)
                modified = True
        graph.nodes.sort(key=position.__getitem__)
        return modified

    @staticmethod
    def _fusable(node: Node, around: Neighbours) -> Node | None:
        follower = around.only_user(node.output, Pointwise)
        if follower is None or follower.output.dtype is not DType.F32:
            return None
        named = _activation(follower)
        if named is not None:
            return follower if _place(node, *named) else None
        found = _operand(node, follower)
        if found is None or found[1].dtype is not DType.F32:
            return None
        shape = node.output.shape
        return follower if found[1].shape == shape == follower.output.shape else None

    def _absorb(self, node: Node, follower: Node, around: Neighbours) -> None:
        found = _operand(node, follower)
        if found is None:
            named = _activation(follower)
            assert named is not None, "a follower is an operand's, or an activation"
            name, slope = named
            setattr(node.op, _place(node, name, slope), name)
            if slope:
                node.op.slope = slope  # type: ignore[attr-defined]
            node.decide(self.name, f"the kernel applies {name}")
        else:
            role, value = found
            node.operands[role] = value
            verb = "multiplies by" if role == "factor" else "adds"
            node.decide(self.name, f"the kernel {verb} {role}")
        around.absorb(node, follower)


def _activation(follower: Node) -> tuple[str, float] | None:
    """The activation that a node of its own is, and its slope."""
    expr = follower.as_op(Pointwise).expr
    if expr in _EXPRESSIONS:
        return _EXPRESSIONS[expr], 0.0
    if expr.op == "where" and expr.args[2].op == "mul":
        factor = expr.args[2].args[1]
        slope = factor.value if factor.op == "const" else 0.0
        if isinstance(slope, float) and slope and expr == scalar.activated("leaky_relu", _X, slope):
            return "leaky_relu", slope
    return None


def _place(node: Node, name: str, slope: float) -> str:
    """The attribute for an activation that follows what is there; empty if there is none."""
    op = node.op
    if isinstance(op, Depthwise):
        free = (
            not slope and not op.activation and not ({"mask_out", *RESIDUALS} & set(node.operands))
        )
        return "activation" if free else ""
    assert isinstance(op, Linear | Conv)
    if slope and op.slope not in (0.0, slope):
        return ""
    if not _is_multiplied_or_added(node):
        return "" if op.activation else "activation"
    return "" if op.last else "last"


def _operand(node: Node, follower: Node) -> tuple[str, Value] | None:
    """The role and value of what the follower multiplies by or adds, if the kernel can too."""
    if isinstance(node.op, Linear | Conv) and node.op.last:
        return None
    value = _other(follower, "mul", node.output)
    if value is not None and node.op.operand("factor") and not _is_multiplied_or_added(node):
        return "factor", value
    value = _other(follower, "add", node.output)
    free = (r for r in RESIDUALS if node.op.operand(r) and r not in node.operands)
    role = next(free, None)
    return (role, value) if role and value is not None else None


def _other(follower: Node, function: str, value: Value) -> Value | None:
    pair = binary(follower, function)
    side = other_side(pair, value) if pair else None
    return side if isinstance(side, Value) else None


def _is_multiplied_or_added(node: Node) -> bool:
    return any(role in node.operands for role in ("factor", "residual0"))
