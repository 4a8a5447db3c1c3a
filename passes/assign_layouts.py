"""Gives every value its place in memory: views cost nothing, kernels find what they need.

    %1 = go.permute(%0, axes=(0, 2, 1))   # strides of %0 in another order, no code
    %2 = go.linear(%1, ...)               # rows have gaps: a copy is put before it

1. Views (permute, slice, expand, reshape where strides allow) share the memory of their source.
2. Attention writes [batch, time, head, dim] and convolution writes channels innermost, because the
   next op reads rows of channels; element-wise ops and cat keep the order of their largest operand.
3. Where a kernel needs rows at equal distance or a dense last axis and the value has none, and
   where a graph output is not dense, a copy is inserted and says why.
"""

from __future__ import annotations

from graphopt.ir import Graph, Layout, Node, Value, scalar
from graphopt.ir.layout import dense, is_contiguous, layout_of, reshaped_strides, row_stride
from graphopt.ir.symbolic import evaluate, simplify
from graphopt.passes.base import Pass

VIEWS = ("go.permute", "go.reshape", "go.slice", "go.expand")
_ROWS = {
    "go.linear": ("x", "factor", "residual0", "residual1"),
    "go.quantize_rows": ("",),
    "go.pack_rows": ("",),
    "go.split_rows": ("",),
    "go.norm": ("x",),
    "go.softmax": ("",),
}
_DENSE = ("go.matmul", "go.gather")
_DENSE_LAST = {
    "go.attention": ("q", "k", "v"),
    "go.rope": ("q", "k", "v"),
    "go.depthwise": ("x", "residual"),
    "go.patches": ("",),
    "go.cif": ("hidden",),
}


class AssignLayouts(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep in topological order; a copy is inserted before its reader."""
        placed = all(v.layout is not None for n in graph.nodes for v in n.outputs)
        if not placed:
            self._sweep(graph)
        return self._outputs(graph) or not placed

    def _sweep(self, graph: Graph) -> None:
        self._hints = graph.hints()
        nodes: list[Node] = []
        for node in graph.nodes:
            if node.op in VIEWS:
                self._view(node, nodes)
            else:
                self._prepare(node, nodes)
                self._place(node)
            nodes.append(node)
        graph.nodes = nodes

    def _view(self, node: Node, nodes: list[Node]) -> None:
        source, out = node.inputs[0], node.output
        at = layout_of(source)
        if node.op == "go.permute":
            strides = tuple(at.strides[a] for a in node.attrs["axes"])
            out.layout = Layout(at.storage, strides, at.offset)
        elif node.op == "go.slice":
            axis, step = node.attrs["axis"], node.attrs["step"]
            offset = simplify(at.offset + node.attrs["start"] * at.strides[axis])
            strides = (
                *at.strides[:axis],
                simplify(at.strides[axis] * step),
                *at.strides[axis + 1 :],
            )
            out.layout = Layout(at.storage, strides, offset)
        elif node.op == "go.expand":
            missing = out.rank - source.rank
            padded = zip(source.shape, at.strides, strict=True)
            kept = [
                stride if extent == out.shape[missing + i] else 0
                for i, (extent, stride) in enumerate(padded)
            ]
            out.layout = Layout(at.storage, (*[0] * missing, *kept), at.offset)
        else:
            new = reshaped_strides(source.shape, at.strides, out.shape)
            if new is None:
                source = self._copy(source, nodes, "reshape", "its strides cannot be merged")
                node.inputs = [source]
                at = layout_of(source)
                new = reshaped_strides(source.shape, at.strides, out.shape)
            assert new is not None, "a dense value can be reshaped"
            out.layout = Layout(at.storage, new, at.offset)

    def _prepare(self, node: Node, nodes: list[Node]) -> None:
        """Copies inputs that the node's kernel cannot read in place."""
        roles = node.attrs.get("roles", ("",) * len(node.inputs))
        for i, (role, value) in enumerate(zip(roles, node.inputs, strict=True)):
            if value.packed or value.is_constant:
                continue
            at = layout_of(value)
            if role in _ROWS.get(node.op, ()) and row_stride(value.shape, at.strides) is None:
                node.inputs[i] = self._copy(value, nodes, node.op, "rows are not at equal distance")
            elif role in _DENSE_LAST.get(node.op, ()) and not _dense_axis(value, -1):
                node.inputs[i] = self._copy(value, nodes, node.op, "the last axis has gaps")
            elif node.op == "go.pointwise" and node.output.packed and not _runs_along_rows(value):
                node.inputs[i] = self._copy(value, nodes, node.op, "it computes row after row")
            elif node.op in _DENSE and not is_contiguous(value):
                node.inputs[i] = self._copy(value, nodes, node.op, "it reads dense tensors")
            elif node.op == "go.conv" and role in ("x", "factor", "residual0", "residual1"):
                innermost = _channels_innermost(value.rank)
                fits = (
                    _dense_axis(value, 1)
                    if role == "x"
                    else layout_of(value).strides == dense(value, innermost).strides
                )
                if not fits:
                    node.inputs[i] = self._copy(
                        value, nodes, node.op, "channels are not innermost", innermost
                    )

    def _place(self, node: Node) -> None:
        """Chooses the order of axes in memory of the node's outputs."""
        for value in node.outputs:
            order: tuple[int, ...] | None = None
            if not value.packed:
                if node.op == "go.attention":
                    order = (0, 2, 1, 3)
                elif node.op == "go.conv":
                    order = _channels_innermost(value.rank)
                elif node.op in ("go.pointwise", "go.cat", "go.pad"):
                    order = self._order_of_operands(node, value)
            value.layout = dense(value, order)

    def _order_of_operands(self, node: Node, value: Value) -> tuple[int, ...] | None:
        """The order of axes of the largest operand of the same rank."""
        same = [v for v in node.inputs if v.rank == value.rank and not v.is_constant]
        if not same:
            return None
        sizes = self._hints

        def extents(v: Value) -> list[int]:
            return [evaluate(e, sizes) for e in v.shape]

        largest = max(same, key=lambda v: _count(extents(v)))
        steps = [evaluate(s, sizes) for s in layout_of(largest).strides]
        if any(s == 0 and e != 1 for s, e in zip(steps, extents(largest), strict=True)):
            return None
        movable = [a for a in range(value.rank) if value.shape[a] != 1]
        by_stride = sorted(movable, key=lambda a: -steps[a])
        if by_stride == movable:
            return None
        order = list(range(value.rank))
        for place, axis in zip(movable, by_stride, strict=True):
            order[place] = axis
        return tuple(order)

    def _copy(
        self,
        value: Value,
        nodes: list[Node],
        reader: str,
        why: str,
        order: tuple[int, ...] | None = None,
    ) -> Value:
        copied = Value(value.dtype, value.shape)
        copied.layout = dense(copied, order)
        node = Node("go.pointwise", [value], [copied], {"expr": scalar.operand(0, value.dtype)})
        node.decide(self.name, f"copied for {reader}: {why}")
        nodes.append(node)
        return copied

    def _outputs(self, graph: Graph) -> bool:
        """Makes every output dense memory of its own; returns whether one was not.

        A copy comes right behind what it copies, whose memory need not wait for the end.
        """
        nodes = len(graph.nodes)
        taken: set[Value] = set(graph.inputs)
        makers = graph.producers()
        for i, value in enumerate(graph.outputs):
            owner = layout_of(value).storage
            if (
                value.is_constant
                or owner in taken
                or owner is not value
                or not is_contiguous(value)
            ):
                copies: list[Node] = []
                graph.outputs[i] = self._copy(value, copies, "output", "not memory of its own")
                maker = makers.get(value)
                at = graph.nodes.index(maker) + 1 if maker else len(graph.nodes)
                graph.nodes[at:at] = copies
            taken.add(graph.outputs[i])
        return len(graph.nodes) != nodes


def _dense_axis(value: Value, axis: int) -> bool:
    return value.shape[axis] == 1 or layout_of(value).strides[axis] == 1


def _runs_along_rows(value: Value) -> bool:
    """Whether the last axis is dense or broadcast."""
    return value.rank == 0 or value.shape[-1] == 1 or layout_of(value).strides[-1] in (0, 1)


def _channels_innermost(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1)


def _count(extents: list[int]) -> int:
    total = 1
    for extent in extents:
        total *= extent
    return total
