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
from numpy.typing import NDArray

F32 = np.float32
Array = NDArray[Any]


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


def quantize_rows(x: Array) -> QuantizedRows:
    """Quantize each row of f32 [m, k] to int8 with its own scale and zero point ("qa8r").

    The range always includes 0, so 0 is exactly representable. A row that holds NaN or
    Inf, or whose range overflows f32, gets scale NaN and q = zp = 0: all its results are
    NaN. A range below 1e-30 counts as zero: scale 0, q = zp = -128. All arithmetic is in
    f32, roundings are to nearest with ties to even.
    """
    x = np.asarray(x, F32)
    with np.errstate(all="ignore"):
        lo = np.minimum(x.min(axis=1, initial=0), F32(0)).astype(F32)
        hi = np.maximum(x.max(axis=1, initial=0), F32(0)).astype(F32)
        spread = hi - lo
        valid = np.isfinite(x).all(axis=1) & np.isfinite(spread)
        usable = valid & ~(spread < F32(1e-30))
        s = np.where(usable, F32(255) / spread, F32(0)).astype(F32)
        scale = np.where(usable, spread / F32(255), F32(0)).astype(F32)
        zp = np.clip(np.rint(F32(-128) - np.where(usable, lo, F32(0)) * s), -128, 127)
        steps = np.where(valid[:, None], x, F32(0)) * s[:, None]
        q = np.clip(np.rint(steps) + zp[:, None], -128, 127)
    q[~valid], zp[~valid], scale[~valid] = 0, 0, np.nan
    return QuantizedRows(q.astype(np.int8), zp.astype(np.int32), scale)


@dataclass(frozen=True)
class QuantizedColumns:
    """Weights of int8: w is about ``scale[:, None] * q``; q [n, k] in [-127, 127], scale [n]."""

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


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "relu": lambda x: np.where(x < 0, 0.0, x),  # keeps NaN
    "gelu_erf": lambda x: 0.5 * x * (1 + np.vectorize(erf, otypes=[np.float64])(x / np.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


def activation(x: Array, name: str) -> Array:
    """Apply an activation of go_kernel.h ("none", "relu", "gelu_erf", ...) in float64.

    KeyError if there is no such activation.
    """
    with np.errstate(all="ignore"):
        return _ACTIVATIONS[name](np.asarray(x, np.float64))


def fma(a: Array, b: Array, c: Array) -> Array:
    """Return a * b + c of f32 arrays with one rounding to f32, exactly as the hardware does.

    The product of two f32 is exact in float64. The float64 sum is rounded to odd with the
    help of its error (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums",
    2008), which makes the second rounding, to f32, correct.
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
    """Multiply quantized rows [m, k] by quantized weights [n, k]; f32 [m, n] before activation.

    The integer part is exact, then converted to f32 once; the result is one fused
    multiply-add ``isum * (row scale * channel scale) + bias`` (or + 0).
    """
    sums = a.q.astype(np.float64) @ w.q.astype(np.float64).T  # exact: below 2**53
    columns = w.q.sum(axis=1, dtype=np.int64)
    exact = sums.astype(np.int64) - a.zp[:, None].astype(np.int64) * columns[None, :]
    shift = np.zeros(len(columns), F32) if bias is None else np.asarray(bias, F32)
    with np.errstate(all="ignore"):
        scale = (a.scale[:, None] * w.scale[None, :]).astype(F32)
    return fma(exact.astype(F32), scale, shift[None, :])


def gemm_f32(a: Array, w: Array) -> Array:
    """Multiply f32 rows [m, k] by torch-ordered f32 weights [n, k]: f32 [m, n], no bias.

    Each result is one chain of fused multiply-adds in order of k, starting from 0.
    """
    a, w = np.asarray(a, F32), np.asarray(w, F32)
    y: Array = np.zeros((len(a), len(w)), F32)
    for k in range(a.shape[1]):
        y = fma(a[:, k, None], w[None, :, k], y)
    return y


def gemm_exact(a: Array, w: Array, bias: Array | None = None) -> Array:
    """Multiply float rows [m, k] by torch-ordered weights [n, k] in float64, plus bias [n]."""
    y = np.asarray(a, np.float64) @ np.asarray(w, np.float64).T
    return y if bias is None else y + np.asarray(bias, np.float64)
