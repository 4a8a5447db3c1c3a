"""Keeps rows that an f32 product reads side by side out of each other's way in the cache.

    %1 = go.norm(%0, ...)        # rows of 1024 values: strides (1024 * T, 1024, 1)
    %2 = go.linear(%1, ...)  ->  # strides (1040 * T, 1040, 1)

The f32 GEMM reads a dozen rows of its left operand at once. Where they are a multiple of 4 KiB
apart, they share one set of a first-level cache with fewer ways, and each evicts the others before
it is used up: a sixth of the speed. So such rows get a gap of a cache line behind them.
Left alone: inputs and outputs of the graph, packed operands, and what some kernel or view can
read without the gap only.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphopt.ir import Graph, Node, Value
from graphopt.ir.layout import ROW_GAP, layout_of, row_stride, with_row_gaps
from graphopt.ir.ops import Attention, Conv, Depthwise, Linear, Norm, Pointwise, Recurrent
from graphopt.kernels.formats import F32
from graphopt.passes.base import Pass
from graphopt.passes.support.pattern import Neighbours
from graphopt.passes.support.placing import can_be_read, layout_of_view

_SET_BYTES = 4096  # addresses at this distance share a set, in the caches of most cores
_MAKERS = (Attention, Conv, Depthwise, Linear, Norm, Pointwise, Recurrent)


class SpreadRows(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """Tries each value that owns its memory, with all views of it."""
        around, outputs = Neighbours(graph), set(graph.outputs)
        modified = False
        for node in graph.nodes:
            if isinstance(node.op, _MAKERS):
                modified |= self._spread(node, around, outputs)
        return modified

    def _spread(self, node: Node, around: Neighbours, outputs: set[Value]) -> bool:
        value = node.outputs[0]
        if value.packed or layout_of(value).storage is not value:
            return False
        views = list(_views(value, around))
        values = [value, *(view.output for view in views)]
        steps = [step for v in values if (step := _crowded(v, around)) is not None]
        if not steps or not outputs.isdisjoint(values):
            return False
        before = [v.layout for v in values]
        value.layout = with_row_gaps(value, steps[0])
        if value.layout is None or not _follow(views, around, values):
            for v, layout in zip(values, before, strict=True):
                v.layout = layout
            return False
        node.decide(self.name, f"a gap of {ROW_GAP} values behind rows of {steps[0]}")
        return True


def _views(value: Value, around: Neighbours) -> Iterator[Node]:
    """Views of a value and of those, sources first."""
    for user in around.users[value]:
        if user.op.is_view:
            yield user
            yield from _views(user.output, around)


def _crowded(value: Value, around: Neighbours) -> int | None:
    """The distance of rows that f32 products read side by side in a value, if it is unlucky."""
    step = row_stride(value.shape, layout_of(value).strides)
    if not isinstance(step, int) or step * value.dtype.itemsize % _SET_BYTES:
        return None
    readers = (n for n in around.users[value] if isinstance(n.op, Linear))
    read = any(n.operands["x"] is value and n.as_op(Linear).decided is F32 for n in readers)
    return step if read else None


def _follow(views: list[Node], around: Neighbours, values: list[Value]) -> bool:
    """Gives views the layout that their sources have now; whether all readers can read them."""
    for view in views:
        layout = layout_of_view(view)
        if layout is None:
            return False
        view.output.layout = layout
    return all(
        can_be_read(value, operand.strides)
        for value in values
        for reader in around.users[value]
        if not reader.op.is_view
        for role, given in reader.operands.items()
        if given is value and (operand := reader.op.operand(role)) is not None
    )
