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
    qs4c RHS   [k32/(2 kr)][nr][kr] nibble pairs, then the tail of qs8c
    qs4b RHS   [k/(2 kr)][nr][kr] nibble pairs, then [k/group][nr] bf16 scale, nr f32
               shift, zeros up to a multiple of 64 bytes (``biased``: behind the pairs of
               each block its nr scales)

A nibble pair is a byte: the low half belongs to a step of kr values along k, the high half
to the step after it, so that one load feeds two multiply-adds. As int8 the byte is 16 times
the q of the high half, plus the q of the low half, plus 8: the high half is in two's
complement, the low half is q + 8 (``biased``: both are q + 8). So bytes can be multiplied as
they are, and from that sum over both halves a second one of masked bytes takes the halves
apart. All nibbles come before all scales, so that either is an array of its own; the scales
of columns 0 to 3 of a block alternate with those of 4 to 7, for a bf16 in the upper half of
32 bits is a float. ``biased``, scales are in order and behind each block: with few rows the
panels are one stream in order of memory, and the prefetch
of a CPU that loses it at a gap of 512 bytes would leave half of the bandwidth. The shift of
a column is what it adds to a product per step of -zp: the sum over blocks, in order, of
scale * sum of q, in f32.

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

from graphopt.kernels.layouts import Layout, ceil_div
from graphopt.kernels.reference import QuantizedBlocks, QuantizedColumns, QuantizedRows

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Array = np.ndarray[Any, Any]


def panels_of(x: Array, width: int, kr: int, depth: int, fill: int = 0) -> Array:
    """Rearrange rows [r, k] to panels.

    Args:
        x: the rows.
        width: rows of a panel.
        kr: adjacent values of a row.
        depth: k, padded; see ``padded_depth``.
        fill: what padding holds.

    Returns:
        [r / width, depth / kr, width, kr], the last panel padded too.
    """
    rows, k = x.shape
    count = ceil_div(rows, width)
    if (count * width, depth) != (rows, k):
        padded = np.full((count * width, depth), fill, x.dtype)
        padded[:rows, :k] = x
        x = padded
    return np.ascontiguousarray(x.reshape(count, width, depth // kr, kr).transpose(0, 2, 1, 3))


def padded_depth(layout: Layout, k: int) -> int:
    """The depth of panels."""
    return int(ceil_div(k, layout.k_multiple)) * layout.k_multiple


def with_tail(body: Array, tail: list[Array], width: int) -> Bytes:
    """Append arrays to every panel.

    Args:
        body: panels, see ``panels_of``.
        tail: int32 or f32 arrays of one value for each row.
        width: rows of a panel.
    """
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
    return (
        panels_of(w, layout.nr, layout.kr, padded_depth(layout, w.shape[1]))
        .reshape(-1)
        .view(np.uint8)
    )


def pack_rhs_bf16(layout: Layout, w: Array) -> Bytes:
    """Pack torch-ordered weights given as bf16 bits (uint16) [n, k]."""
    w = np.asarray(w, np.uint16)
    return (
        panels_of(w, layout.nr, layout.kr, padded_depth(layout, w.shape[1]))
        .reshape(-1)
        .view(np.uint8)
    )


def pack_lhs_bf16(layout: Layout, x: Array) -> Bytes:
    """Pack rows given as bf16 bits (uint16) [m, k], as the kernel go_pack_bf16 does."""
    x = np.asarray(x, np.uint16)
    return (
        panels_of(x, layout.mr, layout.kr, padded_depth(layout, x.shape[1]))
        .reshape(-1)
        .view(np.uint8)
    )


def pack_rhs_qs8c(layout: Layout, w: QuantizedColumns) -> Bytes:
    """Pack weights quantized by reference.quantize_channels."""
    q: Array = w.q.view(np.uint8)
    fill = 0
    if layout.biased:
        q, fill = q ^ np.uint8(0x80), 0x80
    body = panels_of(q, layout.nr, layout.kr, padded_depth(layout, q.shape[1]), fill)
    return with_tail(body, _column_tail(layout, w), layout.nr)


def _column_tail(layout: Layout, w: QuantizedColumns) -> list[Array]:
    """Sums, scales and, where sums fit the conversion of a kernel or not, the reach."""
    sums = w.q.sum(axis=1, dtype=np.int32)
    tail = [sums, w.scale.astype(np.float32)]
    if not layout.biased:
        above = np.maximum(w.q, 0).sum(axis=1, dtype=np.int32)
        tail += [np.maximum(above, above - sums), np.zeros_like(sums)]
    return tail


def _nibbles(layout: Layout, q: Array) -> Array:
    """Panels of nibble pairs [panels, k32 / (2 kr), nr, kr] of int4 values [n, k]."""
    steps = panels_of(q, layout.nr, layout.kr, padded_depth(layout, q.shape[1])).view(np.uint8)
    low = steps[:, 0::2] + np.uint8(8)  # 0 .. 15; the high half wraps where it is signed
    high = steps[:, 1::2] + np.uint8(8 if layout.biased else 0)
    return np.asarray(low | high << np.uint8(4))


def pack_rhs_qs4c(layout: Layout, w: QuantizedColumns) -> Bytes:
    """Pack weights quantized by reference.quantize_channels_int4."""
    return with_tail(_nibbles(layout, w.q), _column_tail(layout, w), layout.nr)


def pack_rhs_qs4b(layout: Layout, w: QuantizedBlocks) -> Bytes:
    """Pack weights quantized by reference.quantize_blocks_int4."""
    panels, blocks = ceil_div(len(w.q), layout.nr), w.scale.shape[1]
    in_order = panels_of(w.scale, layout.nr, 1, blocks).reshape(panels, blocks, layout.nr)
    scales = np.empty_like(in_order)
    scales[:, :, layout.scale_places()] = in_order
    shifts = panels_of(w.shift[:, None], layout.nr, 1, 1).reshape(panels, layout.nr)
    body = _nibbles(layout, w.q).reshape(panels, layout.nr * w.q.shape[1] // 2)
    parts = [body, scales.reshape(panels, blocks * layout.nr).view(np.uint8)]
    if layout.biased and body.size:
        apart = [part.reshape(panels, blocks, -1) for part in parts]
        parts = [np.concatenate(apart, axis=2).reshape(panels, -1)]
    parts.append(shifts.view(np.uint8))
    fill = -sum(part.shape[1] for part in parts) % 64
    return np.concatenate([*parts, np.zeros((panels, fill), np.uint8)], axis=1).reshape(-1)


def pack_lhs_qa8r(layout: Layout, x: QuantizedRows) -> Bytes:
    """Pack rows quantized by reference.quantize_rows, as the kernel go_quantize_rows does."""
    body = panels_of(x.q, layout.mr, layout.kr, padded_depth(layout, x.q.shape[1]))
    neg_zp, scale = (-x.zp).astype(np.int32), x.scale.astype(np.float32)
    if layout.biased:
        sums = x.q.sum(axis=1, dtype=np.int32)
        return with_tail(body, [neg_zp, sums, scale, np.zeros_like(sums)], layout.mr)
    return with_tail(body, [np.repeat(neg_zp, 2), np.repeat(scale, 2)], 2 * layout.mr)
