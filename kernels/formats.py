"""Number formats of a product: how weights and rows are stored, packed and multiplied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.kernels import layouts, packing, reference
from graphopt.kernels.layouts import Layout

Array = np.ndarray[Any, Any]

#: How rows are packed for a product (`qa8r`: int8 with a scale and a zero point each) -> the token
#: of the layout that says how they lie in memory.
ROWS = {"bf16": "bf16", "qa8r": "qa8"}


@dataclass(frozen=True)
class Format:
    """A format of weights [n, k], and what goes with it.

    Attributes:
        name: as dumps and reports show it; formats of int4 differ in their scales alone.
        token: of the packed layout (kernels/layouts.py) and of kernels' names (kernels/names.py).
        rows: how the left operand is packed, a key of `ROWS`; empty if it is read as it is.
        kernel: generic name of the GEMM.
        scaled: whether weights are i8 and have scales: f32 [n], or bf16 [n, k / group].
        bits: of a weight.
    """

    name: str
    token: str
    rows: str
    kernel: str
    scaled: bool
    bits: int

    def __str__(self) -> str:
        return self.name

    def layout(self, arch: str) -> Layout:
        """How weights lie in memory once they are packed."""
        return layouts.layout(arch, self.token)

    def packed_bytes(self, arch: str, n: Any, k: Any, group: int = 0) -> int:
        """Bytes of packed weights, in whole panels.

        Args:
            arch: whose layout.
            n: output channels.
            k: depth.
            group: values that share a scale, for int4 in blocks; 0 for other formats.
        """
        return int(layouts.packed_rhs_bytes(self.layout(arch), n, k, group=group))

    def pack(self, arch: str, weight: Array, scale: Array | None) -> packing.Bytes:
        """Weights as kernels read them.

        Args:
            arch: whose layout.
            weight: f32 [n, k]; i8 for a format with scales.
            scale: see the class; None without.
        """
        return _PACK[self.token](self.layout(arch), weight, scale)

    def dense(self, weight: Array, scale: Array | None) -> Array:
        """The numbers that weights stand for, f32 [n, k]."""
        if scale is not None:
            return reference.dequantize(weight, scale)
        if self.token == "bf16":
            return reference.f32_from_bf16(reference.bf16_from_f32(weight))
        return weight


F32 = Format("f32", "f32", "", "go_gemm_f32", False, 32)
BF16 = Format("bf16", "bf16", "bf16", "go_gemm_bf16", False, 16)
INT8 = Format("int8", "qa8", "qa8r", "go_gemm_qa8", True, 8)
INT4_CHANNELS = Format("int4", "qs4c", "qa8r", "go_gemm_qs4c", True, 4)
INT4_BLOCKS = Format("int4", "qs4b", "qa8r", "go_gemm_qs4b", True, 4)
FORMATS = (F32, BF16, INT8, INT4_CHANNELS, INT4_BLOCKS)


def int4(group: int) -> Format:
    """The format of int4 weights of which `group` share a scale; 0 for whole channels."""
    return INT4_BLOCKS if group else INT4_CHANNELS


def _f32(layout: Layout, weight: Array, scale: Array | None) -> packing.Bytes:
    return packing.pack_rhs_f32(layout, weight)


def _bf16(layout: Layout, weight: Array, scale: Array | None) -> packing.Bytes:
    return packing.pack_rhs_bf16(layout, reference.bf16_from_f32(weight).reshape(weight.shape))


def _channels(
    pack: Callable[[Layout, reference.QuantizedColumns], packing.Bytes],
) -> Callable[[Layout, Array, Array | None], packing.Bytes]:
    def packed(layout: Layout, weight: Array, scale: Array | None) -> packing.Bytes:
        assert scale is not None, "quantized weights have scales"
        return pack(layout, reference.QuantizedColumns(weight, scale))

    return packed


def _blocks(layout: Layout, weight: Array, scale: Array | None) -> packing.Bytes:
    assert scale is not None, "quantized weights have scales"
    return packing.pack_rhs_qs4b(layout, reference.QuantizedBlocks(weight, scale))


_PACK: dict[str, Callable[[Layout, Array, Array | None], packing.Bytes]] = {
    "f32": _f32,
    "bf16": _bf16,
    "qa8": _channels(packing.pack_rhs_qs8c),
    "qs4c": _channels(packing.pack_rhs_qs4c),
    "qs4b": _blocks,
}
