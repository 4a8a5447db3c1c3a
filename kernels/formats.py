"""Number formats of a product, each defined here once, from its bytes to its kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.kernels import packing, reference
from graphopt.kernels.layouts import Layout, packed_rhs_bytes

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Format:
    """A format of weights [n, k], and what goes with it.

    Attributes:
        name: as dumps and reports show it; formats of int4 differ in their scales alone.
        token: of the generic name of the GEMM, `go_gemm_<token>`.
        operand: of its symbols (names.py), where that is not the token.
        source: of the GEMM, `<source>.c` in the folders of levels; those that no row of
            registry.py names have the portable one.
        rows: how the left operand is packed, a key of `ROWS`; empty if it is read as it is.
        x86_64: how weights lie in memory once they are packed.
        aarch64: the same.
        pack: makes that of weights and their scales, None without.
        quantize: weights f32 [n, k] -> i8 weights and their scales: f32 [n], or bf16 [n, k / group]
            where the second argument is a group, not 0; None for a format without scales, of which
            weights stay f32 until they are packed.
        rounded: what packing makes of weights without scales, f32 [n, k].
        looked_up: whether generated code finds rows in packed weights (codegen/packed_table.py).
        precisions: those of `graphopt.optimize` in which products of f32 get this format.
        error: largest rounding of a weight, relative to the largest beside it: f32 keeps 24 bits
            and elementary functions err by a few units; bf16 keeps 8 bits; int8 has 254 steps,
            int4 15.
        how: what reports say of it.
    """

    name: str
    token: str
    source: str
    rows: str
    x86_64: Layout
    aarch64: Layout
    pack: Callable[[Layout, Array, Array | None], packing.Bytes]
    precisions: tuple[str, ...]
    error: float
    quantize: Callable[[Array, int], tuple[Array, Array]] | None = None
    rounded: Callable[[Array], Array] = lambda weight: weight
    looked_up: bool = False
    operand: str = ""
    how: str = ""

    def __str__(self) -> str:
        return self.name

    @property
    def kernel(self) -> str:
        """Generic name of the GEMM."""
        return f"go_gemm_{self.token}"

    @property
    def scaled(self) -> bool:
        """Whether weights are i8 and have scales."""
        return self.quantize is not None

    def layout(self, arch: str) -> Layout:
        """How packed weights lie in memory on an architecture."""
        return {"x86_64": self.x86_64, "aarch64": self.aarch64}[arch]

    def packed_bytes(self, arch: str, n: Any, k: Any, group: int = 0) -> int:
        """Bytes of packed weights, in whole panels.

        Args:
            arch: whose layout.
            n: output channels.
            k: depth.
            group: values that share a scale, for int4 in blocks; 0 for other formats.
        """
        return int(packed_rhs_bytes(self.layout(arch), n, k, group=group))

    def dense(self, weight: Array, scale: Array | None) -> Array:
        """The numbers that weights and scales stand for, f32 [n, k]."""
        return self.rounded(weight) if scale is None else reference.dequantize(weight, scale)


def _in_bf16(weight: Array) -> Array:
    return reference.f32_from_bf16(reference.bf16_from_f32(weight))


def _pack_f32(layout: Layout, weight: Array, scale: Array | None) -> packing.Bytes:
    return packing.pack_rhs_f32(layout, weight)


def _pack_bf16(layout: Layout, weight: Array, scale: Array | None) -> packing.Bytes:
    return packing.pack_rhs_bf16(layout, reference.bf16_from_f32(weight).reshape(weight.shape))


def _pack_int8(layout: Layout, weight: Array, scale: Array | None) -> packing.Bytes:
    assert scale is not None, "quantized weights have scales"
    return packing.pack_rhs_qs8c(layout, reference.QuantizedColumns(weight, scale))


def _pack_channels(layout: Layout, weight: Array, scale: Array | None) -> packing.Bytes:
    assert scale is not None, "quantized weights have scales"
    return packing.pack_rhs_qs4c(layout, reference.QuantizedColumns(weight, scale))


def _pack_blocks(layout: Layout, weight: Array, scale: Array | None) -> packing.Bytes:
    assert scale is not None, "quantized weights have scales"
    return packing.pack_rhs_qs4b(layout, reference.QuantizedBlocks(weight, scale))


def _quantize_int8(weight: Array, group: int) -> tuple[Array, Array]:
    made = reference.quantize_channels(weight)
    return made.q, made.scale


def _quantize_channels(weight: Array, group: int) -> tuple[Array, Array]:
    made = reference.quantize_channels_int4(weight)
    return made.q, made.scale


def _quantize_blocks(weight: Array, group: int) -> tuple[Array, Array]:
    made = reference.quantize_blocks_int4(weight, group)
    return made.q, made.scale


F32 = Format(
    "f32",
    "f32",
    "gemm_f32",
    "",
    x86_64=Layout(1, 16, 1, 1, 32),
    aarch64=Layout(1, 16, 1, 1, 32),
    pack=_pack_f32,
    precisions=("fp32",),
    error=2.0**-22,
)
BF16 = Format(
    "bf16",
    "bf16",
    "gemm_bf16",
    "bf16",
    x86_64=Layout(1, 16, 2, 8, 16),
    aarch64=Layout(8, 8, 4, 8, 16),
    pack=_pack_bf16,
    precisions=("bf16", "int8+bf16"),
    error=2.0**-8,
    rounded=_in_bf16,
)
INT8 = Format(
    "int8",
    "qa8",
    "gemm_qa8",
    "qa8r",
    x86_64=Layout(1, 16, 4, 32, 8, tail=8, row_tail=16, biased=True),
    aarch64=Layout(8, 8, 8, 32, 8, tail=16, row_tail=16),
    pack=_pack_int8,
    precisions=("int8", "int8+bf16"),
    error=2.0**-8,
    quantize=_quantize_int8,
    looked_up=True,
    operand="qs8c",
    how="weights per channel, activations per row",
)
INT4_CHANNELS = Format(
    "int4",
    "qs4c",
    "gemm_qs4",
    "qa8r",
    x86_64=Layout(1, 16, 4, 32, 4, tail=8, biased=True),
    aarch64=Layout(8, 8, 8, 32, 4, tail=16),
    pack=_pack_channels,
    precisions=("int4",),
    error=2.0**-4,
    quantize=_quantize_channels,
    looked_up=True,
)
INT4_BLOCKS = Format(
    "int4",
    "qs4b",
    "gemm_qs4",
    "qa8r",
    x86_64=Layout(1, 16, 4, 32, 4, tail=4, block_tail=2, biased=True),
    aarch64=Layout(8, 8, 8, 32, 4, tail=4, block_tail=2),
    pack=_pack_blocks,
    precisions=("int4",),
    error=2.0**-4,
    quantize=_quantize_blocks,
    looked_up=True,
)
FORMATS = (F32, BF16, INT8, INT4_CHANNELS, INT4_BLOCKS)

#: How rows are packed for a product (`qa8r`: int8 with a scale and a zero point each) -> the
#: format whose layouts say how they lie in memory.
ROWS = {"bf16": BF16, "qa8r": INT8}


def formats_of(precision: str) -> tuple[Format, ...]:
    """Formats that a precision gives to products, the narrowest of which takes what it can.

    Args:
        precision: one, or several with commas between them, where layers have different ones.
    """
    given = set(precision.split(","))
    return tuple(format for format in FORMATS if given.intersection(format.precisions))


def int4(group: int) -> Format:
    """The format of int4 weights of which `group` share a scale; 0 for whole channels."""
    return INT4_BLOCKS if group else INT4_CHANNELS
