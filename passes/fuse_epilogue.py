"""Lets the kernel that computes a result also finish it: activation and residual additions.

    %1 = go.linear(%x, weight=%w, bias=%b)
    %2 = go.pointwise(%1, expr=relu(x0))           %3 = go.linear(%x, weight=%w, bias=%b,
    %3 = go.pointwise(%2, %r, expr=add(x0, x1)) ->                residual0=%r, activation=relu)

Linear and convolution: one activation, then up to two additions of tensors of the result's shape.
Depthwise convolution, after those: one addition.
Left alone: results that several nodes read, additions that broadcast, other orders.
"""

from __future__ import annotations

from graphopt.ir import DType, Graph, Node, Value
from graphopt.passes.base import Pass
from graphopt.passes.pattern import Neighbours, binary, other_side, unary

ACTIVATIONS = ("relu", "gelu_erf", "gelu_tanh", "silu", "sigmoid", "tanh")
_RESIDUALS = {
    "go.linear": ("residual0", "residual1"),
    "go.conv": ("residual0", "residual1"),
    "go.depthwise": ("residual",),
}
_WITH_ACTIVATION = ("go.linear", "go.conv")


class FuseEpilogue(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """Follows each host as far as its kernel can finish the work."""
        modified = False
        around = Neighbours(graph)
        position = {node: i for i, node in enumerate(graph.nodes)}
        hosts = [n for n in graph.nodes if n.op in _WITH_ACTIVATION]
        hosts += [n for n in graph.nodes if n.op in _RESIDUALS and n.op not in _WITH_ACTIVATION]
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
        follower = around.only_user(node.output, "go.pointwise")
        if follower is None or follower.output.dtype is not DType.F32:
            return None
        if unary(follower) in ACTIVATIONS:
            free = not node.attrs.get("activation") and node.operand("residual0") is None
            return follower if free and node.op in _WITH_ACTIVATION else None
        addend = _addend(follower, node.output)
        if addend is None or addend.dtype is not DType.F32:
            return None
        same = addend.shape == node.output.shape and follower.output.shape == node.output.shape
        return follower if same and _free_role(node) is not None else None

    def _absorb(self, node: Node, follower: Node, around: Neighbours) -> None:
        addend = _addend(follower, node.output)
        if addend is None:
            node.attrs["activation"] = unary(follower)
            node.decide(self.name, f"the kernel applies {unary(follower)}")
        else:
            role = _free_role(node) or ""
            node.add_operand(role, addend)
            node.decide(self.name, f"the kernel adds {role}")
        around.absorb(node, follower)


def _addend(follower: Node, value: Value) -> Value | None:
    pair = binary(follower, "add")
    side = other_side(pair, value) if pair else None
    return side if isinstance(side, Value) else None


def _free_role(node: Node) -> str | None:
    return next((r for r in _RESIDUALS[node.op] if node.operand(r) is None), None)
