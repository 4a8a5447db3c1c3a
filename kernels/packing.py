"""Packed GEMM operands, byte for byte as the C kernels read them.

A panel is ``mr`` rows of the left operand or ``nr`` columns (output channels) of the
right one; along k, ``kr`` values of one row or column are adjacent: [k / kr][mr][kr].
k is zero padded to a multiple (f32 1, bf16 8, int8 32), the last panel with zero rows.

    f32  RHS   [k][nr] f32
    bf16 LHS   [k8/kr][mr][kr] bf16
    bf16 RHS   [k8/kr][nr][kr] bf16
    qa8r LHS   [k32/kr][mr][kr] int8, then [mr][2] int32 -zp, [mr][2] f32 scale,
               each twice (``biased``: mr int32 -zp, mr int32 sum of q, mr f32 scale,
               mr int32 0)
    qs8c RHS   [k32/kr][nr][kr] int8, then nr int32 sum of q, nr f32 scale, nr int32
               reach, nr int32 0 (``biased``: uint8 q + 128, padding 128, sum, scale)

A tail behind every int8 panel, as in KleidiAI's qai8dxp and qsi8cxp: one pointer per
operand carries everything. Values twice suit the 2 x 2 sums of a matrix multiply-add. The
reach of a column is the larger of the sums of its positive and of its negative q: no sum
over k of (q of a row - zp) * q of the column exceeds 255 times that, because the factors
q - zp lie in an interval of length 255 that contains 0. Functions return flat uint8
arrays; their first byte is meant to lie at a multiple of 64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphopt.kernels.reference import QuantizedColumns, QuantizedRows
from graphopt.kernels.registry import Layout, ceil_div

Bytes = NDArray[np.uint8]
Array = NDArray[Any]


def _panels(x: Array, width: int, kr: int, depth: int, fill: int = 0) -> Array:
    """Rearrange rows [r, k] to [r / width, depth / kr, width, kr], padded with ``fill``."""
    rows, k = x.shape
    count = ceil_div(rows, width)
    if (count * width, depth) != (rows, k):
        padded = np.full((count * width, depth), fill, x.dtype)
        padded[:rows, :k] = x
        x = padded
    return np.ascontiguousarray(x.reshape(count, width, depth // kr, kr).transpose(0, 2, 1, 3))


def _depth(layout: Layout, k: int) -> int:
    return int(ceil_div(k, layout.k_multiple)) * layout.k_multiple


def _with_tail(body: Array, tail: list[Array], width: int) -> Bytes:
    """Append per-row arrays (int32 or f32, one value a row) to every panel."""
    panels = len(body)
    words = np.zeros((panels, len(tail), width), np.uint32)
    for i, values in enumerate(tail):
        flat = np.zeros(panels * width, np.uint32)
        flat[: len(values)] = values.view(np.uint32)
        words[:, i, :] = flat.reshape(panels, width)
    quantized = body.reshape(panels, body[:1].size if panels else 0).view(np.uint8)
    tails = words.reshape(panels, len(tail) * width).view(np.uint8)
    return np.concatenate([quantized, tails], axis=1).reshape(-1)


def pack_rhs_f32(layout: Layout, w: Array) -> Bytes:
    """Pack torch-ordered weights f32 [n, k] for the f32 GEMM and the convolution."""
    w = np.asarray(w, np.float32)
    return _panels(w, layout.nr, layout.kr, _depth(layout, w.shape[1])).reshape(-1).view(np.uint8)


def pack_rhs_bf16(layout: Layout, w: Array) -> Bytes:
    """Pack torch-ordered weights given as bf16 bits (uint16) [n, k]."""
    w = np.asarray(w, np.uint16)
    return _panels(w, layout.nr, layout.kr, _depth(layout, w.shape[1])).reshape(-1).view(np.uint8)


def pack_lhs_bf16(layout: Layout, x: Array) -> Bytes:
    """Pack rows given as bf16 bits (uint16) [m, k], as the kernel go_pack_bf16 does."""
    x = np.asarray(x, np.uint16)
    return _panels(x, layout.mr, layout.kr, _depth(layout, x.shape[1])).reshape(-1).view(np.uint8)


def pack_rhs_qs8c(layout: Layout, w: QuantizedColumns) -> Bytes:
    """Pack weights quantized by reference.quantize_channels."""
    sums = w.q.sum(axis=1, dtype=np.int32)
    q: Array = w.q.view(np.uint8)
    fill = 0
    if layout.biased:
        q, fill = q ^ np.uint8(0x80), 0x80
    body = _panels(q, layout.nr, layout.kr, _depth(layout, q.shape[1]), fill)
    tail = [sums, w.scale.astype(np.float32)]
    if not layout.biased:
        above = np.maximum(w.q, 0).sum(axis=1, dtype=np.int32)
        tail += [np.maximum(above, above - sums), np.zeros_like(sums)]
    return _with_tail(body, tail, layout.nr)


def pack_lhs_qa8r(layout: Layout, x: QuantizedRows) -> Bytes:
    """Pack rows quantized by reference.quantize_rows, as the kernel go_quantize_rows does."""
    body = _panels(x.q, layout.mr, layout.kr, _depth(layout, x.q.shape[1]))
    neg_zp, scale = (-x.zp).astype(np.int32), x.scale.astype(np.float32)
    if layout.biased:
        sums = x.q.sum(axis=1, dtype=np.int32)
        return _with_tail(body, [neg_zp, sums, scale, np.zeros_like(sums)], layout.mr)
    return _with_tail(body, [np.repeat(neg_zp, 2), np.repeat(scale, 2)], 2 * layout.mr)
