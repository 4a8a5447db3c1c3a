"""The numerical definition of quantization and of the GEMM kernels, in numpy.

Every C kernel is compared with these functions: packed bytes and integer sums bit
for bit, float results exactly or within the bound that the test states. bf16 arrays
are uint16 arrays of their bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import erf
from typing import Any

import numpy as np

F32 = np.float32
Array = np.ndarray[Any, Any]


def bf16_from_f32(x: Array) -> Array:
    """Round f32 to bf16 bits (uint16): nearest, ties to even; NaN to its quiet NaN."""
    u = np.ascontiguousarray(x, F32).view(np.uint32)
    rounded = (u + np.uint32(0x7FFF) + ((u >> 16) & np.uint32(1))) >> 16
    quiet = ((u >> 16) & np.uint32(0x8000)) | np.uint32(0x7FC0)
    return np.where(np.isnan(u.view(F32)), quiet, rounded).astype(np.uint16)


def f32_from_bf16(bits: Array) -> Array:
    """Widen bf16 bits (uint16) to f32, exactly."""
    return (np.ascontiguousarray(bits, np.uint16).astype(np.uint32) << 16).view(F32)


@dataclass(frozen=True)
class QuantizedRows:
    """Rows of int8: x is about ``scale * (q - zp)``; q [m, k], zp and scale [m]."""

    q: Array
    zp: Array
    scale: Array


def quantize_rows(x: Array, together: int = 1) -> QuantizedRows:
    """Quantize each row of f32 [m, k] to int8 with its own scale and zero point ("qa8r").

    Of ``together`` rows each, which share a range, the rows of m have to be a multiple.

    The range always includes 0, so 0 is exactly representable. A row that holds NaN or
    Inf, or whose range overflows f32, gets scale NaN and q = zp = 0: all its results are
    NaN. A range below 1e-30 counts as zero: scale 0, q = zp = -128. All arithmetic is in
    f32, roundings are to nearest with ties to even; x * s + zp is rounded once, to an
    integer, by a fused multiply-add whose addend is zp + 1.5 * 2^23.
    """
    x = np.asarray(x, F32)
    with np.errstate(all="ignore"):
        shared = x.reshape(len(x) // together, -1) if x.size else x[::together]
        low = np.minimum(shared.min(axis=1, initial=0), F32(0)).astype(F32)
        high = np.maximum(shared.max(axis=1, initial=0), F32(0)).astype(F32)
        lo, hi, finite_rows = (
            np.repeat(part, together) for part in (low, high, np.isfinite(shared).all(axis=1))
        )
        spread = hi - lo
        valid = finite_rows & np.isfinite(spread)
        usable = valid & ~(spread < F32(1e-30))
        s = np.where(usable, F32(255) / spread, F32(0)).astype(F32)
        scale = np.where(usable, spread / F32(255), F32(0)).astype(F32)
        zp = np.clip(np.rint(F32(-128) - np.where(usable, lo, F32(0)) * s), -128, 127)
        finite = np.where(valid[:, None], x, F32(0))
        rounder = F32(1.5 * 2**23)
        q = np.clip(fma(finite, s[:, None], zp[:, None] + rounder) - rounder, -128, 127)
    q[~valid], zp[~valid], scale[~valid] = 0, 0, np.nan
    return QuantizedRows(q.astype(np.int8), zp.astype(np.int32), scale)


def dequantize(q: Array, scale: Array) -> Array:
    """The numbers that quantized values [n, k] stand for, f32 [n, k].

    Args:
        q: int8, or f32 that holds such values.
        scale: f32, one a row [n] or one a block [n, blocks].
    """
    n, k = q.shape
    blocks = 1 if scale.ndim == 1 else scale.shape[1]
    numbers = q.reshape(n, blocks, k // blocks) * scale.reshape(n, blocks, 1)
    return np.asarray(numbers, F32).reshape(n, k)


@dataclass(frozen=True)
class QuantizedHeads:
    """Keys or values of int8: x is about ``scale * q``; q [..., dim], scale f32 [...]."""

    q: Array
    scale: Array


def quantize_heads(x: Array) -> QuantizedHeads:
    """Quantize each head f32 [..., dim] of a key or value to int8 in [-127, 127].

    A head that holds NaN or Inf gets scale NaN and q = 0; one whose values are all below 5e-31
    counts as zero: scale 0. x * (127 / largest) is rounded once, to an integer, ties to even, by
    a fused multiply-add whose addend is 1.5 * 2^23.
    """
    x = np.asarray(x, F32)
    with np.errstate(all="ignore"):
        top = np.abs(x).max(axis=-1, initial=0)
        valid = np.isfinite(top)
        usable = valid & ~(top < F32(5e-31))
        s = np.where(usable, F32(127) / top, F32(0)).astype(F32)
        scale = np.where(usable, top / F32(127), F32(0)).astype(F32)
        finite = np.where(valid[..., None], x, F32(0))
        rounder = np.full(x.shape, F32(1.5 * 2**23))
        q = fma(finite, np.broadcast_to(s[..., None], x.shape), rounder) - rounder
    return QuantizedHeads(q.astype(np.int8), np.where(valid, scale, F32(np.nan)))


@dataclass(frozen=True)
class QuantizedColumns:
    """Weights of int8 or int4: w is about ``scale[:, None] * q``; q int8 [n, k], scale f32 [n].

    q lies in [-127, 127] or, for int4, in [-8, 7].
    """

    q: Array
    scale: Array


def quantize_channels(w: Array) -> QuantizedColumns:
    """Quantize torch-ordered weights f32 [n, k] to int8, one scale per output channel ("qs8c").

    ValueError if a weight is NaN or Inf. A channel of zeros gets scale 0.
    """
    w = np.ascontiguousarray(w, F32)
    bits = w.view(np.uint32) & np.uint32(0x7FFFFFFF)
    top = bits.max(axis=1, initial=0)  # magnitudes of f32 order like their bits
    if (top >= np.uint32(0x7F800000)).any():
        raise ValueError("weights hold NaN or Inf and cannot be quantized")
    scale = top.view(F32) / F32(127)
    divisor = np.where(scale > 0, scale, F32(1))
    q = np.divide(w, divisor[:, None])
    np.rint(q, out=q)
    np.clip(q, -127, 127, out=q)
    return QuantizedColumns(q.astype(np.int8), scale)


@dataclass(frozen=True)
class QuantizedBlocks:
    """Weights of int4 in blocks along k: value j of a row is about ``scale[j // group] * q[j]``.

    q int8 [n, k] in [-8, 7]; scale [n, k / group] in bf16 bits.
    """

    q: Array
    scale: Array

    @property
    def group(self) -> int:
        """Values that share a scale."""
        return int(self.q.shape[1] // max(self.scale.shape[1], 1))

    @property
    def shift(self) -> Array:
        """f32 [n]: the sum over blocks, in order, of scale * sum of q (each product is exact)."""
        scale, total = f32_from_bf16(self.scale), np.zeros(len(self.q), F32)
        for b in range(scale.shape[1]):
            q = self.q[:, b * self.group : (b + 1) * self.group]
            total = total + scale[:, b] * q.sum(axis=1, dtype=np.int32).astype(F32)
        return total


#: The value of largest magnitude becomes one of these: 7 and -8 span the range as far as it
#: goes, and beyond -8 the largest values are clipped so that all others get finer steps.
_INT4_EXTREMES = (7, -8, -9, -10)


#: Values that are quantized at once: their temporaries stay in the cache.
_INT4_CHUNK = 1 << 16


def _quantize_int4(w: Array, round_scale: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Values and scales of rows of f32 that have one scale each, of least squared error.

    ``round_scale`` gives the scale that is stored; values are rounded against that one. A
    scale below 2**-100 counts as zero: products with it stay far from denormal numbers.
    """
    q, scale = np.zeros(w.shape, np.int8), np.zeros(len(w), F32)
    if not np.isfinite(w).all():
        raise ValueError("weights hold NaN or Inf and cannot be quantized")
    step = max(1, _INT4_CHUNK // max(w.shape[1], 1))
    for start in range(0, len(w) if w.size else 0, step):
        rows = slice(start, start + step)
        _quantize_int4_rows(w[rows], round_scale, q[rows], scale[rows])
    return q, scale


def _quantize_int4_rows(
    w: Array, round_scale: Callable[[Array], Array], q: Array, scale: Array
) -> None:
    """Fill ``q`` and ``scale``, which hold zeros, for a few rows."""
    extreme = np.take_along_axis(w, np.abs(w).argmax(axis=1)[:, None], axis=1)[:, 0]
    top = np.where(extreme == 0, F32(1), np.abs(extreme))
    units = w / top[:, None]  # squares of errors in units of the extreme do not overflow
    least = np.full(len(w), np.inf, F32)
    for target in _INT4_EXTREMES:
        s = round_scale(extreme / F32(target))
        s = np.where(np.abs(s) < F32(2.0**-100), F32(0), s)
        steps = np.divide(w, np.where(s == 0, np.inf, s).astype(F32)[:, None])
        np.clip(np.rint(steps, out=steps), -8, 7, out=steps)
        miss = units - steps * (s / top)[:, None]
        error = np.einsum("ij,ij->i", miss, miss)
        better = error < least
        least[better], scale[better] = error[better], s[better]
        q[better] = steps[better].astype(np.int8)


def quantize_channels_int4(w: Array) -> QuantizedColumns:
    """Quantize torch-ordered weights f32 [n, k] to int4, one f32 scale per channel ("qs4c").

    ValueError if a weight is NaN or Inf. A channel of zeros gets scale 0.
    """
    return QuantizedColumns(*_quantize_int4(np.asarray(w, F32), lambda scale: scale))


def quantize_blocks_int4(w: Array, group: int) -> QuantizedBlocks:
    """Quantize torch-ordered weights f32 [n, k] to int4, a bf16 scale per block ("qs4b").

    A block is ``group`` consecutive values of a row. ValueError if ``group`` is no multiple
    of 32 up to 1024 or does not divide k, or if a weight is NaN or Inf.
    """
    w = np.asarray(w, F32)
    n, k = w.shape
    if group % 32 or not 0 < group <= 1024 or k % group:
        raise ValueError(f"{group} is no multiple of 32 up to 1024 that divides k = {k}")
    q, scale = _quantize_int4(
        w.reshape(n * (k // group), group), lambda s: f32_from_bf16(bf16_from_f32(s))
    )
    return QuantizedBlocks(q.reshape(n, k), bf16_from_f32(scale).reshape(n, k // group))


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "relu": lambda x: np.where(x < 0, 0.0, x),  # keeps NaN
    "gelu_erf": lambda x: 0.5 * x * (1 + np.vectorize(erf, otypes=[np.float64])(x / np.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu6": lambda x: np.clip(x, 0, 6),
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
}


def activation(x: Array, name: str, slope: float = 0.0) -> Array:
    """Apply an activation of go_kernel.h ("none", "relu", "gelu_erf", ...) in float64.

    Args:
        x: what it is applied to.
        name: of the activation; KeyError if there is none of that name.
        slope: of "leaky_relu".
    """
    with np.errstate(all="ignore"):
        if name == "leaky_relu":
            return np.where(x > 0, x, np.asarray(x, np.float64) * np.float32(slope))
        return _ACTIVATIONS[name](np.asarray(x, np.float64))


def fma(a: Array, b: Array, c: Array) -> Array:
    """Return a * b + c of f32 arrays with one rounding to f32, exactly as the hardware does.

    The product of two f32 is exact in float64. The float64 sum is rounded to odd with the
    help of its error (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums",
    2008), which makes the second rounding, to f32, correct.

    Args:
        a: factor, f32.
        b: factor, f32.
        c: addend, f32; the three broadcast.
    """
    with np.errstate(all="ignore"):
        p = np.asarray(a, np.float64) * np.asarray(b, np.float64)
        c = np.asarray(c, np.float64)
        s = p + c
        part = s - p
        error = (p - (s - part)) + (c - part)
        even = (s.view(np.int64) & 1) == 0
        inexact = np.isfinite(s) & (error != 0) & even
        odd = np.nextafter(s, np.where(error > 0, np.inf, -np.inf))
        result: Array = np.where(inexact, odd, s).astype(F32)
    return result


def gemm_qa8(a: QuantizedRows, w: QuantizedColumns, bias: Array | None = None) -> Array:
    """Multiply quantized rows by weights with one scale per channel.

    The integer part is exact, then converted to f32 once; the result is one fused multiply-add
    ``isum * (row scale * channel scale) + bias`` (or + 0).

    Args:
        a: rows [m, k].
        w: weights [n, k], int8 (qs8c) or int4 (qs4c).
        bias: f32 [n]; None for 0.

    Returns:
        f32 [m, n], before activation.
    """
    sums = a.q.astype(np.float64) @ w.q.astype(np.float64).T  # exact: below 2**53
    columns = w.q.sum(axis=1, dtype=np.int64)
    exact = sums.astype(np.int64) - a.zp[:, None].astype(np.int64) * columns[None, :]
    shift = np.zeros(len(columns), F32) if bias is None else np.asarray(bias, F32)
    with np.errstate(all="ignore"):
        scale = (a.scale[:, None] * w.scale[None, :]).astype(F32)
    return fma(exact.astype(F32), scale, shift[None, :])


def gemm_qs4b(a: QuantizedRows, w: QuantizedBlocks, bias: Array | None = None) -> Array:
    """Multiply quantized rows by int4 weights in blocks.

    The integer sum of a block is exact and converted to f32 once. With one rounding a step::

        acc = fma(sum over a block of qa * qw, scale of the block, acc)   in order, from 0
        y   = fma(fma(-zp, shift, acc), row scale, bias or 0)

    Args:
        a: rows [m, k].
        w: weights [n, k].
        bias: f32 [n]; None for 0.

    Returns:
        f32 [m, n], before activation.
    """
    scale, group = f32_from_bf16(w.scale), w.group
    acc: Array = np.zeros((len(a.q), len(w.q)), F32)
    for b in range(scale.shape[1]):
        block = slice(b * group, (b + 1) * group)
        sums = a.q[:, block].astype(np.float64) @ w.q[:, block].astype(np.float64).T
        acc = fma(sums.astype(F32), scale[None, :, b], acc)
    acc = fma((-a.zp).astype(F32)[:, None], w.shift[None, :], acc)
    shift = np.zeros(len(w.q), F32) if bias is None else np.asarray(bias, F32)
    return fma(acc, a.scale[:, None], shift[None, :])


def gemm_f32(a: Array, w: Array) -> Array:
    """Multiply f32 rows [m, k] by torch-ordered f32 weights [n, k]: f32 [m, n], no bias.

    Each result is one chain of fused multiply-adds in order of k, starting from 0.
    """
    a, w = np.asarray(a, F32), np.asarray(w, F32)
    y: Array = np.zeros((len(a), len(w)), F32)
    for k in range(a.shape[1]):
        y = fma(a[:, k, None], w[None, :, k], y)
    return y


def gemm_f32_pairs(a: Array, w: Array) -> Array:
    """Multiply as `gemm_f32` does, but as FMMLA sums: f32 [m, n].

    For every pair of k, y = y + (p + q) with products p and q, each of the four rounded to f32
    (Arm ARM, FMMLA). An odd k is padded with a zero.
    """
    depth = -(-np.shape(a)[1] // 2) * 2
    a, w = (np.pad(x, ((0, 0), (0, depth - np.shape(x)[1]))).astype(F32) for x in (a, w))
    y: Array = np.zeros((len(a), len(w)), F32)
    for k in range(0, depth, 2):
        y = y + (a[:, k, None] * w[None, :, k] + a[:, k + 1, None] * w[None, :, k + 1])
    return y


def gemm_bf16(a: Array, w: Array) -> Array:
    """Multiply rows [m, k] by torch-ordered weights [n, k], both bf16 widened to f32: f32 [m, n].

    One chain of fused multiply-adds from 0, as `gemm_f32`, but in order of the pairs of k with
    the odd value of a pair before the even one: that of VDPBF16PS (Intel SDM). An odd k is
    padded with a zero.
    """
    depth = -(-np.shape(a)[1] // 2) * 2
    order = np.arange(depth) ^ 1
    a, w = (np.pad(x, ((0, 0), (0, depth - np.shape(x)[1])))[:, order] for x in (a, w))
    return gemm_f32(a, w)


def gemm_exact(a: Array, w: Array, bias: Array | None = None) -> Array:
    """Multiply float rows by torch-ordered weights in float64.

    Args:
        a: rows [m, k].
        w: weights [n, k].
        bias: [n]; None for no bias.

    Returns:
        f64 [m, n].
    """
    y = np.asarray(a, np.float64) @ np.asarray(w, np.float64).T
    return y if bias is None else y + np.asarray(bias, np.float64)
