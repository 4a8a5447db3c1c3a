"""Tensors during an import: a value of the graph, or small ones as expressions over its dims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy

from graphopt.ir import Dim, DType, Shape, Value, constant, scalar, symbolic
from graphopt.ir.numbers import narrow
from graphopt.ir.scalar import Scalar
from graphopt.passes.lowering.builder import Builder, Unsupported

Array = np.ndarray[Any, Any]

MOST_KNOWN = 1024
"""Elements of a tensor that is followed as numbers."""


class Tensor:
    """A value, made when somebody reads it, of a tensor whose elements may be known as sizes.

    Attributes:
        dtype: element type.
        shape: extents.
        elements: integers, or sympy expressions over the dims, as an array of objects; None where
            they are not known.
        narrow: the type in the file of a constant whose elements have less bits than here.
        meaning: what its numbers stand for (meanings.py); None for themselves.
    """

    narrow = ""
    meaning: Any = None

    def __init__(
        self, dtype: DType, shape: Shape, value: Value | None = None, elements: Array | None = None
    ) -> None:
        self.dtype, self.shape, self.elements = dtype, shape, elements
        self._value = value

    @staticmethod
    def of(value: Value) -> Tensor:
        """The tensor of a value; the elements of a small constant are known."""
        data, elements = value.data, None
        if data is not None and data.size <= MOST_KNOWN and value.dtype not in _NOT_FOLLOWED:
            elements = data.astype(object)
            if value.dtype.is_float:
                few = data.size <= _MOST_FLOATS and bool(np.isfinite(data).all())
                elements = np.array([_exact(e) for e in data.flat], object) if few else None
                elements = None if elements is None else elements.reshape(data.shape)
        return Tensor(value.dtype, value.shape, value, elements)

    @staticmethod
    def known(elements: Any, dtype: DType) -> Tensor:
        """The tensor of numbers and expressions; a constant where all are numbers."""
        array = np.asarray(elements, object)
        if all(isinstance(e, int | np.integer | bool | np.bool_) for e in array.flat):
            return Tensor.of(constant(array.astype(dtype.numpy)))
        return Tensor(dtype, tuple(array.shape), None, array)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def data(self) -> Array | None:
        """The stored elements of a constant."""
        return None if self._value is None else self._value.data

    @property
    def is_symbolic(self) -> bool:
        """Whether its elements are known, and not all numbers."""
        return self._value is None and self.elements is not None

    def call(self, name: str) -> None:
        """Names its value, if there is one without a name."""
        if self._value is not None and not self._value.name and not self._value.is_constant:
            self._value.name = name

    def value(self, b: Builder) -> Value:
        """The value, which a node computes of the sizes if there is none yet."""
        if self._value is None:
            assert self.elements is not None
            self._value = _computed(b, self.elements, self.dtype)
        return self._value


_MOST_FLOATS = 16


def _exact(number: float) -> int | sympy.Rational:
    """A float as the number that it is."""
    return int(number) if number == int(number) else sympy.Rational(float(number))


#: Types whose constants are not followed: numbers of 16 bits lie as bits.
_NOT_FOLLOWED = {DType.BF16, DType.F16}


def _computed(b: Builder, elements: Array, dtype: DType) -> Value:
    """A tensor of at most one axis made of sizes, by a choice among them; others reshaped."""
    parts = [_element(e, dtype) for e in elements.flat]
    expr = parts[-1]
    for number, part in reversed(list(enumerate(parts[:-1]))):
        here = scalar.apply("eq", scalar.index(0), scalar.const(number, DType.I64))
        expr = scalar.apply("where", here, part, expr)
    flat = b.pointwise(expr, [], (len(parts),))
    return b.reshape(flat, tuple(elements.shape))


def _element(element: Any, dtype: DType) -> Scalar:
    """One of them in the type of the tensor."""
    if isinstance(element, int | bool | np.integer | np.bool_):
        return scalar.const(int(element), dtype)
    if isinstance(element, sympy.Basic) and type(element) in symbolic.RELATIONS:
        left, right = (scalar.size(side) for side in symbolic.sides(element))
        return scalar.cast(scalar.apply(_RELATIONS[type(element)], left, right), dtype)
    if (why := symbolic.not_computable(element)) is not None:
        raise Unsupported(why)
    above, below = symbolic.ratio(element)
    if below == 1:
        return scalar.cast(scalar.size(symbolic.simplify(above)), dtype)
    if not dtype.is_float:
        raise Unsupported(f"the fraction {element}")
    sides = (scalar.cast(scalar.size(symbolic.simplify(e)), dtype) for e in (above, below))
    return scalar.apply("div", *sides)


_RELATIONS = {
    sympy.Eq: "eq",
    sympy.Ne: "ne",
    sympy.StrictLessThan: "lt",
    sympy.LessThan: "le",
    sympy.StrictGreaterThan: "gt",
    sympy.GreaterThan: "ge",
}


def dims_of(tensor: Tensor, what: str) -> list[Dim]:
    """The elements of a tensor of sizes.

    Args:
        tensor: of one axis, or none.
        what: for the error.

    Raises:
        Unsupported: if data decide them.
    """
    if tensor.elements is None or tensor.dtype.is_float:
        raise Unsupported(f"{what} that data decide")
    return [symbolic.simplify(e if isinstance(e, sympy.Basic) else int(e)) for e in
            tensor.elements.reshape(-1)]  # fmt: skip


def numbers_of(tensor: Tensor, what: str) -> Array:
    """The elements of a constant as numbers.

    Raises:
        Unsupported: if it is none.
    """
    if tensor.data is None:
        raise Unsupported(f"{what} that is no constant")
    if tensor.dtype is DType.BF16:
        raise Unsupported(f"{what} of bf16")
    return tensor.data


def stored(array: Array, dtype: DType) -> Array:
    """Numbers in a type."""
    return narrow(np.asarray(array), dtype)


def whole(elements: Sequence[Any]) -> bool:
    """Whether all are numbers, none an expression."""
    return not any(isinstance(e, sympy.Basic) for e in elements)
