"""Whole numbers that stand for floats: what goes to and from them, and element-wise ops on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphopt.ir import DType, Shape, Value, constant, scalar, symbolic
from graphopt.ir.ops import Reduce
from graphopt.ir.scalar import Scalar, apply
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.known import Tensor
from graphopt.onnx.meanings import Later, Rounded, Scaled, Weights, same_numbers
from graphopt.onnx.rules.table import MICROSOFT, Rule, Table, merged, since
from graphopt.onnx.tensors import DTYPES, type_name
from graphopt.passes.lowering.builder import Unsupported

BYTES = (DType.U8, DType.I8)
LIMITS = {t: (int(np.iinfo(t.numpy).min), int(np.iinfo(t.numpy).max)) for t in (*BYTES, DType.I16)}


def _aligned(c: Call, value: Value, x: Value, axis: int, block: int) -> Value:
    """A scale or zero point of a tensor, an axis, or blocks along an axis, beside the tensor."""
    if value.rank == 0 or value.shape == (1,):
        return c.b.reshape(value, ())
    if block:
        if value.rank != x.rank:
            raise Malformed(f"scales of {value.rank} axes for blocks of a tensor of {x.rank}")
        shape = (*value.shape[: axis + 1], 1, *value.shape[axis + 1 :])
        wide = (*value.shape[: axis + 1], block, *value.shape[axis + 1 :])
        flat = (*value.shape[:axis], symbolic.product(wide[axis : axis + 2]), *wide[axis + 2 :])
        y = c.b.reshape(c.b.expand(c.b.reshape(value, shape), wide), flat)
        return c.b.slice(y, axis, 0, x.shape[axis])
    if value.rank != 1:
        raise Malformed(f"scales of {value.rank} axes along one")
    c.require_equal(value.shape[0], x.shape[axis], "scales and the axis that they are for")
    return c.b.reshape(value, (value.shape[0], *[1] * (x.rank - axis - 1)))


def _place(c: Call, x: Value) -> tuple[int, int]:
    """The axis that scales are along, and the length of blocks, 0 for none."""
    axis, block = c.attr("axis", 1), c.attr("block_size", 0)
    return (axis + x.rank if axis < 0 else min(axis, max(x.rank - 1, 0))), block


def quantized(c: Call, x: Value, scale: Value, zero: Value | None, dtype: DType) -> Value:
    """saturate(round(x / scale) + zero), of operands that broadcast.

    Args:
        c: the node.
        x: floats.
        scale: of the numbers.
        zero: None for 0.
        dtype: u8, i8 or i16.
    """
    low, high = LIMITS[dtype]

    def stored(v: Scalar, s: Scalar, *z: Scalar) -> Scalar:
        y = apply("round", v / s)
        y = y + scalar.cast(z[0], y.dtype) if z else y
        y = apply("max", apply("min", y, scalar.const(high, y.dtype)), scalar.const(low, y.dtype))
        return scalar.cast(scalar.cast(y, DType.I32), dtype)

    wide = c.b.cast(x, DType.F32), c.b.cast(scale, DType.F32)
    return c.b.apply(stored, *wide, *([] if zero is None else [zero]))


def dequantized(c: Call, x: Value, scale: Value, zero: Value | None) -> Value:
    """(x - zero) * scale, of operands that broadcast.

    Args:
        c: the node.
        x: whole numbers.
        scale: whose type the result has.
        zero: None for 0.
    """

    def number(v: Scalar, s: Scalar, *z: Scalar) -> Scalar:
        y = scalar.cast(v, DType.I32)
        y = y - scalar.cast(z[0], DType.I32) if z else y
        return scalar.cast(y, s.dtype) * s

    wide = c.b.cast(scale, DType.F32) if scale.dtype.is_half else scale
    y = c.b.apply(number, x, wide, *([] if zero is None else [zero]))
    return c.b.cast(y, scale.dtype)


def _quantize(c: Call) -> Tensor:
    x, scale, zero = c.x(0), c.x(1), c.optional(2)
    c.harmless("saturate", "precision")
    element = c.attr("output_dtype", 0)
    if zero is not None:
        dtype: DType | None = zero.dtype
    else:
        dtype = DTYPES.get(element) if element else DType.U8
    if dtype not in LIMITS:
        raise Unsupported(f"quantization to {type_name(element) if element else dtype}")
    axis, block = _place(c, x)
    scale = _aligned(c, scale, x, axis, block)
    zero = None if zero is None else _aligned(c, zero, x, axis, block)
    if x.dtype is DType.I32:
        x = c.b.cast(x, DType.F32)
    shape = c.broadcast(x, scale)
    if scale.rank or scale.dtype is not DType.F32 or x.dtype is not DType.F32:
        return Tensor.of(quantized(c, x, scale, zero, dtype))
    return rounded(c, x, (c.tensor(1), c.given(2)), dtype, shape)


def rounded(
    c: Call, x: Value, grid: tuple[Tensor, Tensor | None], dtype: DType, shape: Shape
) -> Tensor:
    """Floats rounded to whole numbers, which are made where something reads them.

    Args:
        c: the node.
        x: floats.
        grid: scale and zero point, one number each.
        dtype: of the whole numbers.
        shape: of x.
    """
    scale = c.b.reshape(grid[0].value(c.b), ())
    zero = None if grid[1] is None else c.b.reshape(grid[1].value(c.b), ())
    low, high = LIMITS[dtype]

    def within(v: Scalar, s: Scalar, *z: Scalar) -> Scalar:
        middle = scalar.cast(z[0], v.dtype) if z else scalar.const(0, v.dtype)
        return apply("max", apply("min", v, (high - middle) * s), (low - middle) * s)

    kept = c.b.apply(within, x, scale, *([] if zero is None else [zero]))
    meaning = Rounded(kept, *grid)
    return Later(dtype, shape, lambda: quantized(c, x, scale, zero, dtype), meaning)


def _is_on(numbers: Rounded, grid: tuple[Tensor, Tensor | None]) -> bool:
    return same_numbers(numbers.scale, grid[0]) and same_numbers(numbers.zero, grid[1])


def floats(c: Call, x: Tensor, grid: tuple[Tensor, Tensor | None]) -> Value:
    """The floats that whole numbers stand for: unless they must be exact, before the rounding.

    Args:
        c: the node.
        x: whole numbers.
        grid: scale and zero point, one number each.
    """
    found: Rounded | None = x.meaning if isinstance(x.meaning, Rounded) else None
    if found is not None and not c.exact and _is_on(found, grid):
        return found.x
    scale, zero = (None if g is None else c.b.reshape(g.value(c.b), ()) for g in grid)
    assert scale is not None
    return dequantized(c, x.value(c.b), scale, zero)


def _dequantize(c: Call) -> Tensor:
    given, scales, zeros = c.given(0, narrow=True), c.tensor(1), c.given(2, narrow=True)
    if given is None:
        raise Malformed("it lacks input 0")
    axis = c.attr("axis", 1)
    axis = axis + given.rank if axis < 0 else min(axis, max(given.rank - 1, 0))
    block, element = c.attr("block_size", 0), c.attr("output_dtype", 0)
    dtype = DTYPES.get(element) if element else scales.dtype
    if dtype is None:
        raise Unsupported(f"numbers of {type_name(element)}")
    if not c.exact and scales.dtype is dtype is DType.F32:
        if isinstance(given.meaning, Rounded) and scales.shape in ((), (1,)):
            return Tensor.of(floats(c, given, (scales, zeros)))
        if (meaning := _weights(given, scales, zeros, axis, block)) is not None:
            make = lambda: constant(meaning.dense())  # noqa: E731
            return Later(dtype, given.shape, make, meaning)
    x = given.value(c.b)
    scale = _aligned(c, scales.value(c.b), x, axis, block)
    zero = None if zeros is None else _aligned(c, zeros.value(c.b), x, axis, block)
    return Tensor.of(c.b.cast(dequantized(c, x, scale, zero), dtype))


def _weights(
    given: Tensor, scales: Tensor, zeros: Tensor | None, axis: int, block: int
) -> Weights | None:
    """Constants of a matrix, with a scale for all, along an axis, or for blocks along one."""
    numbers, scale = given.data, scales.data
    zero = np.zeros((), np.int32) if zeros is None else zeros.data
    if numbers is None or scale is None or zero is None:
        return None
    if numbers.ndim != 2 or given.dtype not in BYTES or not np.isfinite(scale).all():
        return None
    if block:
        extents = list(numbers.shape)
        extents[axis] = -(-extents[axis] // block)
    else:
        extents = [numbers.shape[a] if a == axis and scale.size > 1 else 1 for a in (0, 1)]
    zero = np.broadcast_to(zero, scale.shape) if zero.size == 1 else zero
    count = extents[0] * extents[1]
    if scale.size != count or zero.size != count or (block and scale.ndim != 2):
        return None
    scale, whole = scale.reshape(extents), zero.reshape(extents).astype(np.int32)
    return Weights(numbers, scale, whole, block, axis, bool(given.narrow))


def _dynamic(c: Call) -> list[Tensor]:
    x = c.x()
    results = [Tensor.of(v) for v in dynamic(c, x)]
    results[0].meaning = Rounded(x, results[1], results[2])
    results[1].meaning = Scaled(results[1], np.ones((), np.float32))
    return results


def dynamic(c: Call, x: Value) -> tuple[Value, Value, Value]:
    """Floats as u8 with one scale for the whole tensor, as onnxruntime has it where all is 0.

    Args:
        c: the node.
        x: floats.

    Returns:
        Whole numbers, scale and zero point.
    """
    if 0 in x.shape:
        raise Unsupported("the range of no elements")
    axes = tuple(range(x.rank))

    def extreme(kind: str) -> Value:
        y = c.b.reshape(c.b.emit(Reduce(kind, axes), x), ()) if axes else x
        return c.b.apply(lambda v: apply(kind, v, scalar.const(0, v.dtype)), y)

    low, high = extreme("min"), extreme("max")

    def scale_of(a: Scalar, b: Scalar) -> Scalar:
        scale = (b - a) / 255.0
        none = apply("eq", scale, scalar.const(0, scale.dtype))
        return apply("where", none, scalar.const(1, scale.dtype), scale)

    def zero_of(a: Scalar, s: Scalar) -> Scalar:
        zero = apply("round", -a / s)
        zero = apply(
            "max", apply("min", zero, scalar.const(255, zero.dtype)), scalar.const(0, zero.dtype)
        )
        return scalar.cast(scalar.cast(zero, DType.I32), DType.U8)

    scale = c.b.apply(scale_of, low, high)
    zero = c.b.apply(zero_of, low, scale)
    return quantized(c, x, scale, zero, DType.U8), scale, zero


# Element-wise ops on whole numbers, with scales and zero points of operands and of the result.


def grid(c: Call, number: int) -> tuple[Tensor, Tensor | None]:
    """The scale that is an input, and the zero point behind it; one number each."""
    scale, zero = c.tensor(number), c.given(number + 1)
    if scale.shape not in ((), (1,)) or (zero is not None and zero.shape not in ((), (1,))):
        raise Unsupported("a scale for each element of an axis")
    return scale, zero


def requantized(c: Call, y: Value, number: int, dtype: DType) -> Tensor:
    """Floats as whole numbers, whose scale is an input and their zero point the one behind it.

    Args:
        c: the node.
        y: floats.
        number: of the input.
        dtype: of the whole numbers.
    """
    return rounded(c, y, grid(c, number), dtype, y.shape)


def _of_two(of: Callable[[Call, Value, Value], Value]) -> Rule:
    """Of x, sx, zx, y, sy, zy, sz, zz."""

    def rule(c: Call) -> Tensor:
        x, y = (floats(c, c.tensor(i), grid(c, i + 1)) for i in (0, 3))
        return requantized(c, of(c, x, y), 6, c.tensor(0).dtype)

    return rule


def _of_one(of: Callable[[Call, Value], Value]) -> Rule:
    """Of x, sx, zx, sy, zy."""

    def rule(c: Call) -> Tensor:
        x = floats(c, c.tensor(0), grid(c, 1))
        return requantized(c, of(c, x), 3, c.tensor(0).dtype)

    return rule


def _leaky(c: Call, x: Value) -> Value:
    slope = float(c.attr("alpha", 0.01))
    return c.formula(lambda v: apply("where", v < 0, v * slope, v), x)


def _average(c: Call, x: Value) -> Value:
    if c.attr("channels_last", 0):
        raise Unsupported("channels in the last axis")
    return c.b.emit(Reduce("mean", tuple(range(2, x.rank))), x)


def _concat(c: Call) -> Tensor:
    """Of sy, zy and x, sx, zx for each operand."""
    parts = [floats(c, c.tensor(i), grid(c, i + 1)) for i in range(2, c.count, 3)]
    axis = c.axis(c.required("axis"), parts[0].rank)
    shape = list(parts[0].shape)
    shape[axis] = symbolic.simplify(sum(p.shape[axis] for p in parts))
    (y,) = c.aten("cat", (DType.F32, tuple(shape)), tensors=parts, dim=axis)
    return requantized(c, y, 0, c.tensor(2).dtype)


RULES: Table = merged(
    since(10, QuantizeLinear=_quantize, DequantizeLinear=_dequantize),
    since(11, DynamicQuantizeLinear=_dynamic),
    since(
        1,
        MICROSOFT,
        QuantizeLinear=_quantize,
        DequantizeLinear=_dequantize,
        QLinearAdd=_of_two(lambda c, x, y: c.binary("add.Tensor", x, y)),
        QLinearMul=_of_two(lambda c, x, y: c.binary("mul.Tensor", x, y)),
        QLinearSigmoid=_of_one(lambda c, x: c.unary("sigmoid", x)),
        QLinearLeakyRelu=_of_one(_leaky),
        QLinearGlobalAveragePool=_of_one(_average),
        QLinearConcat=_concat,
    ),
)
