"""What a view's strides are, and which strides a kernel can read."""

from __future__ import annotations

from graphopt.ir import Layout, Node, Value
from graphopt.ir.layout import (
    broadcast_strides,
    channel_rows,
    is_contiguous,
    layout_of,
    reshaped_strides,
    row_stride,
)
from graphopt.ir.op import Strides
from graphopt.ir.ops import Expand, Permute, Slice
from graphopt.ir.symbolic import simplify


def layout_of_view(node: Node) -> Layout | None:
    """Where a view's elements lie in the memory of its source; None if they must be copied.

    Args:
        node: a view, whose source has a layout.
    """
    op, source, out = node.op, node.operands["x"], node.output
    at = layout_of(source)
    if isinstance(op, Permute):
        return Layout(at.storage, tuple(at.strides[a] for a in op.axes), at.offset)
    if isinstance(op, Slice):
        step = at.strides[op.axis]
        strides = list(at.strides)
        strides[op.axis] = simplify(step * op.step)
        return Layout(at.storage, tuple(strides), simplify(at.offset + op.start * step))
    if isinstance(op, Expand):
        return Layout(at.storage, broadcast_strides(source, out.rank), at.offset)
    new = reshaped_strides(source.shape, at.strides, out.shape)
    return None if new is None else Layout(at.storage, new, at.offset)


def can_be_read(value: Value, strides: Strides) -> bool:
    """Whether a value can be read in place by a kernel that asks for strides of some kind."""
    match strides:
        case Strides.ANY:
            return True
        case Strides.ROWS:
            return row_stride(value.shape, layout_of(value).strides) is not None
        case Strides.DENSE_LAST:
            return _dense_axis(value, -1)
        case Strides.DENSE:
            return is_contiguous(value)
        case Strides.CHANNELS:
            return _dense_axis(value, 1)
        case Strides.CHANNELS_INNERMOST:
            return channel_rows(value) is not None


def channels_innermost(rank: int) -> tuple[int, ...]:
    """Axes from slowest to fastest, channels (axis 1) last."""
    return (0, *range(2, rank), 1)


def _dense_axis(value: Value, axis: int) -> bool:
    return value.shape[axis] == 1 or layout_of(value).strides[axis] == 1
