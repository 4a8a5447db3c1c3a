"""Convolution as rows times columns: its windows become rows, its filters a linear.

    %1 = go.permute(%x)                                # [B, T, C]
    %2 = go.patches(%1, taps=(1, 3), ...)            # [B, T, 3 * C]
    %3 = go.linear(%2, weight=%w)                ...   # what went with the convolution goes along
    %4 = go.permute(%3)                                # [B, N, T]

for %4 = go.conv(%x, weight=%w, ...). So a convolution has every precision that a linear has, and
the GEMM of each. The windows are made by the kernel that packs them (`fuse_patches`). A grouped
convolution becomes a linear for each group and a cat.
1. One tap at stride 1 without padding needs no windows: a linear in every precision.
2. With `windows`, for narrow precisions: dense and grouped convolutions with at least 16 values a
   window and 16 filters a group, as `quantize_dynamic_int8` asks.
Left alone: one channel per group, which has no product of matrices, and small ones; they stay f32.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from graphopt.ir import Graph, Node, Shape, Value
from graphopt.passes.base import Pass
from graphopt.passes.support.product import SMALLEST

_EXTRAS = ("factor", "residual0", "residual1")


class UnfoldConv(Pass):
    """See the module.

    Args:
        windows: whether convolutions of more than one tap are unfolded too.
    """

    def __init__(self, windows: bool) -> None:
        self._windows = windows

    def run(self, graph: Graph) -> bool:
        """One sweep."""
        nodes: list[Node] = []
        modified = False
        for node in graph.nodes:
            if node.op == "go.conv" and self._accepts(node):
                nodes += _Unfolded(node).nodes()
                modified = True
            else:
                nodes.append(node)
        graph.nodes = nodes
        return modified

    def _accepts(self, node: Node) -> bool:
        weight, groups = node.inputs[1], node.attrs["groups"]
        if weight.data is None:
            return False
        if groups == 1 and _is_pointwise(node):
            return True
        if not self._windows:
            return False
        if groups == node.inputs[0].shape[1]:
            node.decide(self.name, "kept f32: one channel per group")
            return False
        bias = node.operand("bias")
        depth, width = weight.data[0].size, weight.data.shape[0] // groups
        if min(depth, width) < SMALLEST or (groups > 1 and bias is not None and bias.data is None):
            node.decide(self.name, f"kept f32: {groups} x ({depth} x {width}) is too small")
            return False
        return True


def _is_pointwise(node: Node) -> bool:
    taps = node.inputs[1].shape[2:]
    still = node.attrs["stride"] == (1, 1) and node.attrs["padding"] == (0, 0)
    return still and all(extent == 1 for extent in taps)


@dataclass
class _Unfolded:
    """Writes the nodes for one convolution."""

    conv: Node
    _nodes: list[Node] = field(default_factory=list)

    def nodes(self) -> list[Node]:
        """All of them; the last one makes the value that the convolution made."""
        conv = self.conv
        x, out, groups = conv.inputs[0], conv.output, conv.attrs["groups"]
        moved = self._channels_last(x)
        extras = {r: self._channels_last(v) for r in _EXTRAS if (v := conv.operand(r)) is not None}
        parts = [self._group(moved, extras, g) for g in range(groups)]
        result = parts[0]
        if groups > 1:
            shape = (*result.shape[:-1], out.shape[1])
            result = self._add("go.cat", parts, shape, axis=len(shape) - 1)
        last = out.rank - 1
        self._nodes.append(
            Node("go.permute", [result], [out], {"axes": (0, last, *range(1, last))}, conv.origin)
        )
        return self._nodes

    def _group(self, moved: Value, extras: dict[str, Value], g: int) -> Value:
        conv = self.conv
        weight, bias, groups = conv.inputs[1], conv.operand("bias"), conv.attrs["groups"]
        assert weight.data is not None
        filters = np.split(np.moveaxis(weight.data, 1, -1), groups)[g]
        rows = filters.reshape(len(filters), -1)
        inputs = [
            self._windows(self._channels(moved, g, groups), rows.shape[1]),
            _constant(weight, rows, g, groups),
        ]
        roles = ["x", "weight"]
        if bias is not None:
            whole = groups == 1
            inputs.append(bias if whole else _constant(bias, _part(bias, g, groups), g, groups))
            roles.append("bias")
        for role, value in extras.items():
            inputs.append(self._channels(value, g, groups))
            roles.append(role)
        kept = {k: conv.attrs[k] for k in ("activation",) if k in conv.attrs}
        shape = (*inputs[0].shape[:-1], len(filters))
        return self._add("go.linear", inputs, shape, roles=tuple(roles), **kept)

    def _windows(self, x: Value, depth: int) -> Value:
        conv = self.conv
        if _is_pointwise(conv):
            return x
        taps = conv.inputs[1].shape[2:]
        return self._add(
            "go.patches",
            [x],
            (x.shape[0], *conv.output.shape[2:], depth),
            taps=(1, *taps) if len(taps) == 1 else tuple(taps),
            **{k: conv.attrs[k] for k in ("stride", "padding", "dilation")},
        )

    def _channels_last(self, x: Value) -> Value:
        axes = (0, *range(2, x.rank), 1)
        return self._add("go.permute", [x], tuple(x.shape[a] for a in axes), axes=axes)

    def _channels(self, x: Value, g: int, groups: int) -> Value:
        if groups == 1:
            return x
        extent = x.shape[-1] // groups
        attrs = {"axis": x.rank - 1, "start": g * extent, "step": 1}
        return self._add("go.slice", [x], (*x.shape[:-1], extent), **attrs)

    def _add(self, op: str, inputs: list[Value], shape: Shape, **attrs: object) -> Value:
        result = Value(inputs[0].dtype, shape)
        self._nodes.append(Node(op, inputs, [result], attrs, self.conv.origin))
        return result


def _part(value: Value, g: int, groups: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    assert value.data is not None
    return np.split(value.data, groups)[g]


def _constant(
    like: Value, data: np.ndarray[tuple[int, ...], np.dtype[np.float32]], g: int, groups: int
) -> Value:
    name = like.name if groups == 1 else f"{like.name}_group{g}"
    return Value(like.dtype, data.shape, name, data=np.ascontiguousarray(data))
