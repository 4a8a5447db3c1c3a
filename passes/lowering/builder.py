"""What lowering rules work with: makes `go.*` nodes and reads arguments of `aten.*` nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphopt.ir import Dim, DType, Node, Ref, Shape, Value, constant, scalar, symbolic
from graphopt.ir.op import Op
from graphopt.ir.ops import (
    Aten,
    Check,
    Expand,
    Nonzero,
    Permute,
    Pointwise,
    Reduce,
    Reshape,
    Slice,
)
from graphopt.ir.scalar import Scalar
from graphopt.passes.lowering.schema import Rule

FoundKey: TypeAlias = tuple[Value, Shape, Dim]
"""A mask, what it was expanded to, and how many of its elements hold."""


class Unsupported(Exception):
    """A rule cannot lower this node; the text says why and ends up in the report."""


class NotWidened(Unsupported):
    """Torch rounds steps of it to 16 bits, so that the rule for f32 has other numbers."""


#: Arguments that cannot matter on a CPU to ops that do not see strides, and which values may not.
_HARMLESS: dict[str, Callable[[Any], bool]] = {
    "copy": lambda value: True,
    "device": lambda value: value is None or str(value).startswith("cpu"),
    "dtype": lambda value: True,  # the result has it
    "layout": lambda value: value in (None, "torch.strided"),
    "memory_format": lambda value: True,
    "non_blocking": lambda value: True,
    "pin_memory": lambda value: not value,
}


class Builder:
    """Collects the nodes that replace one `aten.*` node.

    Args:
        node: as below.
        found: what others have found; it is not changed.

    Attributes:
        node: the node being lowered.
        op: its operator, with what it was given.
        nodes: what replaces it.
        found: what it found of masks.
        bounds: the largest size of dims that it computes, by name.
    """

    def __init__(self, node: Node, found: Mapping[FoundKey, Value] | None = None) -> None:
        self.node = node
        self.op = node.as_op(Aten)
        self.nodes: list[Node] = []
        self.found: dict[FoundKey, Value] = {}
        self.bounds: dict[str, Dim] = {}
        self._others = found or {}
        self._read: set[str] = set()

    def arg(self, name: str, default: Any = None) -> Any:
        """An argument by schema name; tensors come as values."""
        self._read.add(name)
        value = self.op.arguments.get(name, default)
        return self._resolve(value)

    def refuse_unread(self, rule: Rule) -> None:
        """Raises Unsupported for an argument that was given and that the rule did not read."""
        for name, default in rule.defaults().items():
            if name in self._read or name in rule.implied:
                continue
            value = self.op.arguments.get(name, default)
            if value == default or (name in _HARMLESS and _HARMLESS[name](value)):
                continue
            given = "" if isinstance(value, Ref) else f" = {value}"
            raise Unsupported(f"argument {name}{given} of {self.node.op}")

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
        self, op: Op, *operands: Value, shape: Shape | None = None, **named: Value | None
    ) -> Value:
        """Appends a node with one output and returns it; see `Node.of`."""
        self.nodes.append(Node.of(op, *operands, shape=shape, origin=self.node.origin, **named))
        return self.nodes[-1].output

    def pointwise(self, expr: Scalar, inputs: Sequence[Value], shape: Shape) -> Value:
        """An element-wise node.

        Args:
            expr: of one element; its type is that of the result.
            inputs: operands, in the order in which `expr` numbers them.
            shape: of the result, to which they broadcast.
        """
        return self.emit(Pointwise(expr, shape), *inputs)

    def apply(self, of: Callable[..., Scalar], *values: Value) -> Value:
        """An element-wise node of values that broadcast.

        Args:
            of: makes the expression of an element from those of the values.
            values: operands; floats of 16 bits are refused.
        """
        if half := next((v.dtype for v in values if v.dtype.is_half), None):
            raise Unsupported(f"floats of 16 bits: {half.value}")
        expr = of(*(scalar.operand(i, v.dtype) for i, v in enumerate(values)))
        if (function := scalar.not_computable(expr)) is not None:
            raise Unsupported(function)
        return self.pointwise(expr, values, broadcast(*(v.shape for v in values)))

    def nonzero(self, mask: Value, shape: Shape, size: Dim) -> Value:
        """Row-major indices i64[size] of the elements of a mask that are not zero.

        Args:
            mask: of any type.
            shape: to which it is expanded first.
            size: as torch has it: a dim that the node being lowered computes, or one that is
                known, and that the number of elements is checked for.
        """
        key = mask, shape, size
        if key in self._others:
            return self._others[key]
        dim = self.op.dim
        if dim and size == symbolic.found_symbol(dim):
            truths = self.expand(self.truth(mask), shape)
            self.bounds[dim] = symbolic.product(shape)
            self.found[key] = self.emit(Nonzero(size, dim), truths)
        else:
            self.check_count(mask, shape, size)
            self.found[key] = self.first_nonzero(mask, shape, size)
        return self.found[key]

    def first_nonzero(self, mask: Value, shape: Shape, size: Dim) -> Value:
        """The first `size` of the row-major indices of true elements, and -1 where there are fewer.

        Args:
            mask: of any type.
            shape: to which it is expanded first.
            size: known before the model runs.
        """
        return self.emit(Nonzero(size), self.expand(self.truth(mask), shape))

    def truth(self, mask: Value) -> Value:
        """Whether each element is not zero; a NaN is not."""
        element = scalar.operand(0, mask.dtype)
        if mask.dtype.is_half:
            element = scalar.cast(element, DType.F32)
        if mask.dtype is DType.BOOL:
            return mask
        return self.pointwise(scalar.cast(element, DType.BOOL), [mask], mask.shape)

    def check_count(self, mask: Value, shape: Shape, size: Dim) -> None:
        """As many elements of a mask that is expanded to a shape as `size` have to be true.

        Args:
            mask: of any dtype.
            shape: that it is expanded to.
            size: how many.
        """
        truths = self.cast(self.expand(self.truth(mask), shape), DType.I64)
        flat = self.reshape(truths, (symbolic.product(shape),))
        count = self.emit(Reduce("sum", (0,)), flat)
        self.nodes.append(Node.of(Check(size), count, origin=self.node.origin))

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
        return self.emit(Permute(tuple(axes)), value)

    def reshape(self, value: Value, shape: Shape) -> Value:
        """The same elements, in row-major order, in another shape."""
        if value.shape == shape:
            return value
        return self.emit(Reshape(shape), value)

    def expand(self, value: Value, shape: Shape) -> Value:
        """Repeats extents of 1 (and missing leading axes)."""
        if value.shape == shape:
            return value
        return self.emit(Expand(shape), value)

    def slice(self, value: Value, axis: int, start: Dim, extent: Dim, step: int = 1) -> Value:
        """Every `step`-th of the elements from `start` along an axis.

        Args:
            value: what is sliced.
            axis: not negative (`axis_of`).
            start: index of the first element, not negative.
            extent: number of elements that are taken.
            step: 1 or more.
        """
        if start == 0 and step == 1 and value.shape[axis] == extent:
            return value
        return self.emit(Slice(axis, start, extent, step), value)


def broadcast(*shapes: Shape) -> Shape:
    """The shape to which shapes broadcast."""
    rank = max(map(len, shapes), default=0)
    padded = [(*[1] * (rank - len(shape)), *shape) for shape in shapes]
    return tuple(next((e for e in axis if e != 1), 1) for axis in zip(*padded, strict=True))


def axis_of(value: Value, axis: int) -> int:
    """A non-negative axis of a value that has axes."""
    if value.rank == 0:
        raise Unsupported("an axis of a tensor without axes")
    return axis + value.rank if axis < 0 else axis


def require_f32(what: str, *operands: Value | None) -> None:
    """Raises Unsupported, naming `what`, for an operand that is there and not f32."""
    types = [v.dtype for v in operands if v is not None]
    if any(t is not DType.F32 for t in types):
        raise Unsupported(f"{what} on {', '.join(t.value for t in types)}")


def filled(shape: Shape, value: float | int | bool, dtype: DType, builder: Builder) -> Value:
    """A tensor of equal elements: a constant without axes, expanded.

    Args:
        shape: of the tensor.
        value: of every element, converted to `dtype` as torch does.
        dtype: of the tensor; bf16 and f16 are cast from an f32 constant.
        builder: gets the nodes that this takes.
    """
    held = DType.F32 if dtype.is_half else dtype
    number = constant(np.array(scalar.const(value, held).value, held.numpy))
    return builder.expand(builder.cast(number, dtype), shape)
