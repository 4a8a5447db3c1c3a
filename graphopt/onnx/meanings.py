"""What the whole numbers of a quantized model stand for, followed from node to node.

A quantized product is spelled by many nodes, some of which others may read too:

    q, s, z = DynamicQuantizeLinear(x)          q is Rounded(x, s, z)
    i = MatMulInteger(q, w, z, zw)              Sums: a product of x and w, without scales
    f = Cast(i)                                 the same
    r = Mul(s, sw)                              Scaled(s, sw)
    y = Mul(f, r)                               Sums with its scales: a linear of x

Sums, and weights, are only computed where something else than this reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphopt.ir import DType, Shape, Value
from graphopt.onnx.known import Array, Tensor
from graphopt.passes.lowering.builder import Builder


class Later(Tensor):
    """A tensor that is computed when something reads it.

    Args:
        dtype: element type.
        shape: extents.
        make: computes it.
        meaning: what it stands for.
    """

    def __init__(self, dtype: DType, shape: Shape, make: Callable[[], Value], meaning: Any) -> None:
        super().__init__(dtype, shape)
        self._make, self.meaning = make, meaning

    def value(self, b: Builder) -> Value:
        """The value, made at the first call."""
        if self._value is None:
            self._value = self._make()
        return self._value


@dataclass(frozen=True, eq=False)
class Rounded:
    """Whole numbers saturate(round(x / scale) + zero).

    Attributes:
        x: floats, within the range that the whole numbers have.
        scale: of one number.
        zero: None for 0.
    """

    x: Value
    scale: Tensor
    zero: Tensor | None


@dataclass(frozen=True, eq=False)
class Scaled:
    """The scale of rounded numbers times a constant; of the scale itself that is 1."""

    scale: Tensor
    factor: Array


@dataclass(frozen=True, eq=False)
class Weights:
    """Floats (numbers - zero) * scale.

    Attributes:
        numbers: whole numbers [k, n] of at most 8 bits.
        scale: f32, of two axes that broadcast to those of `numbers`, or are of blocks of them.
        zero: i32, likewise.
        block: numbers along `axis` that share a scale; 0 for no blocks.
        axis: of the blocks.
        narrow: whether numbers have 4 bits or less.
    """

    numbers: Array
    scale: Array
    zero: Array
    block: int = 0
    axis: int = 0
    narrow: bool = False

    def transposed(self) -> Weights:
        """The same of the other axis."""
        return Weights(
            self.numbers.T, self.scale.T, self.zero.T, self.block, 1 - self.axis, self.narrow
        )

    def dense(self) -> Array:
        """The floats [k, n]."""
        whole = self.numbers.astype(np.int32) - self._spread(self.zero)
        product: Array = whole.astype(np.float32) * self._spread(self.scale)
        return product

    def _spread(self, array: Array) -> Array:
        if not self.block or array.shape[self.axis] == 1:
            return array
        wide = np.repeat(array, self.block, self.axis)
        return np.take(wide, np.arange(self.numbers.shape[self.axis]), self.axis)


def columns(numbers: Array, scale: Array, zero: Array | None) -> Weights | None:
    """Weights [k, n] with a scale and a zero point for all, or for each column; None for others.

    Args:
        numbers: of 8 bits.
        scale: of one element, or of n.
        zero: likewise.
    """
    zero = np.zeros(1) if zero is None else zero
    if numbers.ndim != 2 or numbers.dtype.itemsize != 1:
        return None
    if {scale.size, zero.size} - {1, numbers.shape[1]} or not np.isfinite(scale).all():
        return None
    return Weights(
        numbers, scale.reshape(1, -1).astype(np.float32), zero.reshape(1, -1).astype(np.int32)
    )


@dataclass(frozen=True, eq=False)
class Sums:
    """The product of rounded numbers and weights, and what it was multiplied by.

    Attributes:
        rounded: the first operand.
        channels: the axis of the product, from the end, along which weights differ in scale.
        of: the product of the floats, from the scale of the weights, a number or one a channel.
        factor: constant.
        scaled: whether the scale of `rounded` is in it.
    """

    rounded: Rounded
    channels: int
    of: Callable[[Array], Value]
    factor: Array
    scaled: bool = False

    def times(self, other: Tensor, shape: Shape) -> Sums | None:
        """The product with a tensor; None if this is no scale.

        Args:
            other: the tensor.
            shape: of the sums.
        """
        meaning, scaled = other.meaning, self.scaled
        factor = None if other.data is None else self._by_channel(other.data, shape)
        if isinstance(meaning, Scaled) and meaning.scale is self.rounded.scale and not scaled:
            factor, scaled = self._by_channel(meaning.factor, shape), True
        if factor is None:
            return None
        return replace(self, factor=self.factor * factor, scaled=scaled)

    def value(self) -> Value:
        """The product of the floats."""
        return self.of(self.factor)

    def _by_channel(self, factor: Array, shape: Shape) -> Array | None:
        """A constant as one number, or one for each channel."""
        if factor.dtype != np.float32 or factor.ndim > len(shape):
            return None
        if factor.size == 1:
            return factor.reshape(())
        along = factor.ndim - self.channels
        if along < 0 or factor.size != factor.shape[along]:
            return None
        return factor.reshape(-1) if factor.size == shape[-self.channels] else None


def product_of(first: Tensor, second: Tensor, shape: Shape, plain: Callable[[], Value]) -> Tensor:
    """The product of two tensors, which may belong to a quantized one.

    Args:
        first: a factor.
        second: another.
        shape: of the product.
        plain: computes it as a product of floats.
    """
    for one, other in ((first, second), (second, first)):
        meaning = one.meaning
        if isinstance(meaning, Sums) and one.dtype is DType.F32 and one.shape == shape:
            found = meaning.times(other, shape)
            if found is not None:
                return Later(DType.F32, shape, found.value if found.scaled else plain, found)
        if isinstance(meaning, Scaled) and other.data is not None and one.dtype is other.dtype:
            made = Tensor.of(plain())
            made.meaning = Scaled(meaning.scale, meaning.factor * other.data)
            return made
    return Tensor.of(plain())


def same_numbers(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two scales, or two zero points, are known to be equal; None is 0."""
    if one is other:
        return True
    arrays = [np.zeros(()) if t is None else t.data for t in (one, other)]
    first, second = arrays
    if first is None or second is None or 1 not in (first.size, second.size):
        return first is not None and second is not None and np.array_equal(first, second)
    return bool((first == second).all())
