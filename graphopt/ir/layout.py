"""Strides: how views of a value address the memory of another."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.ir import Dim, Layout, Shape, Value
from graphopt.ir.symbolic import contiguous_strides, product, ratio, simplify

#: Elements that are left out behind a row where rows are not dense (`spread_rows`).
ROW_GAP = 16


def dense(value: Value, order: Sequence[int] | None = None) -> Layout:
    """A layout of its own memory, axes from slowest to fastest as in `order`."""
    order = tuple(order) if order is not None else tuple(range(value.rank))
    packed = contiguous_strides(tuple(value.shape[a] for a in order))
    strides: list[Dim] = [0] * value.rank
    for axis, stride in zip(order, packed, strict=True):
        strides[axis] = stride
    return Layout(value, tuple(strides))


def layout_of(value: Value) -> Layout:
    """The layout of a value; row-major memory of its own if none was assigned."""
    return value.layout or dense(value)


def is_contiguous(value: Value) -> bool:
    """Whether the elements lie in row-major order without gaps (offset aside)."""
    return same_strides(layout_of(value).strides, contiguous_strides(value.shape), value.shape)


def same_strides(a: Shape, b: Shape, shape: Shape) -> bool:
    """Whether two strides address alike; the stride of an extent of 1 does not matter.

    Args:
        a: strides in elements.
        b: strides in elements.
        shape: of the tensor that they address.
    """
    return all(x == y or e == 1 for x, y, e in zip(a, b, shape, strict=True))


def broadcast_strides(value: Value, rank: int) -> Shape:
    """Strides against a shape to which the value broadcasts, in elements.

    0 for extents of 1 and missing axes. Extents that are written in other ways than those of the
    shape are the same sizes, which `verify` and the conditions of a graph see to.
    """
    strides = layout_of(value).strides
    own = [0 if e == 1 else s for e, s in zip(value.shape, strides, strict=True)]
    return (*[0] * (rank - value.rank), *own)


def row_stride(shape: Shape, strides: Shape) -> Dim | None:
    """The distance of rows if all axes but the last count through rows at equal distance.

    None if the last axis has gaps or the rows have no common distance. 0-D is one row.
    """
    if not shape:
        return 1
    if shape[-1] != 1 and strides[-1] != 1:
        return None
    merged = merge_axes(shape[:-1], strides[:-1])
    if len(merged) > 1:
        return None
    return merged[0][1] if merged else shape[-1]


def channel_rows(value: Value) -> Dim | None:
    """`row_stride` of [batch, channels, ...] read as rows of channels."""
    order = (0, *range(2, value.rank), 1)
    strides = layout_of(value).strides
    return row_stride(tuple(value.shape[a] for a in order), tuple(strides[a] for a in order))


def merge_axes(shape: Shape, strides: Shape) -> list[tuple[Dim, Dim]]:
    """The fewest (extent, stride) loops, slowest first, that visit the elements in order."""
    merged: list[tuple[Dim, Dim]] = []
    for extent, stride in zip(shape, strides, strict=True):
        if extent == 1:
            continue
        if merged and merged[-1][1] == simplify(stride * extent):
            merged[-1] = (simplify(merged[-1][0] * extent), stride)
        else:
            merged.append((extent, stride))
    return merged


def reshaped_strides(shape: Shape, strides: Shape, new_shape: Shape) -> Shape | None:
    """Strides under which the same memory has another shape, or None if it must be copied.

    Args:
        shape: as the memory is read now.
        strides: of that, in elements.
        new_shape: of as many elements, in the same row-major order.
    """
    if same_strides(strides, contiguous_strides(shape), shape):
        return contiguous_strides(new_shape)
    groups = merge_axes(shape, strides)
    result: list[Dim] = [0] * len(new_shape)
    axis = len(new_shape) - 1
    for extent, stride in reversed(groups):
        left: Dim = extent
        step: Dim = stride
        while left != 1:
            while axis >= 0 and new_shape[axis] == 1:
                result[axis] = step
                axis -= 1
            if axis < 0:
                return None
            size = new_shape[axis]
            rest = _exact_quotient(left, size)
            if rest is None:
                return None
            result[axis] = step
            step = simplify(step * size)
            left = rest
            axis -= 1
    if any(extent != 1 for extent in new_shape[: axis + 1]):
        return None
    return tuple(result)


def _exact_quotient(a: Dim, b: Dim) -> Dim | None:
    """A / b if b divides a for all sizes, as far as that can be seen."""
    if a == b:
        return 1
    quotient = simplify(a / b) if not (isinstance(a, int) and isinstance(b, int)) else None
    if quotient is None:
        return a // b if b and a % b == 0 else None
    if isinstance(quotient, int):
        return quotient
    return quotient if ratio(quotient)[1] == 1 else None


def stored(value: Value) -> Dim:
    """Elements of the memory that a value owns, gaps included."""
    size = layout_of(value).size
    return product(value.shape) if size is None else size


def with_row_gaps(value: Value, step: int) -> Layout | None:
    """The layout of a dense value with `ROW_GAP` elements left out behind every `step`.

    None if a row of some axis crosses such a border.
    """

    def spread(count: Dim) -> Dim | None:
        if isinstance(count, int) and count < step:
            return count
        rows = _exact_quotient(count, step)
        return None if rows is None else simplify(rows * (step + ROW_GAP))

    size = spread(product(value.shape))
    strides = [s for stride in layout_of(value).strides if (s := spread(stride)) is not None]
    if size is None or len(strides) < value.rank:
        return None
    return Layout(value, tuple(strides), size=size)
