"""Which workload stands for a step of a compiled model, and how many of it the step is.

A price is that of a sample: tiles of a product cost the same wherever they are, and heads of keys
and rows of a norm do not know of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from graphopt.bench.kernels.attention_ops import Attention, Rope
from graphopt.bench.kernels.convolutions import Conv
from graphopt.bench.kernels.other_ops import Depthwise, Norm, Quantize
from graphopt.bench.kernels.workloads import Gemm, Spec
from graphopt.kernels.winograd import OUTPUTS, TAPS, VALUES

#: Rows that are priced; more are in proportion. Of int4 weights the whole chunk of a prompt, for
#: which nibbles are taken apart once.
PRICED_ROWS, PRICED_ROWS_INT4 = 48, 256
#: Multiply-adds of a product that are priced at least, in columns; more are in proportion.
PRICED_MACS = 1 << 21
_FEWEST_COLUMNS = 256
_PRICED_TILES = 12
_TILE_ROWS, _TILE_COLUMNS = 8, 16


def specs_of(step: Mapping[str, Any]) -> list[tuple[Spec, float]]:
    """All that stands for a step: a product that quantizes its results also costs what that does.

    Args:
        step: a row of ``Program.work``.
    """
    spec, times = spec_of(step)
    specs = [] if spec is None else [(spec, times)]
    if step["op"] == "go.linear" and step["outputs"][0][1] == "qa8r":
        specs.append(_quantize(step["outputs"][0][0]))
    return specs


def spec_of(step: Mapping[str, Any]) -> tuple[Spec | None, float]:
    """The workload that stands for a step's kernel, and how many of it the step is.

    Args:
        step: a row of ``Program.work``.
    """
    op, inputs, outputs = step["op"], step["inputs"], step["outputs"]
    first: tuple[tuple[int, ...], str] = inputs[0] if inputs else ((), "")
    shape, dtype = first
    quantized = any(kind.startswith("qa8") for _, kind in outputs)
    if op == "go.conv" and step["winograd"]:
        return _tiles(outputs[0][0], inputs[1][0][1])
    if op in ("go.linear", "go.conv"):
        weight = inputs[1][0]
        rows = prod(outputs[0][0]) // weight[0]
        return _product(step["scheme"], rows, weight[0], prod(weight[1:]), step["group"] or None)
    if op == "go.norm":
        rows = prod(shape[:-1])
        priced = min(PRICED_ROWS, rows)
        return Norm(priced, shape[-1], quantized, step["rms"]), rows / priced
    if op in ("go.quantize_rows", "go.pointwise") and quantized:  # as if rows came from memory
        return _quantize(outputs[0][0])
    if op == "go.depthwise":
        return Depthwise(shape[1], shape[2], inputs[1][0][0]), shape[0]
    if op == "go.attention":
        batch, heads, queries, dim = shape
        keys = inputs[1][0]
        sizes = (keys[2], heads, dim, queries, keys[1])
        return _attention(dtype, batch, sizes, step["causal"])
    if op == "go.cached_attention":
        batch, queries, heads, dim = shape
        kv_heads = inputs[3][0][4]
        return _attention(dtype, batch, (step["keys"], heads, dim, queries, kv_heads), True)
    if op == "go.rope":
        batch, time, heads, dim = shape
        priced = min(PRICED_ROWS, batch * time)
        scheme = _scheme(outputs[0][1])
        return Rope(scheme, priced, heads, inputs[1][0][2], dim), batch * time / priced
    return None, 0.0


def _quantize(shape: Sequence[int]) -> tuple[Spec, float]:
    rows = prod(shape[:-1])
    priced = min(PRICED_ROWS, rows)
    return Quantize(priced, shape[-1]), rows / priced


def _product(scheme: str, rows: int, n: int, k: int, group: int | None) -> tuple[Spec, float]:
    """Few rows as they are; of many a sample of whole tiles. Columns in whole tiles too."""
    if rows > _TILE_ROWS:
        rows = _whole(rows, _TILE_ROWS)
    priced = min(PRICED_ROWS_INT4 if scheme == "int4" else PRICED_ROWS, rows)
    columns = max(_FEWEST_COLUMNS, _whole(-(-PRICED_MACS // (priced * k)), _TILE_COLUMNS))
    times = rows / priced
    if n > columns:
        return Gemm(scheme, priced, columns, k, group), times * _whole(n, _TILE_COLUMNS) / columns
    return Gemm(scheme, priced, n, k, group), times


def _tiles(shape: Sequence[int], channels: int) -> tuple[Spec, float]:
    """Of a convolution of transformed tiles twelve, and as many columns as of a product."""
    batch, n, *size = shape
    tiles = batch * prod(-(-extent // OUTPUTS) for extent in size)
    macs = PRICED_MACS // (_PRICED_TILES * VALUES * channels)
    columns = min(n, max(2, macs // _TILE_COLUMNS) * _TILE_COLUMNS)
    image = (3 * OUTPUTS, _PRICED_TILES // 3 * OUTPUTS)
    spec = Conv("f32", image, channels, columns, (TAPS, TAPS), 1, winograd=True)
    return spec, tiles / _PRICED_TILES * n / columns


def _attention(
    dtype: str, batch: int, sizes: Sequence[int], causal: bool
) -> tuple[Spec | None, float]:
    """One head of keys, with the queries that read it."""
    keys, heads, dim, queries, kv_heads = sizes
    asked = None if queries == keys else queries
    spec = Attention(_scheme(dtype), keys, heads // kv_heads, dim, asked, 1, causal)
    return spec, batch * kv_heads


def _scheme(dtype: str) -> str:
    return "bf16" if dtype == "bf16" else "f32"


def _whole(count: int, tile: int) -> int:
    return -(-count // tile) * tile
