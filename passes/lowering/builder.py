"""The hands of the lowering rules: make `go.*` nodes and read arguments of `aten.*` nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphopt import scalar
from graphopt.ir import Dim, DType, Node, Ref, Shape, Value, constant
from graphopt.scalar import Scalar


class Unsupported(Exception):
    """A rule cannot lower this node; the text says why and ends up in the report."""


class Builder:
    """Collects the nodes that replace one `aten.*` node.

    Attributes:
        node: the node being lowered.
        nodes: what replaces it.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.nodes: list[Node] = []

    def arg(self, name: str, default: Any = None) -> Any:
        """An argument by schema name; tensors come as values."""
        value = self.node.attrs.get(name, default)
        return self._resolve(value)

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolve(item) for item in value]
        return self.node.inputs[value.index] if isinstance(value, Ref) else value

    def tensor(self, name: str = "self") -> Value:
        """A tensor argument; raises Unsupported if there is none."""
        value = self.arg(name)
        if not isinstance(value, Value):
            raise Unsupported(f"argument {name} is not a tensor")
        return value

    def emit(
        self,
        op: str,
        inputs: Sequence[Value],
        shape: Shape,
        dtype: DType,
        **attrs: Any,
    ) -> Value:
        """Appends a node with one output and returns it."""
        value = Value(dtype, shape)
        node = Node(op, list(inputs), [value], attrs, self.node.origin)
        self.nodes.append(node)
        return value

    def pointwise(self, expr: Scalar, inputs: Sequence[Value], shape: Shape) -> Value:
        """An element-wise node; operands broadcast to `shape`."""
        return self.emit("go.pointwise", inputs, shape, expr.dtype, expr=expr)

    def cast(self, value: Value, dtype: DType) -> Value:
        """The value in another type."""
        if value.dtype is dtype:
            return value
        expr = scalar.cast(scalar.operand(0, value.dtype), dtype)
        return self.pointwise(expr, [value], value.shape)

    def permute(self, value: Value, axes: Sequence[int]) -> Value:
        """Axes in a new order."""
        if tuple(axes) == tuple(range(value.rank)):
            return value
        shape = tuple(value.shape[a] for a in axes)
        return self.emit("go.permute", [value], shape, value.dtype, axes=tuple(axes))

    def reshape(self, value: Value, shape: Shape) -> Value:
        """The same elements, in row-major order, in another shape."""
        if value.shape == shape:
            return value
        return self.emit("go.reshape", [value], shape, value.dtype)

    def expand(self, value: Value, shape: Shape) -> Value:
        """Repeats extents of 1 (and missing leading axes)."""
        if value.shape == shape:
            return value
        return self.emit("go.expand", [value], shape, value.dtype)

    def slice(self, value: Value, axis: int, start: Dim, extent: Dim, step: int = 1) -> Value:
        """Every `step`-th of the elements from `start` along an axis."""
        if start == 0 and step == 1 and value.shape[axis] == extent:
            return value
        shape = (*value.shape[:axis], extent, *value.shape[axis + 1 :])
        return self.emit("go.slice", [value], shape, value.dtype, axis=axis, start=start, step=step)


def axis_of(value: Value, axis: int) -> int:
    """A non-negative axis."""
    return axis + value.rank if axis < 0 else axis


def filled(shape: Shape, value: float | int | bool, dtype: DType, builder: Builder) -> Value:
    """A tensor of one value: a constant with stride 0 where expand allows it."""
    scalar_value = constant(
        np.array(value, dtype=DType.F32.numpy if dtype is DType.BF16 else dtype.numpy)
    )
    value_of_type = builder.cast(scalar_value, dtype)
    return builder.expand(value_of_type, shape)
