"""Scratch memory that kernels take from the caller's arena.

The functions are plain arithmetic and take integers or, with a ceiling division that
understands them, symbolic expressions. Buffers start at a multiple of 64 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphopt.kernels.layouts import ceil_div
from graphopt.kernels.reference_ops import Geometry
from graphopt.kernels.winograd import VALUES

#: QUERY_ROWS of common/attention_tasks.h.
_QUERY_ROWS = 24

#: MOST_COLS of common/winograd.c.
_WINOGRAD_COLUMNS = 32

#: GO_IM2COL_ROWS of common/im2col.h.
_IM2COL_ROWS = 8
#: GO_TASK_LINES, and GO_MOST_PADDING + 2 * GO_COPY_BYTES, of common/im2col_lines.h; bytes of
#: go_limits.
_TASK_LINES, _LINE_SLACK, _LIMITS = 4, 64, 12

#: The largest GO_QA8_ROWS of common/layouts.h.
_QUANTIZED_ROWS = 4
#: MOST_ROWS and MOST_GATES of common/recurrent.c.
_RECURRENT_ROWS, _MOST_GATES = 48, 4
#: GO_OWNED_BYTES, GO_OWNED_LEAST and GO_OWNED_MOST of common/gemm_quantize.h.
_OWNED_BYTES, _OWNED_LEAST, _OWNED_MOST = 512 * 1024, 32, 128

#: Elements that a task of `go.nonzero` looks through.
NONZERO_PART = 4096


def attention_scratch_bytes(
    batch: Any,
    kv_heads: Any,
    tk: Any,
    dim: Any,
    dim_v: Any,
    threads: Any,
    ceil_div: Callable[[Any, int], Any] = ceil_div,
) -> Any:
    """Bytes behind ``go_attention_args.scratch``.

    Packed k and v, and per thread the queries, scores and weights of one block (see
    common/attention_tasks.h); enough for bf16 as for f32, and independent of the number of queries.

    Args:
        batch: items of a call.
        kv_heads: heads of k and v.
        tk: keys.
        dim: of a head of q and k.
        dim_v: of a head of v.
        threads: of the team.
        ceil_div: ceiling division that understands these sizes.
    """
    tk16, dim16, dim_v16 = (16 * ceil_div(x, 16) for x in (tk, dim, dim_v))
    panels = 4 * batch * kv_heads * tk16 * (dim16 + dim_v16)
    return panels + threads * _QUERY_ROWS * (4 * dim16 + 6 * tk16)


def conv_scratch_bytes(
    in_c: Any,
    out_c: Any,
    groups: Any,
    kh: Any,
    kw: Any,
    tile_rows: Any,
    threads: Any,
    ceil_div: Callable[[Any, int], Any] = ceil_div,
) -> Any:
    """Bytes behind ``go_conv_args.scratch``.

    Per thread the copied windows of one task; 0 for a depthwise convolution
    (``groups == in_c == out_c``), which copies none.

    Args:
        in_c: channels of the source, a multiple of ``groups``.
        out_c: channels of the result.
        groups: of channels.
        kh: height of the window; only its product with ``kw`` counts.
        kw: width of the window.
        tile_rows: output positions of a task.
        threads: of the team.
        ceil_div: ceiling division that understands these sizes.
    """
    if groups == in_c and groups == out_c:
        return 0
    floats = tile_rows * kh * kw * (in_c // groups)
    return 4 * threads * 16 * ceil_div(floats, 16)


def winograd_scratch_bytes(in_c: int, tiles: int, threads: Any) -> Any:
    """Bytes behind ``go_conv_args.scratch`` of ``go_winograd``.

    Per thread the transformed pixels of a task, its products, and a tile that pixels are copied to.

    Args:
        in_c: channels of the source, a multiple of 16.
        tiles: of a task, its ``tile_rows``.
        threads: of the team.
    """
    point = 16 * (tiles * in_c // 16 | 1)
    return 4 * threads * VALUES * (point + tiles * _WINOGRAD_COLUMNS + in_c)


def cif_scratch_bytes(batch: Any, frames: Any) -> Any:
    """Bytes behind ``go_cif_args.scratch``: two floats and a flag for each frame."""
    return 12 * batch * frames


def im2col_scratch_bytes(
    channels: Any,
    out_w: Any,
    geometry: Geometry,
    value_bytes: int,
    threads: Any,
    ceil_div: Callable[[Any, int], Any] = ceil_div,
) -> Any:
    """Bytes behind ``go_im2col_args.scratch``.

    Per thread the f32 windows of one task; or, where the windows of a line overlap, the pixels
    of a line and a window as they are packed, and the ranges of rows of the image.

    Args:
        channels: of the image.
        out_w: windows in a line.
        geometry: of the windows.
        value_bytes: of a packed value.
        threads: of the team.
        ceil_div: ceiling division that understands these sizes.
    """
    (height, width), (down, along) = geometry.taps, geometry.stride
    depth = height * width * channels
    if not geometry.shares_lines:
        return 4 * threads * 16 * ceil_div(_IM2COL_ROWS * depth, 16)
    pixels = height * ((out_w - 1) * along + width)
    rows = (_TASK_LINES - 1) * down + (height - 1) * geometry.dilation[0] + 1
    values = value_bytes * (pixels * channels + depth)
    return threads * 64 * ceil_div(values + _LINE_SLACK + _LIMITS * rows, 64)


def row_values_scratch_bytes(depth: Any, threads: Any) -> Any:
    """Bytes behind ``go_pack_lhs_args.scratch`` for a team of ``threads``, where there is `values`.

    Per thread the f32 rows that it quantizes at once, ``depth`` values each; or all rows, if they
    are fewer than that.
    """
    return 4 * threads * _QUANTIZED_ROWS * depth


def recurrent_scratch_bytes(
    directions: Any,
    batch: Any,
    width: Any,
    hidden: Any,
    threads: Any,
    ceil_div: Callable[[Any, int], Any] = ceil_div,
) -> Any:
    """Bytes behind ``go_recurrent_args.scratch``.

    Two states, a cell and an output of each item, and per thread a product and its packed rows.

    Args:
        directions: 1 or 2.
        batch: items of a call.
        width: of a state.
        hidden: units, the width of a cell.
        threads: of the team.
        ceil_div: ceiling division that understands these sizes.
    """
    width16, hidden16 = 16 * ceil_div(width, 16), 16 * ceil_div(hidden, 16)
    most = max(width16, hidden16)
    own = _RECURRENT_ROWS * (_MOST_GATES * most + most + 16)
    return 4 * (2 * directions * batch * (width16 + hidden16) + threads * own)


def quantized_result_stride(n: int) -> int:
    """Floats from row to row of ``go_gemm_args.dst`` where ``packed`` takes the results.

    Rows begin at cache lines. The lines of a row are odd in number, so that the rows of a tile
    do not all fall on the same few places of a cache.
    """
    lines: int = ceil_div(n, 16)
    return 16 * (lines | 1)


def quantized_result_bytes(
    m: Any, n: int, threads: Any, minimum: Callable[[Any, Any], Any] = min
) -> Any:
    """Bytes behind ``go_gemm_args.dst`` where ``packed`` takes the results.

    All rows, or if that is less a buffer for each thread, which quantizes what it holds before
    it computes the next rows (common/gemm_quantize.h).

    Args:
        m: rows.
        n: results of a row.
        threads: of the team.
        minimum: the smaller of two sizes; one that understands ``m`` and ``threads``.
    """
    stride = quantized_result_stride(n)
    rows = max(_OWNED_LEAST, min(_OWNED_BYTES // 4 // stride, _OWNED_MOST))
    return 4 * stride * minimum(m, threads * rows)


def nonzero_scratch_bytes(elements: Any, ceil_div: Callable[[Any, int], Any] = ceil_div) -> Any:
    """Bytes for the number of true elements of each part of a mask."""
    return ceil_div(elements, NONZERO_PART) * 8
