"""Gives every value its place in memory: views cost nothing, kernels find what they need.

    %1 = go.permute(%0, axes=(0, 2, 1))   # strides of %0 in another order, no code
    %2 = go.linear(%1, ...)               # rows have gaps: a copy is put before it

1. Views (permute, slice, expand, reshape where strides allow) share the memory of their source.
2. Attention writes [batch, time, head, dim] and convolution writes channels innermost, because the
   next op reads rows of channels; element-wise ops, cat, pooling, scans and sorts keep the order
   of their largest operand.
3. Where a kernel needs rows at equal distance or a dense last axis and the value has none, and
   where a graph output is not dense, a copy is inserted and says why.
"""

from __future__ import annotations

from graphopt.ir import Graph, Node, Value, scalar
from graphopt.ir.layout import dense, is_contiguous, layout_of
from graphopt.ir.op import Strides
from graphopt.ir.ops import Attention, Cat, Conv, Pad, Pointwise, Pool, Scan, Sort
from graphopt.ir.scalar import read_in_place
from graphopt.ir.symbolic import evaluate
from graphopt.passes.base import Pass
from graphopt.passes.support.placing import can_be_read, channels_innermost, layout_of_view

#: Why a value that a kernel cannot read in place is copied for it.
_WHY = {
    Strides.ROWS: "rows are not at equal distance",
    Strides.DENSE_LAST: "the last axis has gaps",
    Strides.DENSE: "it reads dense tensors",
    Strides.CHANNELS: "channels are not innermost",
    Strides.CHANNELS_INNERMOST: "channels are not innermost",
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
            if node.op.is_view:
                self._view(node, nodes)
            else:
                self._prepare(node, nodes)
                self._place(node)
            nodes.append(node)
        graph.nodes = nodes

    def _view(self, node: Node, nodes: list[Node]) -> None:
        layout = layout_of_view(node)
        if layout is None:
            source = node.operands["x"]
            copy = self._copy(source, nodes, "reshape", "its strides cannot be merged")
            node.operands["x"] = copy
            layout = layout_of_view(node)
        assert layout is not None, "a dense value can be reshaped"
        node.output.layout = layout

    def _prepare(self, node: Node, nodes: list[Node]) -> None:
        """Copies inputs that the node's kernel cannot read in place."""
        for role, value in node.operands.items():
            operand = node.op.operand(role)
            if operand is None or value.packed or value.is_constant:
                continue
            why, order = _WHY.get(operand.strides, ""), None
            if operand.strides is Strides.CHANNELS or operand.strides is Strides.CHANNELS_INNERMOST:
                order = channels_innermost(value.rank)
            fits = can_be_read(value, operand.strides)
            if isinstance(node.op, Pointwise) and node.output.packed:
                walked = {f"x{i}" for i in read_in_place(node.op.expr)}
                fits = role not in walked or _runs_along_rows(value)
                why = "it computes row after row"
            if not fits:
                node.operands[role] = self._copy(value, nodes, node.op.name, why, order)

    def _place(self, node: Node) -> None:
        """Chooses the order of axes in memory of the node's outputs."""
        for value in node.outputs:
            order: tuple[int, ...] | None = None
            if not value.packed:
                if isinstance(node.op, Attention):
                    order = (0, 2, 1, 3)
                elif isinstance(node.op, Conv):
                    order = channels_innermost(value.rank)
                elif isinstance(node.op, Pointwise | Cat | Pad | Pool | Scan | Sort):
                    order = self._order_of_operands(node, value)
            value.layout = dense(value, order)

    def _order_of_operands(self, node: Node, value: Value) -> tuple[int, ...] | None:
        """The order of axes of the largest operand of the same rank, of those that it walks."""
        op = node.op
        walked = read_in_place(op.expr) if isinstance(op, Pointwise) else range(len(node.inputs))
        given = [v for i, v in enumerate(node.inputs) if i in walked]
        same = [v for v in given if v.rank == value.rank and not v.is_constant]
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
        node = Node.of(Pointwise(scalar.operand(0, value.dtype), value.shape), value)
        copied = node.output
        copied.layout = dense(copied, order)
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


def _runs_along_rows(value: Value) -> bool:
    """Whether the last axis is dense or broadcast."""
    return value.rank == 0 or value.shape[-1] == 1 or layout_of(value).strides[-1] in (0, 1)


def _count(extents: list[int]) -> int:
    total = 1
    for extent in extents:
        total *= extent
    return total
