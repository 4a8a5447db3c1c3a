"""Convolution as rows times columns: its windows become rows, its filters a linear.

    %1 = go.permute(%x)                                # [B, T, C]
    %2 = go.im2col(%1, taps=(1, 3), ...)            # [B, T, 3 * C]
    %3 = go.linear(%2, weight=%w)                ...   # what went with the convolution goes along
    %4 = go.permute(%3)                                # [B, N, T]

for %4 = go.conv(%x, weight=%w, ...). So a convolution has every precision that a linear has, and
the GEMM of each. The windows are made by the kernel that packs them (`fuse_im2col`). A grouped
convolution becomes a linear for each group and a cat.
1. One tap at stride 1 without padding needs no windows: a linear in every precision.
2. With `windows`, for narrow precisions: dense and grouped convolutions with at least 16 values a
   window and 16 filters a group, as `quantize_weights` asks.
Left alone: one channel per group, which has no product of matrices, and small ones; they stay f32.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from graphopt.ir import Graph, Node, Value
from graphopt.ir.op import Op
from graphopt.ir.ops import Cat, Conv, Im2col, Linear, Permute, Slice
from graphopt.passes.base import Choice, Pass, every_node
from graphopt.passes.support.gemm import SMALLEST

_EXTRAS = ("factor", "residual0", "residual1")


class UnfoldConv(Pass):
    """See the module.

    Args:
        windows: whether convolutions of more than one tap are unfolded too.
        chosen: which of those are.
    """

    def __init__(self, windows: bool, chosen: Choice = every_node) -> None:
        self._windows, self._chosen = windows, chosen

    def run(self, graph: Graph) -> bool:
        """One sweep."""
        nodes: list[Node] = []
        modified = False
        for node in graph.nodes:
            if isinstance(node.op, Conv) and self._accepts(node):
                nodes += _Unfolded(node).nodes()
                modified = True
            else:
                nodes.append(node)
        graph.nodes = nodes
        return modified

    def _accepts(self, node: Node) -> bool:
        weight, groups = node.operands["weight"], node.as_op(Conv).groups
        if weight.data is None:
            return False
        if groups == 1 and _is_pointwise(node):
            return True
        if not self._windows or not self._chosen(node):
            return False
        if groups == node.operands["x"].shape[1]:
            node.decide(self.name, "kept f32: one channel per group")
            return False
        bias = node.operands.get("bias")
        depth, width = weight.data[0].size, weight.data.shape[0] // groups
        if min(depth, width) < SMALLEST or (groups > 1 and bias is not None and bias.data is None):
            node.decide(self.name, f"kept f32: {groups} x ({depth} x {width}) is too small")
            return False
        return True


def _is_pointwise(node: Node) -> bool:
    taps, op = node.operands["weight"].shape[2:], node.as_op(Conv)
    still = op.stride == (1, 1) and op.padding == op.behind == (0, 0)
    return still and all(extent == 1 for extent in taps)


@dataclass
class _Unfolded:
    """Writes the nodes for one convolution."""

    conv: Node
    _nodes: list[Node] = field(default_factory=list)

    def nodes(self) -> list[Node]:
        """All of them; the last one makes the value that the convolution made."""
        conv = self.conv
        out, groups = conv.output, conv.as_op(Conv).groups
        moved = self._channels_last(conv.operands["x"])
        given = conv.operands
        extras = {role: self._channels_last(given[role]) for role in _EXTRAS if role in given}
        parts = [self._group(moved, extras, g) for g in range(groups)]
        result = parts[0]
        if groups > 1:
            result = self._add(Cat(result.rank - 1), *parts)
        last = out.rank - 1
        back = Permute((0, last, *range(1, last)))
        self._nodes.append(Node(back, {"x": result}, [out], conv.origin))
        return self._nodes

    def _group(self, moved: Value, extras: dict[str, Value], g: int) -> Value:
        conv = self.conv
        weight, bias, op = conv.operands["weight"], conv.operands.get("bias"), conv.as_op(Conv)
        groups = op.groups
        assert weight.data is not None
        filters = np.split(np.moveaxis(weight.data, 1, -1), groups)[g]
        rows = filters.reshape(len(filters), -1)
        windows = self._windows(self._channels(moved, g, groups))
        if bias is not None and groups > 1:
            bias = _constant(bias, _part(bias, g, groups), g, groups)
        return self._add(
            Linear(op.activation, op.last, op.slope),
            windows,
            _constant(weight, rows, g, groups),
            bias=bias,
            **{role: self._channels(value, g, groups) for role, value in extras.items()},
        )

    def _windows(self, x: Value) -> Value:
        conv = self.conv
        if _is_pointwise(conv):
            return x
        op, taps = conv.as_op(Conv), conv.operands["weight"].shape[2:]
        height, width = (1, *taps) if len(taps) == 1 else taps
        assert isinstance(height, int) and isinstance(width, int), "filters have known sizes"
        windows = self._add(
            Im2col((height, width), op.stride, op.padding, op.dilation, op.behind), x
        )
        windows.shape = (x.shape[0], *conv.output.shape[2:], windows.shape[-1])
        return windows

    def _channels_last(self, x: Value) -> Value:
        return self._add(Permute((0, *range(2, x.rank), 1)), x)

    def _channels(self, x: Value, g: int, groups: int) -> Value:
        if groups == 1:
            return x
        extent = x.shape[-1] // groups
        return self._add(Slice(x.rank - 1, g * extent, extent), x)

    def _add(self, op: Op, *operands: Value, **named: Value | None) -> Value:
        self._nodes.append(Node.of(op, *operands, origin=self.conv.origin, shape=None, **named))
        return self._nodes[-1].output


def _part(value: Value, g: int, groups: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    assert value.data is not None
    return np.split(value.data, groups)[g]


def _constant(
    like: Value, data: np.ndarray[tuple[int, ...], np.dtype[np.float32]], g: int, groups: int
) -> Value:
    name = like.name if groups == 1 else f"{like.name}_group{g}"
    return Value(like.dtype, data.shape, name, data=np.ascontiguousarray(data))
