"""Multiplies by int4 weights and int8 activations.

                                              %1 = go.quantize_rows(%x)            # qa8r
    %1 = go.linear(%x, weight=%w)      ->     %2 = go.linear(%1, weight=%w, scheme=int4, group=32)

Weights: symmetric int4, a bf16 scale per block of `group` values along the depth, or one f32 scale
per output channel (`group=0`). Activations: int8 per row at run time. kernels/reference.py defines
all of it. One quantized tensor serves all linears that read the same input. A linear with an
operand `scale` has its weights in blocks: i8 [n, k] and bf16 [n, k / group] are taken as they are.
Left alone: a depth or width below 16, and linears whose result the graph returns: the head of a
language model, where int8 costs little and int4 is seen in every token.
"""

from __future__ import annotations

from graphopt.errors import GroupSizeError
from graphopt.ir import Graph, Node, Value
from graphopt.passes.base import Pass
from graphopt.passes.product import SMALLEST, quantized_rows, require_finite

_LONGEST = 1024


class QuantizeWeightsInt4(Pass):
    """See the module.

    Args:
        group: values that share a scale, a multiple of 32 up to 1024; 0 for whole channels.
    """

    def __init__(self, group: int) -> None:
        self._group = group

    def run(self, graph: Graph) -> bool:
        """Rewrites every linear that is worth it."""
        returned = set(graph.outputs)
        quantized = quantized_rows()
        nodes: list[Node] = []
        modified = False
        for node in graph.nodes:
            if node.op == "go.linear" and "scheme" not in node.attrs:
                given = node.operand("scale")
                if node.output in returned and given is None:
                    node.decide(self.name, "not int4: the graph returns its result")
                elif given is not None or self._accepts(node):
                    quantized.give(node, nodes)
                    group = self._group if given is None else _block_length(node, given)
                    node.attrs |= {"scheme": "int4", "group": group}
                    modified = True
            nodes.append(node)
        graph.nodes = nodes
        return modified

    def _accepts(self, node: Node) -> bool:
        weight = node.inputs[1]
        width, depth = weight.shape
        assert isinstance(depth, int) and weight.data is not None
        if min(depth, weight.data.shape[0]) < SMALLEST:
            node.decide(self.name, f"not int4: {depth} x {width} is too small")
            return False
        fits = 0 <= self._group <= _LONGEST and self._group % 32 == 0
        if not fits or (self._group and depth % self._group):
            raise GroupSizeError(self._group, weight.name, depth)
        require_finite(weight)
        per = f"block of {self._group}" if self._group else "channel"
        node.decide(self.name, f"int4: weights per {per}, activations int8 per row")
        return True


def _block_length(node: Node, scale: Value) -> int:
    depth, blocks = node.inputs[1].shape[1], scale.shape[1]
    assert isinstance(depth, int) and isinstance(blocks, int)
    node.decide("quantize_weights_int4", "int4 as it came, activations int8 per row")
    return depth // blocks
