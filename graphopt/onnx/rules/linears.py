"""Linears of weights that came quantized, for the kernels of whole numbers.

Kernels take symmetric weights. Unsigned ones are moved by the middle of their type, so are their
zero points, and both together where the weights still fit in their bits. What is left of zero
points is a term of its own: sums of x, or of its blocks, times scale and zero point.
"""

from __future__ import annotations

import numpy as np

from graphopt.ir import DType, Value, constant
from graphopt.ir.loss import Loss
from graphopt.ir.ops import Linear, Reduce
from graphopt.kernels import reference
from graphopt.kernels.formats import F32
from graphopt.onnx.call import Call
from graphopt.onnx.known import Array
from graphopt.onnx.meanings import Weights

_LONGEST = 1024
"""Of blocks that kernels take, in multiples of 32."""


def multiplied(c: Call, x: Value, weights: Weights) -> Value:
    """The product of floats with weights that came quantized, by the kernel that takes them.

    Args:
        c: the node.
        x: floats [.., k].
        weights: [k, n].
    """
    depth, width = weights.numbers.shape
    shape = (*x.shape[:-1], width)
    rows = c.b.reshape(c.b.cast(x, DType.F32), (*(x.shape[:-1] or (1,)), depth))
    if not weights.block and weights.scale.shape[0] == 1:
        y = _in_int8(c, rows, weights)
    elif weights.narrow and _fits_blocks(weights):
        y = _in_int4(c, rows, weights)
    else:
        y = in_f32(c, rows, weights.dense())
    return c.b.cast(y if x.rank > 1 else c.b.reshape(y, shape), x.dtype)


def in_f32(c: Call, x: Value, weight: Array) -> Value:
    """The product of rows with constants [k, n], in f32 whatever the precision.

    Args:
        c: the node.
        x: f32 [.., k].
        weight: f32.
    """
    given = constant(np.ascontiguousarray(weight.T, np.float32))
    return c.b.emit(Linear(format=F32), x, given)


def _in_int8(c: Call, x: Value, weights: Weights) -> Value:
    """With a scale for each output channel."""
    width = weights.numbers.shape[1]
    scale = np.broadcast_to(weights.scale.astype(np.float32).reshape(-1), (width,)).copy()
    zero = np.broadcast_to(weights.zero.astype(np.int32).reshape(-1), (width,))
    numbers, rest = _symmetric(weights.numbers.T, zero[:, None], 8)
    y = c.b.emit(Linear(), x, constant(numbers), scale=constant(scale))
    if not rest.any():
        return y
    total = c.b.emit(Reduce("sum", (x.rank - 1,)), x)
    term = constant(rest[:, 0] * scale)
    return c.b.apply(lambda v, s, f: v - s * f, y, total, term)


def _fits_blocks(weights: Weights) -> bool:
    return (
        weights.axis == 0
        and weights.block % 32 == 0
        and 0 < weights.block <= _LONGEST
        and weights.numbers.shape[0] % weights.block == 0
    )


def _in_int4(c: Call, x: Value, weights: Weights) -> Value:
    """With a scale for each block, which becomes bf16."""
    (depth, width), block = weights.numbers.shape, weights.block
    blocks = depth // block
    in_blocks = weights.numbers.T.reshape(width, blocks, block)
    zero = np.broadcast_to(weights.zero, (blocks, width)).T.astype(np.int32)
    numbers, rest = _symmetric(in_blocks, zero[:, :, None], 4)
    wide = np.broadcast_to(weights.scale.astype(np.float32), (blocks, width)).T
    bits = reference.bf16_from_f32(wide).reshape(wide.shape)
    scale = reference.f32_from_bf16(bits).reshape(wide.shape)
    whole = (in_blocks - zero[:, :, None]).astype(np.float32)
    squares = (whole * whole).sum(-1)
    lost = float((squares * (scale - wide) ** 2).sum() / max((squares * wide**2).sum(), 1e-30))
    held = Value(DType.BF16, bits.shape, data=bits)
    weight = constant(numbers.reshape(width, depth))
    y = c.b.emit(Linear(loss=Loss(lost)), x, weight, scale=held)
    if not rest.any():
        return y
    split = c.b.reshape(x, (*x.shape[:-1], blocks, block))
    sums = c.b.reshape(c.b.emit(Reduce("sum", (split.rank - 1,)), split), (*x.shape[:-1], blocks))
    return c.b.apply(lambda v, w: v - w, y, in_f32(c, sums, (rest[:, :, 0] * scale).T))


def _symmetric(numbers: Array, zero: Array, bits: int) -> tuple[Array, Array]:
    """Whole numbers of some bits, signed, and what is left of their zero points.

    Args:
        numbers: signed or not.
        zero: broadcasts to them, 1 along the last axis.
        bits: at most 8.
    """
    middle = 1 << (bits - 1)
    wide = numbers.astype(np.int16)
    moved = wide - zero.astype(np.int16)
    fits = (moved.min(-1, keepdims=True) >= -middle) & (moved.max(-1, keepdims=True) < middle)
    shift = 0 if wide.min(initial=0) < 0 else middle
    made = np.where(fits, moved, wide - shift).astype(np.int8)
    rest = np.where(fits, 0, zero - shift).astype(np.float32)
    return np.ascontiguousarray(made), rest
