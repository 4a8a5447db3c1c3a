"""What rules share that read elements at computed indices."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.ir import DType, Shape, Value, scalar
from graphopt.ir.indices import Place, place
from graphopt.ir.scalar import Scalar
from graphopt.passes.lowering.builder import Builder


def here(shape: Shape) -> list[Scalar]:
    """The index along every axis of a result, by axis."""
    return [scalar.index(axis) for axis in range(len(shape))]


def loaded(b: Builder, x: Value, indices: Sequence[Place], shape: Shape, *others: Value) -> Value:
    """Elements of x.

    Args:
        b: gets the node.
        x: operand 0.
        indices: along each of its axes.
        shape: of the result.
        others: operands 1, 2, ... that indices read.
    """
    expr = scalar.load(0, x.dtype, [place(i) for i in indices])
    return b.pointwise(expr, [x, *others], shape)


def element(number: int, x: Value, indices: Sequence[Place]) -> Scalar:
    """An element of an operand to compute with: 16 bits as f32.

    Args:
        number: of the operand.
        x: the operand.
        indices: along each of its axes.
    """
    return _wide(scalar.load(number, x.dtype, [place(i) for i in indices]))


def current(number: int, x: Value) -> Scalar:
    """The element at the current index to compute with: 16 bits as f32."""
    return _wide(scalar.operand(number, x.dtype))


def number(value: float | int | bool, dtype: DType) -> Scalar:
    """A constant to compute with beside elements of a type."""
    return scalar.const(value, DType.F32 if dtype.is_half else dtype)


def computed(b: Builder, expr: Scalar, operands: Sequence[Value]) -> Value:
    """The node of an expression, with the shape and type of what is lowered.

    Args:
        b: gets the node.
        expr: of one element, which is converted to that type.
        operands: in the order in which `expr` numbers them.
    """
    out = b.node.output
    return b.pointwise(scalar.cast(expr, out.dtype), operands, out.shape)


def chosen(condition: Scalar, one: Scalar, other: Scalar) -> Scalar:
    """`one` where a condition holds, else `other`.

    Args:
        condition: of type bool.
        one: what may be looked at only where the condition holds.
        other: what may be looked at only where it does not.
    """
    return scalar.apply("where", condition, one, other)


def _wide(x: Scalar) -> Scalar:
    return scalar.cast(x, DType.F32) if x.dtype.is_half else x
