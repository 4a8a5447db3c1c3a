"""Products of whole numbers: exactly, in f32 products that hold their sums, or of floats.

Where results need not be those of the model to the last bit (`Call.exact`), a product of numbers
that were rounded from floats by constants becomes a linear of these floats, which the kernels of
whole numbers compute with a scale per row; see meanings.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphopt.ir import DType, Value, constant, scalar, symbolic
from graphopt.ir.scalar import Scalar, apply
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.known import Array, Tensor
from graphopt.onnx.meanings import Later, Rounded, Sums, Weights, columns, same_numbers
from graphopt.onnx.rules.linears import in_f32, multiplied
from graphopt.onnx.rules.products import matmul
from graphopt.onnx.rules.quantized import (
    BYTES,
    LIMITS,
    dequantized,
    dynamic,
    floats,
    grid,
    requantized,
)
from graphopt.onnx.rules.table import MICROSOFT, Table, merged, since
from graphopt.onnx.rules.windows import convolved
from graphopt.passes.lowering.builder import Unsupported

_DEEP = 4096
"""Products of 5 and 9 bits that sum up exactly in f32."""


def _less(c: Call, x: Value, zero: Value | None, axis: int) -> Value:
    """Numbers less their zero points, in i32; zero points of an axis lie along it."""
    if x.dtype not in BYTES:
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
    axis = y.rank - 2 if y.rank > 1 else 0
    depth = next((n for n in (y.shape[axis], x.shape[-1]) if isinstance(n, int)), None)
    if depth is None:
        raise Unsupported("a product of whole numbers whose depth varies")
    c.require_equal(x.shape[-1], y.shape[axis], "rows and columns of a product")
    x = c.b.reshape(x, (*x.shape[:-1], depth))
    total: Value | None = None
    weights = c.b.cast(y, DType.F32)
    for start in range(0, max(depth, 1), _DEEP):
        count = min(_DEEP, depth - start)
        rows = c.b.slice(x, x.rank - 1, start, count)
        part = c.b.slice(weights, axis, start, count)
        low = c.b.apply(lambda v: apply("bit_and", v, scalar.const(15, v.dtype)), rows)
        high = c.b.apply(lambda v, w: v - w, rows, low)
        for half in (high, low):
            wide = c.b.cast(half, DType.F32)
            fixed = part.data if part.rank == 2 and x.rank > 1 else None
            found = matmul(c, wide, part) if fixed is None else in_f32(c, wide, fixed)
            made = c.b.cast(found, DType.I32)
            total = made if total is None else c.b.apply(lambda v, w: v + w, total, made)
    assert total is not None
    return total


def _weights_of(c: Call, number: int, zero: Tensor | None, scale: Array | None) -> Weights | None:
    """The constants [k, n] of an input, with a scale for all or for each column.

    Args:
        c: the node.
        number: of the input.
        zero: zero point of all, or of each column.
        scale: likewise; None if it is no constant.
    """
    numbers = c.tensor(number).data
    if numbers is None or scale is None or (zero is not None and zero.data is None):
        return None
    return columns(numbers, scale, None if zero is None else zero.data)


def _rounded(c: Call, number: int, zero: int) -> Rounded | None:
    """What the whole numbers of an input were rounded from; None if they must be exact.

    Args:
        c: the node.
        number: of the input.
        zero: the input with its zero point.
    """
    meaning = c.tensor(number).meaning
    if c.exact or not isinstance(meaning, Rounded):
        return None
    return meaning if same_numbers(c.given(zero), meaning.zero) else None


_ONE = np.ones((), np.float32)


def _matmul_integer(c: Call) -> Tensor:
    x, y = c.tensor(0), c.tensor(1)
    zeros = c.given(2), c.given(3)

    def exactly() -> Value:
        a, b = x.value(c.b), y.value(c.b)
        rows = _less(c, a, c.optional(2), a.rank - 2)
        return _product(c, rows, _less(c, b, c.optional(3), b.rank - 1))

    found, weights = _rounded(c, 0, 2), _weights_of(c, 1, zeros[1], _ONE)
    if found is None or weights is None or not x.rank:
        return Tensor.of(exactly())
    c.require_equal(x.shape[-1], weights.numbers.shape[0], "rows and columns of a product")
    shape = (*x.shape[:-1], weights.numbers.shape[1])

    def of(factor: Array) -> Value:
        scaled = _weights_of(c, 1, zeros[1], factor)
        assert scaled is not None
        return multiplied(c, found.x, scaled)

    return Later(DType.I32, shape, exactly, Sums(found, 1, of, _ONE))


def _conv_integer(c: Call) -> Tensor:
    x, weight = c.x(0), c.x(1)
    zero = c.optional(3)

    def exactly() -> Value:
        wide = _less(c, x, c.optional(2), x.rank - 1)
        return _convolved_exactly(c, wide, _less(c, weight, zero, 0))

    found = _rounded(c, 0, 2)
    if found is None or not weight.is_constant or (zero is not None and not zero.is_constant):
        return Tensor.of(exactly())

    def of(factor: Array) -> Value:
        filters = _filters(c, weight, zero, constant(factor))
        return convolved(c, found.x, filters, None)

    shape = convolved(c, found.x, c.b.cast(weight, DType.F32), None).shape
    return Later(DType.I32, shape, exactly, Sums(found, len(shape) - 1, of, _ONE))


def _filters(c: Call, weight: Value, zero: Value | None, scale: Value) -> Value:
    """The floats of a filter, with a scale for all or for each output channel."""
    column = _column(c, scale, weight.rank, 0)
    return dequantized(
        c, weight, column, None if zero is None else _column(c, zero, weight.rank, 0)
    )


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
    low, high = LIMITS[zero.dtype]

    def stored(v: Scalar, f: Scalar, z: Scalar) -> Scalar:
        y = apply("round", scalar.cast(v, DType.F32) * f) + scalar.cast(z, DType.F32)
        y = apply("max", apply("min", y, scalar.const(high, y.dtype)), scalar.const(low, y.dtype))
        return scalar.cast(scalar.cast(y, DType.I32), zero.dtype)

    return c.b.apply(stored, total, factor, _column(c, zero, total.rank, axes[2]))


def _qlinear_matmul(c: Call) -> Tensor:
    """Of x, sx, zx, y, sy, zy, sz, zz."""
    scale, zero = c.tensor(4), c.given(5)
    if not c.exact:
        weights = _weights_of(c, 3, zero, scale.data)
        if weights is not None and c.tensor(1).shape in ((), (1,)):
            x = floats(c, c.tensor(0), grid(c, 1))
            c.require_equal(x.shape[-1], weights.numbers.shape[0], "rows and columns of a product")
            return requantized(c, multiplied(c, x, weights), 6, c.tensor(7).dtype)
    x, sx, zx, y, sy, zy, sz, zz = (c.x(i) for i in range(8))
    total = _product(c, _less(c, x, zx, x.rank - 2), _less(c, y, zy, y.rank - 1))
    last = total.rank - 1
    return Tensor.of(_requantized(c, total, (sx, sy, sz), zz, (last - 1, last, last)))


def _qlinear_conv(c: Call) -> Tensor:
    """Of x, sx, zx, w, sw, zw, sy, zy and a bias in whole numbers."""
    weight, sw, zw, bias = c.x(3), c.x(4), c.x(5), c.optional(8)
    if not c.exact and weight.is_constant and sw.is_constant:
        x, factor = floats(c, c.tensor(0), grid(c, 1)), c.tensor(1).value(c.b)
        shift = None
        if bias is not None:
            scales = c.b.apply(lambda a, b: a * b, sw, c.b.reshape(factor, ()))
            shift = dequantized(c, bias, c.b.reshape(scales, scales.shape if scales.rank and
                                scales.shape != (1,) else ()), None)  # fmt: skip
        y = convolved(c, x, _filters(c, weight, zw, sw), shift)
        return requantized(c, y, 6, c.tensor(7).dtype)
    x, sx, zx, sz, zz = (c.x(i) for i in (0, 1, 2, 6, 7))
    total = _convolved_exactly(c, _less(c, x, zx, x.rank - 1), _less(c, weight, zw, 0))
    if bias is not None:
        column = c.b.reshape(bias, (bias.shape[0], *[1] * (total.rank - 2)))
        total = c.b.apply(lambda v, w: v + w, total, column)
    return Tensor.of(_requantized(c, total, (sx, sw, sz), zz, (1, 1, 1)))


def _qgemm(c: Call) -> Tensor:
    """Of x, sx, zx, w, sw, zw, a bias in whole numbers, sy, zy; floats without the last two."""
    if c.attr("transA", 0) or c.attr("alpha", 1.0) != 1:
        raise Unsupported("its form with transA, or alpha")
    x, numbers, scale = floats(c, c.tensor(0), grid(c, 1)), c.tensor(3).data, c.tensor(4).data
    zero = c.given(5)
    if numbers is None or scale is None or (zero is not None and zero.data is None):
        raise Unsupported("weights that are no constants")
    held = numbers.T if c.attr("transB", 0) else numbers
    weights = columns(held, scale, None if zero is None else zero.data)
    if weights is None:
        raise Malformed(f"{scale.size} scales for weights {list(held.shape)}")
    c.require_equal(x.shape[-1], held.shape[0], "rows and columns of a product")
    y = in_f32(c, x, weights.dense()) if c.exact else multiplied(c, x, weights)
    if (bias := c.optional(6)) is not None:
        each = constant(weights.scale.reshape(-1))
        both = c.b.apply(lambda a, b: a * b, each, c.b.reshape(c.x(1), ()))
        y = c.binary("add.Tensor", y, dequantized(c, bias, both, None))
    return requantized(c, y, 7, c.tensor(0).dtype) if c.count > 7 else Tensor.of(y)


def _dynamic_matmul(c: Call) -> Value:
    """DynamicQuantizeMatMul: of floats, weights with their scales and zero points, and a bias."""
    x, y, bias = c.x(0), c.x(1), c.optional(4)
    scale, zero = c.tensor(2), c.given(3)
    weights = _weights_of(c, 1, zero, scale.data)
    if not c.exact and weights is not None:
        c.require_equal(x.shape[-1], y.shape[0], "rows and columns of a product")
        made = multiplied(c, x, weights)
    else:
        numbers, sx, zx = dynamic(c, x)
        rows = _less(c, numbers, zx, x.rank - 2)
        total = _product(c, rows, _less(c, y, c.optional(3), y.rank - 1))
        made = _with_scales(c, total, sx, c.x(2))
    return made if bias is None else c.binary("add.Tensor", made, bias)


def _matmul_to_float(c: Call) -> Value:
    """MatMulIntegerToFloat: of whole numbers, their scales and zero points, and a bias."""
    bias, scale = c.optional(6), c.tensor(3)
    found = _rounded(c, 0, 4)
    weights = _weights_of(c, 1, c.given(5), scale.data)
    if found is not None and weights is not None and found.scale is c.tensor(2):
        made = multiplied(c, found.x, weights)
    else:
        x, y = c.x(0), c.x(1)
        rows = _less(c, x, c.optional(4), x.rank - 2)
        total = _product(c, rows, _less(c, y, c.optional(5), y.rank - 1))
        made = _with_scales(c, total, c.x(2), c.x(3))
    return made if bias is None else c.binary("add.Tensor", made, bias)


def _with_scales(c: Call, total: Value, sx: Value, sy: Value) -> Value:
    """Sums times both scales."""
    sx, sy = (_column(c, s, total.rank, total.rank - 1) for s in (sx, sy))
    return c.b.apply(lambda v, a, b: scalar.cast(v, a.dtype) * (a * b), total, sx, sy)


def _matmul_bits(c: Call) -> Value:
    """MatMulNBits: rows of weights in blocks along their length, a scale for each block."""
    x, packed, scales = c.x(0), c.numbers(1, "weights"), c.numbers(2, "scales")
    zeros, order = c.numbers(3, "zero points"), c.numbers(4, "an order")
    depth, rows = c.required("K"), c.required("N")
    bits, block = c.attr("bits", 4), c.attr("block_size", 0)
    c.harmless("accuracy_level")
    if c.attr("weight_prepacked", 0):
        raise Unsupported("weights in the order of some device (weight_prepacked)")
    if bits not in (2, 4, 8) or block < 16 or packed is None or scales is None:
        raise Unsupported(f"weights of {bits} bits in blocks of {block}")
    if order is not None and not np.array_equal(order, np.arange(depth) // block):
        raise Unsupported("weights in another order (g_idx)")
    blocks = -(-depth // block)
    numbers = _unpacked(packed, bits).reshape(rows, blocks, -1)[:, :, :block]
    if numbers.shape[2] != block or scales.size != rows * blocks:
        raise Malformed(f"{packed.size} bytes of weights and {scales.size} scales")
    factors = scales.reshape(rows, blocks).astype(np.float32)
    middle: Any = np.full((rows, blocks), 1 << (bits - 1), np.uint8)
    if zeros is not None and zeros.dtype == np.uint8:
        middle = _unpacked(zeros.reshape(rows, -1), bits)[:, :blocks]
    elif zeros is not None:
        middle = zeros.reshape(rows, blocks).astype(np.float32)
    c.require_equal(x.shape[-1], depth, "rows and columns of a product")
    bias = c.optional(5)
    if not c.exact and middle.dtype == np.uint8 and bits < 8:
        kept = numbers.reshape(rows, -1)[:, :depth].T
        held = Weights(kept, factors.T, middle.T.astype(np.int32), block, narrow=True)
        y = multiplied(c, x, held)
    else:
        whole = numbers.astype(np.float32) - middle[:, :, None]
        weight = (whole * factors[:, :, None]).reshape(rows, -1)[:, :depth]
        given = {"input": c.b.cast(x, DType.F32), "weight": constant(weight), "bias": None}
        (y,) = c.aten("linear", (DType.F32, (*x.shape[:-1], rows)), **given)
        y = c.b.cast(y, x.dtype)
    return y if bias is None else c.binary("add.Tensor", y, bias)


def _unpacked(array: Any, bits: int) -> Any:
    """Numbers of some bits in bytes, the lowest first."""
    each = 8 // bits
    shifts = np.arange(each, dtype=np.uint8) * bits
    parts = (array[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return parts.reshape(*array.shape[:-1], array.shape[-1] * each)


RULES: Table = merged(
    since(10, MatMulInteger=_matmul_integer, ConvInteger=_conv_integer),
    since(10, QLinearMatMul=_qlinear_matmul, QLinearConv=_qlinear_conv),
    since(
        1,
        MICROSOFT,
        QGemm=_qgemm,
        DynamicQuantizeMatMul=_dynamic_matmul,
        MatMulIntegerToFloat=_matmul_to_float,
        MatMulNBits=_matmul_bits,
    ),
)
