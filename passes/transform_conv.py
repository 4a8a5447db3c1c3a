"""Lets convolutions multiply transformed tiles where that takes less time: Winograd's algorithm.

    %3 = go.conv(%1, weight=%w, padding=(1, 1))  ->  %3 = go.conv(..., winograd=True)

F(4 x 4, 3 x 3) of kernels/winograd.py makes 16 outputs by 36 multiplications a channel, not 144;
transforms, tiles that reach beyond the image, and weights, of which there are four times as many,
cost some of it. The cost model (support/conv_cuts.py) says what is left: for one image on one core,
so that neither the batch nor the machine has a say in the bits of a result.

Left alone are other filters, strides, dilations and groups than it is for, channels that are not
whole vectors, what would gain less than a quarter, such as the last layers of a residual network
(7 x 7 positions, 512 channels), whose weights come from memory, and weights by which f32 results
would err by more than a tenth of what `fp32` is held to (graphopt/compiler/bounds.py).
"""

from __future__ import annotations

from graphopt.ir import Graph, Node
from graphopt.ir.ops import Conv
from graphopt.ir.symbolic import evaluate
from graphopt.kernels import winograd
from graphopt.passes.base import Pass
from graphopt.passes.parallelize_conv import work_of
from graphopt.passes.support.conv_cuts import best_cut

_LEAST_GAIN = 1.25
_MOST_ROUNDING = 1e-5


class TransformConv(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """Decides for every convolution that is not cut into tasks yet."""
        sizes = graph.hints()
        modified = False
        for node in graph.nodes:
            if not isinstance(node.op, Conv) or node.op.winograd or node.op.tile_rows:
                continue
            if node.op.winograd_problem(node.operands["weight"].shape) is None:
                size = tuple(evaluate(extent, sizes) for extent in node.output.shape[2:])
                modified |= self._decide(node, size)
        return modified

    def _decide(self, node: Node, size: tuple[int, ...]) -> bool:
        op, weight = node.as_op(Conv), node.operands["weight"].data
        assert weight is not None, "weights are constants"
        direct = best_cut(work_of(node, 1, size), 1).cost(1)
        op.winograd = True
        gain = direct / best_cut(work_of(node, 1, size), 1).cost(1)
        rounding = winograd.rounding(weight)
        op.winograd = gain >= _LEAST_GAIN and rounding <= _MOST_ROUNDING
        said = f"F(4 x 4, 3 x 3) {gain:.2f} x as fast by the cost model, rounding {rounding:.1e}"
        if not op.winograd:
            said += f"; left direct below {_LEAST_GAIN} x or beyond {_MOST_ROUNDING:.0e}"
        node.decide(self.name, said)
        return op.winograd
