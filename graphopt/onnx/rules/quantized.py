"""Whole numbers that stand for floats: quantized products, and what goes to and from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphopt.ir import DType, Value, constant, scalar, symbolic
from graphopt.ir.ops import Reduce
from graphopt.ir.scalar import Scalar, apply
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.rules.products import matmul
from graphopt.onnx.rules.table import MICROSOFT, Table, merged, since
from graphopt.onnx.rules.windows import convolved
from graphopt.onnx.tensors import DTYPES, type_name
from graphopt.passes.lowering.builder import Unsupported

_BYTES = (DType.U8, DType.I8)
_LIMITS = {
    t: (int(np.iinfo(t.numpy).min), int(np.iinfo(t.numpy).max)) for t in (*_BYTES, DType.I16)
}


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
    low, high = _LIMITS[dtype]

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


def _quantize(c: Call) -> Value:
    x, scale, zero = c.x(0), c.x(1), c.optional(2)
    c.harmless("saturate", "precision")
    element = c.attr("output_dtype", 0)
    if zero is not None:
        dtype: DType | None = zero.dtype
    else:
        dtype = DTYPES.get(element) if element else DType.U8
    if dtype not in _LIMITS:
        raise Unsupported(f"quantization to {type_name(element) if element else dtype}")
    axis, block = _place(c, x)
    scale = _aligned(c, scale, x, axis, block)
    zero = None if zero is None else _aligned(c, zero, x, axis, block)
    if x.dtype is DType.I32:
        x = c.b.cast(x, DType.F32)
    return quantized(c, x, scale, zero, dtype)


def _dequantize(c: Call) -> Value:
    x, scale, zero = c.narrow(0), c.x(1), c.narrow(2)
    if x is None:
        raise Malformed("it lacks input 0")
    axis, block = _place(c, x)
    element = c.attr("output_dtype", 0)
    dtype = DTYPES.get(element) if element else scale.dtype
    if dtype is None:
        raise Unsupported(f"numbers of {type_name(element)}")
    scale = _aligned(c, scale, x, axis, block)
    zero = None if zero is None else _aligned(c, zero, x, axis, block)
    return c.b.cast(dequantized(c, x, scale, zero), dtype)


def _dynamic(c: Call) -> list[Value]:
    """With one scale for the whole tensor, as onnxruntime has it where all is 0."""
    x = c.x()
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
    return [quantized(c, x, scale, zero, DType.U8), scale, zero]


# Products.

_DEEP = 4096
"""Products of 5 and 9 bits that sum up exactly in f32."""


def _less(c: Call, x: Value, zero: Value | None, axis: int) -> Value:
    """Numbers less their zero points, in i32; zero points of an axis lie along it."""
    if x.dtype not in _BYTES:
        raise Malformed(f"whole numbers of {x.dtype.value}")
    wide = c.b.cast(x, DType.I32)
    if zero is None:
        return wide
    if zero.dtype is not x.dtype:
        raise Malformed(f"a zero point of {zero.dtype.value} for {x.dtype.value}")
    if zero.rank == 1 and zero.shape != (1,):
        zero = c.b.reshape(zero, (zero.shape[0], *[1] * (x.rank - axis - 1)))
    elif zero.shape == (1,):
        zero = c.b.reshape(zero, ())
    return c.b.apply(lambda v, z: v - scalar.cast(z, DType.I32), wide, zero)


def _product(c: Call, x: Value, y: Value) -> Value:
    """The product of i32 in -255 .. 255, exactly: x in two halves, and not too deep at once."""
    depth = x.shape[-1]
    if not isinstance(depth, int):
        raise Unsupported("a product of whole numbers whose depth varies")
    total: Value | None = None
    axis = y.rank - 2 if y.rank > 1 else 0
    weights = c.b.cast(y, DType.F32)
    for start in range(0, max(depth, 1), _DEEP):
        count = min(_DEEP, depth - start)
        rows = c.b.slice(x, x.rank - 1, start, count)
        part = c.b.slice(weights, axis, start, count)
        low = c.b.apply(lambda v: apply("bit_and", v, scalar.const(15, v.dtype)), rows)
        high = c.b.apply(lambda v, w: v - w, rows, low)
        for half in (high, low):
            made = c.b.cast(matmul(c, c.b.cast(half, DType.F32), part), DType.I32)
            total = made if total is None else c.b.apply(lambda v, w: v + w, total, made)
    assert total is not None
    return total


def _matmul_integer(c: Call) -> Value:
    x, y = c.x(0), c.x(1)
    rows = _less(c, x, c.optional(2), x.rank - 2)
    return _product(c, rows, _less(c, y, c.optional(3), y.rank - 1))


def _conv_integer(c: Call) -> Value:
    x, weight = c.x(0), c.x(1)
    wide = _less(c, x, c.optional(2), x.rank - 1)
    return _convolved_exactly(c, wide, _less(c, weight, c.optional(3), 0))


def _convolved_exactly(c: Call, x: Value, weight: Value) -> Value:
    depth = symbolic.product(weight.shape[1:])
    if not isinstance(depth, int) or depth > _DEEP:
        raise Unsupported("a convolution of whole numbers that deep")
    filters = c.b.cast(weight, DType.F32)
    low = c.b.apply(lambda v: apply("bit_and", v, scalar.const(15, v.dtype)), x)
    high = c.b.apply(lambda v, w: v - w, x, low)
    parts = [
        c.b.cast(convolved(c, c.b.cast(v, DType.F32), filters, None), DType.I32)
        for v in (high, low)
    ]
    return c.b.apply(lambda v, w: v + w, *parts)


def _column(c: Call, value: Value, rank: int, axis: int) -> Value:
    """A scale beside the result of a product: of all, or along an axis."""
    if value.rank == 0 or value.shape == (1,):
        return c.b.reshape(value, ())
    if value.rank > 1:
        return value
    return c.b.reshape(value, (value.shape[0], *[1] * (rank - axis - 1)))


def _requantized(
    c: Call, total: Value, scales: Sequence[Value], zero: Value, axes: Sequence[int]
) -> Value:
    """Sums in the scale of the result: total * (sx * sy / sz), rounded and saturated."""
    sx, sy, sz = (_column(c, s, total.rank, a) for s, a in zip(scales, axes, strict=True))
    wide = [c.b.cast(s, DType.F32) for s in (sx, sy, sz)]
    factor = c.b.apply(lambda a, b, d: a * b / d, *wide)
    low, high = _LIMITS[zero.dtype]

    def stored(v: Scalar, f: Scalar, z: Scalar) -> Scalar:
        y = apply("round", scalar.cast(v, DType.F32) * f) + scalar.cast(z, DType.F32)
        y = apply("max", apply("min", y, scalar.const(high, y.dtype)), scalar.const(low, y.dtype))
        return scalar.cast(scalar.cast(y, DType.I32), zero.dtype)

    return c.b.apply(stored, total, factor, _column(c, zero, total.rank, axes[2]))


def _qlinear_matmul(c: Call) -> Value:
    x, sx, zx, y, sy, zy, sz, zz = (c.x(i) for i in range(8))
    total = _product(c, _less(c, x, zx, x.rank - 2), _less(c, y, zy, y.rank - 1))
    last = total.rank - 1
    return _requantized(c, total, (sx, sy, sz), zz, (last - 1, last, last))


def _qlinear_conv(c: Call) -> Value:
    x, sx, zx, weight, sw, zw, sz, zz = (c.x(i) for i in range(8))
    bias = c.optional(8)
    total = _convolved_exactly(c, _less(c, x, zx, x.rank - 1), _less(c, weight, zw, 0))
    if bias is not None:
        column = c.b.reshape(bias, (bias.shape[0], *[1] * (total.rank - 2)))
        total = c.b.apply(lambda v, w: v + w, total, column)
    return _requantized(c, total, (sx, sw, sz), zz, (1, 1, 1))


def _zero(c: Call, place: int) -> Value | None:
    value = c.optional(place)
    return None if value is None else c.b.reshape(value, ())


def _qlinear_add(c: Call) -> Value:
    """Of `com.microsoft`: x, sx, zx, y, sy, zy, sz, zz."""
    return _of_two(c, "add.Tensor")


def _qlinear_mul(c: Call) -> Value:
    return _of_two(c, "mul.Tensor")


def _of_two(c: Call, overload: str) -> Value:
    x = dequantized(c, c.x(0), c.b.reshape(c.x(1), ()), _zero(c, 2))
    y = dequantized(c, c.x(3), c.b.reshape(c.x(4), ()), _zero(c, 5))
    made = c.binary(overload, x, y)
    return quantized(c, made, c.b.reshape(c.x(6), ()), _zero(c, 7), c.tensor(0).dtype)


def _dynamic_matmul(c: Call) -> Value:
    """DynamicQuantizeMatMul: the product of floats with whole numbers, and a bias."""
    x, y, scale, zero, bias = c.x(0), c.x(1), c.x(2), c.optional(3), c.optional(4)
    weight = _weight(c, y, scale, zero)
    made = matmul(c, x, weight)
    return made if bias is None else c.binary("add.Tensor", made, bias)


def _matmul_to_float(c: Call) -> Value:
    """MatMulIntegerToFloat: sums times both scales."""
    x, y, sx, sy = (c.x(i) for i in range(4))
    rows = _less(c, x, c.optional(4), x.rank - 2)
    total = _product(c, rows, _less(c, y, c.optional(5), y.rank - 1))
    sx, sy = (_column(c, s, total.rank, total.rank - 1) for s in (sx, sy))
    made = c.b.apply(lambda v, a, b: scalar.cast(v, a.dtype) * (a * b), total, sx, sy)
    bias = c.optional(6)
    return made if bias is None else c.binary("add.Tensor", made, bias)


def _weight(c: Call, y: Value, scale: Value, zero: Value | None) -> Value:
    scale = _column(c, scale, y.rank, y.rank - 1)
    zero = None if zero is None else _column(c, zero, y.rank, y.rank - 1)
    return dequantized(c, y, scale, zero)


def _matmul_bits(c: Call) -> Value:
    """MatMulNBits: rows of weights in blocks along their length, a scale for each block."""
    x, packed, scales = c.x(0), c.numbers(1, "weights"), c.numbers(2, "scales")
    zeros, order = c.numbers(3, "zero points"), c.numbers(4, "an order")
    depth, rows = c.required("K"), c.required("N")
    bits, block = c.attr("bits", 4), c.attr("block_size", 0)
    c.harmless("accuracy_level")
    if bits not in (2, 4, 8) or block < 16 or packed is None or scales is None:
        raise Unsupported(f"weights of {bits} bits in blocks of {block}")
    if order is not None and not np.array_equal(order, np.arange(depth) // block):
        raise Unsupported("weights in another order (g_idx)")
    blocks = -(-depth // block)
    numbers = _unpacked(packed, bits).reshape(rows, blocks, -1)[:, :, :block]
    factors = scales.reshape(rows, blocks, 1).astype(np.float32)
    middle: Any = 1 << (bits - 1)
    if zeros is not None and zeros.dtype == np.uint8:
        middle = _unpacked(zeros.reshape(rows, -1), bits)[:, :blocks, None]
    elif zeros is not None:
        middle = zeros.reshape(rows, blocks, 1).astype(np.float32)
    weight = ((numbers.astype(np.float32) - middle) * factors).reshape(rows, -1)[:, :depth]
    bias = c.optional(5)
    out = x.dtype, (*x.shape[:-1], rows)
    given = {"input": c.b.cast(x, DType.F32), "weight": constant(weight), "bias": None}
    (y,) = c.aten("linear", (DType.F32, out[1]), **given)
    y = c.b.cast(y, x.dtype)
    return y if bias is None else c.binary("add.Tensor", y, bias)


def _unpacked(array: Any, bits: int) -> Any:
    """Numbers of some bits in bytes, the lowest first."""
    each = 8 // bits
    shifts = np.arange(each, dtype=np.uint8) * bits
    parts = (array[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return parts.reshape(*array.shape[:-1], array.shape[-1] * each)


RULES: Table = merged(
    since(10, QuantizeLinear=_quantize, DequantizeLinear=_dequantize),
    since(11, DynamicQuantizeLinear=_dynamic),
    since(10, MatMulInteger=_matmul_integer, ConvInteger=_conv_integer),
    since(10, QLinearMatMul=_qlinear_matmul, QLinearConv=_qlinear_conv),
    since(
        1,
        MICROSOFT,
        QuantizeLinear=_quantize,
        DequantizeLinear=_dequantize,
        QLinearAdd=_qlinear_add,
        QLinearMul=_qlinear_mul,
        DynamicQuantizeMatMul=_dynamic_matmul,
        MatMulIntegerToFloat=_matmul_to_float,
        MatMulNBits=_matmul_bits,
    ),
)
