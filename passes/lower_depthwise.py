"""Recognizes depthwise convolution along time, whatever shape the model wrote it in.

    p = go.pad(go.permute(u))                     # [batch, channels, left + time + right]
    c = go.conv(p, weight, groups=channels)  ->   y = go.depthwise(u, weight, pad_left=left)
                                                  c = go.permute(y)

1. A convolution with one filter a channel, along one axis, 1-D or 2-D with an extent of 1, becomes
   `go.depthwise` on [batch, time, channels].
2. Zero padding along time becomes `pad_left`; the zeros behind the end are implied by the result's
   length.
Left alone: depthwise convolution over two axes, a channel multiplier, other padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphopt.ir import Graph, Node, Value, symbolic
from graphopt.ir.ops import Conv, Depthwise, Pad, Permute, Reshape
from graphopt.ir.ops.contractions import is_finished
from graphopt.passes.base import Pass
from graphopt.passes.support.pattern import Neighbours


class LowerDepthwise(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """First the convolutions, then the padding before them."""
        converted = [self._convert(graph, node) for node in list(graph.nodes)]
        padded = [
            self._take_padding(graph, node)
            for node in list(graph.nodes)
            if isinstance(node.op, Depthwise)
        ]
        return any(converted) or any(padded)

    def _convert(self, graph: Graph, node: Node) -> bool:
        """Rule 1."""
        op = node.op
        if not isinstance(op, Conv) or is_finished(node):
            return False
        x, weight = node.operands["x"], node.operands["weight"]
        if weight.data is None or weight.shape[1] != 1:
            return False
        channels = weight.shape[0]
        if op.groups != channels or x.shape[1] != channels:
            return False
        along_time = x.rank == 3 or (x.shape[3] == 1 and weight.shape[3] == 1)
        time = 1 if x.rank == 3 else 0
        if not along_time or (x.rank == 4 and (op.padding[1], op.behind[1]) != (0, 0)):
            return False
        out = node.output
        order = (0, 2, 1, 3) if x.rank == 4 else (0, 2, 1)
        moved = Node.of(Permute(order), x, origin=node.origin)
        source = Node.of(Reshape(moved.output.shape[:3]), moved.output, origin=node.origin)
        taps = np.ascontiguousarray(weight.data.reshape(int(channels), -1).T)
        filters = Value(weight.dtype, taps.shape, weight.name, data=taps)
        depthwise = Node.of(
            Depthwise(
                op.stride[time],
                op.dilation[time],
                op.padding[time],
                out.shape[2],
            ),
            source.output,
            filters,
            bias=node.operands.get("bias"),
            origin=node.origin,
        )
        depthwise.fused, depthwise.reasons = node.fused, node.reasons
        depthwise.decide(self.name, f"one filter of {taps.shape[0]} taps a channel, along time")
        shape = tuple(out.shape[a] for a in order)
        back = Node.of(Reshape(shape), depthwise.output, origin=node.origin)
        last = Node(Permute(order), {"x": back.output}, [out], node.origin)
        nodes = [moved, source, depthwise, back, last]
        position = graph.nodes.index(node)
        graph.nodes[position : position + 1] = nodes
        return True

    def _take_padding(self, graph: Graph, node: Node) -> bool:
        """Rule 2: looks through the views that rule 1 put between the padding and the node."""
        around = Neighbours(graph)
        value, chain = node.operands["x"], []
        while view := around.made_by(value, Reshape) or around.made_by(value, Permute):
            chain.append(view)
            value = view.operands["x"]
        pad = around.made_by(value, Pad)
        if pad is None or pad.as_op(Pad).value != 0 or not around.is_private(value):
            return False
        axes = _axes_through(chain, value.rank)
        if axes is None:
            return False
        before, inner = pad.as_op(Pad).before, pad.operands["x"]
        time = axes[1]
        widths = [b for a, b in enumerate(before) if a != time]
        other = [a for a in range(value.rank) if a != time]
        if any(widths) or any(inner.shape[a] != value.shape[a] for a in other):
            return False
        shape = tuple(inner.shape[a] for a in axes)
        moved = Node.of(Permute((*axes, *_rest(axes, inner.rank))), inner, origin=pad.origin)
        source = Node.of(Reshape(shape), moved.output, origin=pad.origin)
        position = graph.nodes.index(node)
        graph.nodes[position:position] = [moved, source]
        node.operands["x"], op = source.output, node.as_op(Depthwise)
        op.pad_left = symbolic.simplify(op.pad_left + before[time])
        node.fused.append(pad.origin)
        node.decide(self.name, "padding along time is read as zeros")
        return True


def _axes_through(chain: list[Node], rank: int) -> tuple[int, ...] | None:
    """Axes of the innermost value that become [batch, time, channels] through the chain.

    None unless it is permutes, and reshapes that drop extents of 1.
    """
    axes: list[int | None] = list(range(rank))
    for view in reversed(chain):
        if isinstance(view.op, Permute):
            axes = [axes[a] for a in view.op.axes]
            continue
        before, after = view.operands["x"].shape, view.output.shape
        kept = [i for i, e in enumerate(before) if e != 1]
        if [before[i] for i in kept] != [e for e in after if e != 1]:
            return None
        axes = _follow_units(axes, before, after)
    found = tuple(a for a in axes if a is not None)
    return found if len(axes) == len(found) == 3 else None


def _follow_units(
    axes: list[int | None], before: Sequence[object], after: Sequence[object]
) -> list[int | None]:
    """Axes behind a reshape that drops or adds extents of 1; None where it adds one.

    Extents of 1 on both sides are the same axis from the left on, as far as there are any.
    """
    result: list[int | None] = []
    at = 0
    for extent in after:
        while at < len(before) and before[at] == 1 and extent != 1:
            at += 1
        if at < len(before) and before[at] == extent:
            result.append(axes[at])
            at += 1
        else:
            result.append(None)
    return result


def _rest(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return tuple(a for a in range(rank) if a not in axes)
