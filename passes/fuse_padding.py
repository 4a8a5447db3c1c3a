"""Takes zeros around an image into the convolution that reads it.

    %1 = go.pad(%x, before=(0, 0, 0, 0), value=0)  # one more row and column behind the others
    %2 = go.conv(%1, padding=(0, 0))              ->   %2 = go.conv(%x, padding=(0, 0),
                                                                   behind=(1, 1))

So padding that is not the same on both sides costs no copy of the image.
Left alone: zeros between channels or images, other values, as many zeros as a size says.
"""

from __future__ import annotations

from graphopt.ir import Graph, Node
from graphopt.ir.ops import Conv, Pad
from graphopt.ir.symbolic import simplify
from graphopt.passes.base import Pass


class FusePadding(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep; a padded image that something else reads too stays beside."""
        producers = graph.producers()
        modified = False
        for node in graph.nodes:
            if not isinstance(node.op, Conv):
                continue
            pad = producers.get(node.operands["x"])
            if pad is not None and isinstance(pad.op, Pad) and self._take(node, pad):
                modified = True
        if modified:
            read = {v for n in graph.nodes for v in n.inputs} | set(graph.outputs)
            graph.nodes = [n for n in graph.nodes if not isinstance(n.op, Pad) or n.output in read]
        return modified

    def _take(self, conv: Node, pad: Node) -> bool:
        x, out, given = pad.operands["x"], pad.output, pad.as_op(Pad)
        around = [
            (before, simplify(whole - extent - before))
            for before, extent, whole in zip(given.before, x.shape, out.shape, strict=True)
        ]
        if given.value != 0 or around[:2] != [(0, 0), (0, 0)]:
            return False
        zeros: list[tuple[int, int]] = []
        for before, behind in around[2:]:
            if not isinstance(before, int) or not isinstance(behind, int):
                return False
            if min(before, behind) < 0:
                return False
            zeros.append((before, behind))
        op = conv.as_op(Conv)
        rows, columns = [(0, 0)] * (2 - len(zeros)) + zeros
        op.padding = (op.padding[0] + rows[0], op.padding[1] + columns[0])
        op.behind = (
            op.behind[0] + rows[1] - rows[0],
            op.behind[1] + columns[1] - columns[0],
        )
        conv.operands["x"] = x
        conv.fused.append(pad.origin)
        conv.decide(self.name, "reads zeros around the image where there is none")
        return True
