"""What the kernel benchmark computes: inputs, calls of our kernels, exact results.

A :class:`Workload` is made for one architecture, because packed operands differ, and knows
nothing of who runs it: natively, under the emulator, or in another library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graphopt.kernels import packing, reference
from graphopt.kernels.arguments import F32, GemmArgs, PackLhsArgs
from graphopt.kernels.formats import FORMATS, ROWS, Format, int4
from graphopt.kernels.host_case import At, Case
from graphopt.kernels.layouts import packed_lhs_bytes

Array = NDArray[Any]


@dataclass(frozen=True)
class Step:
    """One kernel call: the generic name of the kernel, and its case."""

    generic: str
    case: Case


@dataclass(frozen=True)
class Label:
    """What a row says of a workload.

    Attributes:
        name: such as ``int8 128x512x512``.
        op: ``gemm``, ``conv``, ``quantize``, ``norm``, ``rms_norm``, ``depthwise``, ``attention``
            (all see all), ``cached_attention`` or ``rope``.
        scheme: ``f32``, ``bf16`` or ``int8``.
        m: rows: of A, of the input, time steps, positions, or queries.
        n: columns: of the product, channels, or keys; None where there are none.
        k: depth: of the product, of a row, taps, or the size of a head.
        group: values along k that share a weight scale; None if all do, or there is none.
    """

    name: str
    op: str
    scheme: str
    m: int
    n: int | None
    k: int
    group: int | None = None


def as_values(buffer: Array) -> Array:
    """f32 values of a buffer of f32, or of bf16 bits."""
    return reference.f32_from_bf16(buffer) if buffer.dtype == np.uint16 else buffer


@dataclass(frozen=True)
class Operands:
    """What another library computes with.

    Attributes:
        label: of the workload.
        data: plain arrays by name.
    """

    label: Label
    data: dict[str, Array]


@dataclass(frozen=True)
class Workload:
    """A computation with its data.

    Attributes:
        label: what it is called.
        macs: multiply-accumulates; 0 if it is measured by elements.
        elements: values that it reads.
        pack: quantizes or packs the left operand; None where the kernel reads it as it is.
        kernel: the kernel.
        data: plain arrays by name, for peers.
        exact: the result in float64 from the unquantized data.
        limit: how far a result may be from it, as the Euclidean norm of the difference over
            that of the exact result; from the precision that the scheme stores.
        read: turns what the kernel wrote into values f32.
    """

    label: Label
    macs: int
    elements: int
    pack: Step | None
    kernel: Step
    data: dict[str, Array]
    exact: Array
    limit: float
    read: Callable[[Array], Array] = as_values

    @property
    def operands(self) -> Operands:
        """What peers get."""
        return Operands(self.label, self.data)


class Spec(Protocol):
    """Sizes of a workload."""

    @property
    def name(self) -> str:
        """The name of the workload."""

    def build(self, arch: str, threads: int) -> Workload:
        """The workload for kernels of ``arch`` and a team of ``threads``."""


#: A rounding to 8 bits of a range of about 8 standard deviations errs by 1 % of one of them, and
#: the weights by about as much; 16 levels for weights in a normal distribution err by 11 % with a
#: scale per block and 14 % per channel; bf16 keeps 8 bits of both operands; f32 sums 2048 products.
LIMITS = {"int4": 0.15, "int8": 0.03, "bf16": 0.01, "f32": 1e-5}


@dataclass(frozen=True)
class Gemm:
    """A [m, k] times constant B [n, k]: f32 to f32 results."""

    scheme: str  # f32, bf16, int8 or int4
    m: int
    n: int
    k: int
    group: int | None = None  # values along k with one int4 scale; None: a whole channel

    @property
    def name(self) -> str:
        """Scheme, sizes and length of blocks."""
        blocks = f" g{self.group}" if self.group else ""
        return f"{self.scheme} {self.m}x{self.n}x{self.k}{blocks}"

    @property
    def format(self) -> Format:
        """Of the weights."""
        named = [format for format in FORMATS if format.name == self.scheme]
        return int4(self.group or 0) if self.scheme == "int4" else named[0]

    def build(self, arch: str, threads: int) -> Workload:
        """Random normal operands; with a packing step unless the scheme is f32."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.m, self.k), dtype=np.float32)
        w = rng.standard_normal((self.n, self.k), dtype=np.float32)
        pack, lhs = self._pack(arch, x)
        args = GemmArgs(m=self.m, n=self.n, k=self.k, dst_stride=self.n, dst_dtype=F32)
        args.lhs_stride = self.k if pack is None else 0
        pointers: dict[str, Array | At] = {"lhs": lhs, "rhs": self._rhs(arch, w)}
        pointers["dst"] = np.zeros((self.m, self.n), np.float32)
        args.group = self.group or 0
        return Workload(
            Label(self.name, "gemm", self.scheme, self.m, self.n, self.k, self.group),
            self.m * self.n * self.k,
            self.m * self.k,
            pack,
            Step(self.format.kernel, Case(args, pointers)),
            {"x": x, "w": w},
            reference.gemm_exact(x, w),
            LIMITS[self.scheme],
        )

    def _pack(self, arch: str, x: Array) -> tuple[Step | None, Array]:
        """The packing step and its destination, which holds packed rows from the start."""
        if not self.format.rows:
            return None, x
        rule = ROWS[self.format.rows].layout(arch)
        if self.format.rows == "bf16":
            generic = "go_pack_bf16"
            packed = packing.pack_lhs_bf16(rule, reference.bf16_from_f32(x))
        else:
            generic = "go_quantize_rows"
            packed = packing.pack_lhs_qa8r(rule, reference.quantize_rows(x))
        assert packed.nbytes == packed_lhs_bytes(rule, self.m, self.k)
        args = PackLhsArgs(m=self.m, k=self.k, src_stride=self.k, src_dtype=F32)
        return Step(generic, Case(args, {"src": x, "dst": packed})), packed

    def _rhs(self, arch: str, w: Array) -> Array:
        weight, scale = w, None
        if self.format.quantize is not None:
            weight, scale = self.format.quantize(w, self.group or 0)
        return self.format.pack(self.format.layout(arch), weight, scale)
