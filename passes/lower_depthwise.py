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
            if node.op == "go.depthwise"
        ]
        return any(converted) or any(padded)

    def _convert(self, graph: Graph, node: Node) -> bool:
        """Rule 1."""
        if node.op != "go.conv" or node.operand("residual0") is not None:
            return False
        x, weight = node.inputs[0], node.operand("weight")
        if weight is None or weight.data is None or weight.shape[1] != 1:
            return False
        channels = weight.shape[0]
        if node.attrs["groups"] != channels or x.shape[1] != channels:
            return False
        along_time = x.rank == 3 or (x.shape[3] == 1 and weight.shape[3] == 1)
        time = 1 if x.rank == 3 else 0
        if not along_time or (x.rank == 4 and node.attrs["padding"][1] != 0):
            return False
        pad = node.attrs["padding"][time]
        out = node.output
        rank4 = x.rank == 4
        order = (0, 2, 1, 3) if rank4 else (0, 2, 1)
        moved = Value(x.dtype, tuple(x.shape[a] for a in order))
        source = Value(x.dtype, moved.shape[:3])
        result = Value(out.dtype, (out.shape[0], out.shape[2], channels))
        taps = np.ascontiguousarray(weight.data.reshape(int(channels), -1).T)
        filters = Value(weight.dtype, taps.shape, weight.name, data=taps)
        roles, inputs = ["x", "weight"], [source, filters]
        if (bias := node.operand("bias")) is not None:
            roles.append("bias")
            inputs.append(bias)
        depthwise = Node(
            "go.depthwise",
            inputs,
            [result],
            {
                "roles": tuple(roles),
                "stride": node.attrs["stride"][time],
                "dilation": node.attrs["dilation"][time],
                "pad_left": pad,
                "identity": 0,
                "activation": node.attrs.get("activation"),
            },
            node.origin,
            node.fused,
            node.reasons,
        )
        depthwise.decide(self.name, f"one filter of {taps.shape[0]} taps a channel, along time")
        back = Value(out.dtype, tuple(out.shape[a] for a in order))
        nodes = [
            Node("go.permute", [x], [moved], {"axes": order}, node.origin),
            Node("go.reshape", [moved], [source], {}, node.origin),
            depthwise,
            Node("go.reshape", [result], [back], {}, node.origin),
            Node("go.permute", [back], [out], {"axes": order}, node.origin),
        ]
        position = graph.nodes.index(node)
        graph.nodes[position : position + 1] = nodes
        return True

    def _take_padding(self, graph: Graph, node: Node) -> bool:
        """Rule 2: looks through the views that rule 1 put between the padding and the node."""
        around = Neighbours(graph)
        value, chain = node.inputs[0], []
        while view := around.made_by(value, "go.reshape") or around.made_by(value, "go.permute"):
            chain.append(view)
            value = view.inputs[0]
        pad = around.made_by(value, "go.pad")
        if pad is None or pad.attrs["value"] != 0 or not around.is_private(value):
            return False
        axes = _axes_through(chain, value.rank)
        if axes is None:
            return False
        before, inner = pad.attrs["before"], pad.inputs[0]
        time = axes[1]
        widths = [b for a, b in enumerate(before) if a != time]
        other = [a for a in range(value.rank) if a != time]
        if any(widths) or any(inner.shape[a] != value.shape[a] for a in other):
            return False
        shape = tuple(inner.shape[a] for a in axes)
        moved = Value(inner.dtype, tuple(inner.shape[a] for a in (*axes, *_rest(axes, inner.rank))))
        source = Value(inner.dtype, shape)
        nodes = [
            Node(
                "go.permute",
                [inner],
                [moved],
                {"axes": (*axes, *_rest(axes, inner.rank))},
                pad.origin,
            ),
            Node("go.reshape", [moved], [source], {}, pad.origin),
        ]
        position = graph.nodes.index(node)
        graph.nodes[position:position] = nodes
        node.inputs[0] = source
        node.attrs["pad_left"] = symbolic.simplify(node.attrs["pad_left"] + before[time])
        node.fused.append(pad.origin)
        node.decide(self.name, "padding along time is read as zeros")
        return True


def _axes_through(chain: list[Node], rank: int) -> tuple[int, ...] | None:
    """Axes of the innermost value that become [batch, time, channels] through the chain.

    None unless it is permutes, and reshapes that drop extents of 1.
    """
    axes: list[int | None] = list(range(rank))
    for view in reversed(chain):
        if view.op == "go.permute":
            axes = [axes[a] for a in view.attrs["axes"]]
            continue
        before, after = view.inputs[0].shape, view.output.shape
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
