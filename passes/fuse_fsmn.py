"""Lets a depthwise convolution do the work of the FSMN memory block around it.

    u = go.pointwise(x, mask, expr=mul(x0, x1))
    c = go.depthwise(u)                             y = go.depthwise(x, mask_in=mask, mask_out=mask,
    s = go.pointwise(c, u, expr=add(x0, x1))    ->                   identity=1)
    y = go.pointwise(s, mask, expr=mul(x0, x1))

(FSMN: Zhang et al. 2015, "Feedforward sequential memory networks".)
1. A mask [batch, time, 1] on the input becomes `mask_in`.
2. The input added to the result becomes `identity` 1 (masked input) or 2 (input before the mask).
3. A mask on the sum becomes `mask_out`.
Left alone: masks over channels, results that several nodes read.
"""

from __future__ import annotations

from graphopt.ir import Graph, Node, Value
from graphopt.ir.ops import Depthwise, Pointwise
from graphopt.passes.base import Pass
from graphopt.passes.support.pattern import Neighbours, binary, other_side


class FuseFsmn(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """Takes in one neighbour after the other until none fits."""
        modified = False
        around = Neighbours(graph)
        for node in list(graph.nodes):
            if isinstance(node.op, Depthwise):
                while self._grow(graph, node, around):
                    modified = True
        return modified

    def _grow(self, graph: Graph, node: Node, around: Neighbours) -> bool:
        """One rule, once."""
        return (
            self._take_identity(graph, node, around)
            or self._take_mask_out(graph, node, around)
            or self._take_mask_in(node, around)
        )

    def _take_identity(self, graph: Graph, node: Node, around: Neighbours) -> bool:
        op = node.as_op(Depthwise)
        if op.identity or op.stride != 1 or node.operands.keys() & {"mask_out", "residual"}:
            return False
        follower, addend = self._addition(node, around)
        x = node.operands["x"]
        if follower is None or addend is None or x.shape != node.output.shape:
            return False
        if addend is x:
            op.identity = 1
        elif (masked := self._mask(around.made_by(x, Pointwise), addend)) is not None:
            node.operands |= {"x": addend, "mask_in": masked}
            op.identity = 2
        else:
            return False
        node.decide(self.name, "adds its input to the result")
        _absorb(graph, node, follower, around)
        return True

    def _take_mask_in(self, node: Node, around: Neighbours) -> bool:
        if "mask_in" in node.operands or node.as_op(Depthwise).identity == 2:
            return False
        x = node.operands["x"]
        product = around.made_by(x, Pointwise)
        if product is None:
            return False
        for candidate in product.inputs:
            mask = self._mask(product, candidate)
            if mask is not None:
                node.operands |= {"x": candidate, "mask_in": mask}
                node.decide(self.name, "applies the mask of its input")
                return True
        return False

    def _take_mask_out(self, graph: Graph, node: Node, around: Neighbours) -> bool:
        if node.operands.keys() & {"mask_out", "residual"}:
            return False
        follower = around.only_user(node.output, Pointwise)
        mask = self._mask(follower, node.output)
        if follower is None or mask is None:
            return False
        node.operands["mask_out"] = mask
        node.decide(self.name, "applies the mask of its result")
        _absorb(graph, node, follower, around)
        return True

    @staticmethod
    def _addition(node: Node, around: Neighbours) -> tuple[Node | None, Value | None]:
        follower = around.only_user(node.output, Pointwise)
        pair = binary(follower, "add") if follower is not None else None
        addend = other_side(pair, node.output) if pair else None
        if not isinstance(addend, Value) or addend.shape != node.output.shape:
            return None, None
        return follower, addend

    @staticmethod
    def _mask(product: Node | None, value: Value) -> Value | None:
        """The other factor of `value * mask` if it is a mask over batch and time."""
        if product is None or not isinstance(product.op, Pointwise):
            return None
        pair = binary(product, "mul")
        mask = other_side(pair, value) if pair else None
        if not isinstance(mask, Value) or mask.rank != 3 or mask.shape[2] != 1:
            return None
        return mask if product.output.shape == value.shape else None


def _absorb(graph: Graph, node: Node, follower: Node, around: Neighbours) -> None:
    """The node takes the place and the result of its only reader."""
    around.absorb(node, follower)
    graph.nodes.remove(node)
    graph.nodes[graph.nodes.index(follower)] = node
