"""Every kernel of every ISA level, as rows of data.

A :class:`Level` says how to compile for a family of CPUs, which CPU features it
needs, and which C symbol implements each generic name that generated code calls
(``go_gemm_qa8`` and so on). A :class:`Layout` says how packed GEMM operands lie in
memory; all levels of one architecture share their layouts, so weights are packed
once per architecture. Nothing here compiles or runs anything.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent

#: Flags without which kernels are not what reference.py says: a compiler that
#: contracts a * b + c on its own would change float results.
REQUIRED_FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-Wno-psabi")


@dataclass(frozen=True)
class Layout:
    """Packed operands of one GEMM scheme.

    ``mr`` rows (LHS) or ``nr`` columns (RHS) make a panel; along k, ``kr``
    consecutive values of one row or column lie together; k is zero padded to a
    multiple of ``k_multiple``. ``biased``: RHS int8 is stored as q + 128, and the
    tails of int8 panels are those of packing.py for such a layout.
    """

    scheme: str
    mr: int
    nr: int
    kr: int
    k_multiple: int
    biased: bool = False


@dataclass(frozen=True)
class Kernel:
    """One implementation: the generic name it stands for, its C symbol and its source."""

    generic: str
    symbol: str
    source: str  # relative to the kernels folder


@dataclass(frozen=True)
class Level:
    """One ISA level: compiler flags, CPU features as /proc/cpuinfo calls them, kernels."""

    arch: str
    name: str
    zig_cpu: str
    gcc_flags: tuple[str, ...]
    features: tuple[str, ...]
    kernels: tuple[Kernel, ...]

    @property
    def sources(self) -> tuple[Path, ...]:
        """C files to compile for this level, each once."""
        return tuple(dict.fromkeys(ROOT / kernel.source for kernel in self.kernels))

    @property
    def defines(self) -> tuple[str, ...]:
        """Macros for the compiler: the suffix of symbols from sources shared by levels."""
        return (f"-DGO_ISA={self.name}",)

    def kernel(self, generic: str) -> Kernel:
        """Return the kernel behind a generic name; KeyError if the level has none."""
        for kernel in self.kernels:
            if kernel.generic == generic:
                return kernel
        raise KeyError(f"level {self.arch}/{self.name} has no {generic}")


#: Generic name -> argument struct of go_kernel.h.
ARGUMENTS = {
    "go_gemm_f32": "go_gemm_args",
    "go_gemm_bf16": "go_gemm_args",
    "go_gemm_qa8": "go_gemm_args",
    "go_pack_bf16": "go_pack_lhs_args",
    "go_quantize_rows": "go_pack_lhs_args",
    "go_norm": "go_norm_args",
    "go_softmax": "go_softmax_args",
    "go_attention": "go_attention_args",
    "go_depthwise": "go_depthwise_args",
    "go_conv": "go_conv_args",
}

_LAYOUT_ROWS: dict[str, tuple[Layout, ...]] = {
    "x86_64": (
        Layout("f32", 1, 16, 1, 1),
        Layout("bf16", 1, 16, 2, 8),
        Layout("qa8", 1, 16, 4, 32, biased=True),
    ),
    "aarch64": (
        Layout("f32", 1, 16, 1, 1),
        Layout("bf16", 8, 8, 4, 8),
        Layout("qa8", 8, 8, 8, 32),
    ),
}

_ARCH_PACKING = {"x86_64": ("1x2", "1x4"), "aarch64": ("8x4", "8x8")}


def _kernels(arch: str, isa: str, f32: str, bf16: str, qa8: str) -> tuple[Kernel, ...]:
    """Rows of one level from the tiles of its three GEMMs; the other sources are shared."""
    pack_bf16, pack_qa8 = _ARCH_PACKING[arch]
    packing = isa if isa in ("neon_i8mm", "sve2") else "common"
    shared = ("norm", "softmax", "attention", "depthwise", "conv")
    return (
        Kernel("go_gemm_f32", f"go_gemm_f32_f32_f32_{f32}_{isa}", f"{isa}/gemm_f32.c"),
        Kernel("go_gemm_bf16", f"go_gemm_f32_bf16_bf16_{bf16}_{isa}", f"{isa}/gemm_bf16.c"),
        Kernel("go_gemm_qa8", f"go_gemm_f32_qa8r_qs8c_{qa8}_{isa}", f"{isa}/gemm_qa8.c"),
        Kernel("go_pack_bf16", f"go_pack_bf16_{pack_bf16}_{isa}", f"{packing}/pack_bf16.c"),
        Kernel("go_quantize_rows", f"go_pack_qa8r_{pack_qa8}_{isa}", f"{packing}/quantize_rows.c"),
        *(Kernel(f"go_{op}", f"go_{op}_{isa}", f"common/{op}.c") for op in shared),
    )


#: What x86-64-v3 adds, and what a compiler for neoverse-n2 uses without being asked.
_AVX2 = ("avx2", "fma", "f16c", "bmi1", "bmi2", "movbe", "abm")
_N2_BASE = ("asimd", "asimddp", "i8mm", "bf16", "atomics", "lrcpc", "ilrcpc")

LEVELS = (
    Level(
        "x86_64",
        "scalar",
        "x86_64",
        ("-march=x86-64",),
        (),
        _kernels("x86_64", "scalar", "1x16x1", "1x16x2", "1x16x4"),
    ),
    Level(
        "x86_64",
        "avx2",
        "x86_64_v3",
        ("-march=x86-64-v3",),
        _AVX2,
        _kernels("x86_64", "avx2", "6x16x1", "4x16x2", "4x16x4"),
    ),
    Level(
        "x86_64",
        "avx512_vnni",
        "x86_64_v4+avx512vnni",
        ("-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"),
        (*_AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni"),
        _kernels("x86_64", "avx512_vnni", "12x32x1", "12x32x2", "12x32x4"),
    ),
    Level(
        "aarch64",
        "scalar",
        "generic",
        ("-march=armv8-a",),
        (),
        _kernels("aarch64", "scalar", "4x16x1", "8x8x4", "8x8x8"),
    ),
    Level(
        "aarch64",
        "neon_i8mm",
        "generic+neon+dotprod+i8mm+bf16",
        ("-march=armv8.2-a+dotprod+i8mm+bf16",),
        ("asimd", "asimddp", "i8mm", "bf16"),
        _kernels("aarch64", "neon_i8mm", "6x16x1", "8x8x4", "8x8x8"),
    ),
    Level(
        "aarch64",
        "sve2",
        "neoverse_n2",
        ("-mcpu=neoverse-n2",),
        (*_N2_BASE, "sve", "sve2", "svei8mm", "svebf16"),
        _kernels("aarch64", "sve2", "6x16x1", "8x8x4", "8x8x8"),
    ),
)


def level(arch: str, name: str) -> Level:
    """Return the level ``name`` of ``arch``; KeyError names the known ones."""
    for row in LEVELS:
        if (row.arch, row.name) == (arch, name):
            return row
    known = ", ".join(f"{row.arch}/{row.name}" for row in LEVELS)
    raise KeyError(f"unknown level {arch}/{name}; known: {known}")


def levels(arch: str) -> tuple[Level, ...]:
    """Levels of one architecture, the most capable last."""
    return tuple(row for row in LEVELS if row.arch == arch)


def layout(arch: str, scheme: str) -> Layout:
    """Return the packed layout of ``scheme`` ("f32", "bf16" or "qa8") on ``arch``."""
    for row in _LAYOUT_ROWS[arch]:
        if row.scheme == scheme:
            return row
    raise KeyError(f"no packed layout {scheme!r} on {arch}")


def cpu_features(cpuinfo: str | None = None) -> frozenset[str]:
    """Features of this host: the flags that all of its CPUs share.

    ``cpuinfo`` is the text of /proc/cpuinfo and is read from the host by default.
    """
    if cpuinfo is None:
        path = Path("/proc/cpuinfo")
        cpuinfo = path.read_text() if path.exists() else ""
    rows = [
        frozenset(line.partition(":")[2].split())
        for line in cpuinfo.splitlines()
        if line.partition(":")[0].strip() in ("flags", "Features")
    ]
    return frozenset.intersection(*rows) if rows else frozenset()


def missing_features(row: Level, arch: str, features: Iterable[str]) -> tuple[str, ...]:
    """What a host of ``arch`` with ``features`` lacks to run ``row``; empty if nothing."""
    if row.arch != arch:
        return (row.arch,)
    have = frozenset(features)
    return tuple(feature for feature in row.features if feature not in have)


def host_levels() -> tuple[Level, ...]:
    """Levels that this host can run, the most capable last."""
    features, arch = cpu_features(), platform.machine()
    return tuple(row for row in LEVELS if not missing_features(row, arch, features))


def binding_header(row: Level) -> str:
    """C text that declares the kernels of a level and binds the generic names to them."""
    lines = [f"/* Kernels of level {row.name} ({row.arch}). */", '#include "go_kernel.h"', ""]
    for kernel in row.kernels:
        args = ARGUMENTS[kernel.generic]
        lines.append(f"void {kernel.symbol}(go_team *team, const {args} *args);")
        lines.append(f"#define {kernel.generic} {kernel.symbol}")
    return "\n".join(lines) + "\n"


def ceil_div(a: Any, b: int) -> Any:
    """Ceiling of a / b, for integers and for sympy expressions."""
    return (a + (b - 1)) // b


def packed_lhs_bytes(
    rule: Layout, m: Any, k: Any, ceil_div: Callable[[Any, int], Any] = ceil_div
) -> Any:
    """Bytes of a packed LHS of m rows and depth k (ints or expressions); see packing.py.

    Schemes: "bf16" and "qa8". The f32 GEMM reads its rows unpacked: ValueError.
    """
    if rule.scheme == "f32":
        raise ValueError("the f32 GEMM takes its left operand unpacked")
    rows = m if rule.mr == 1 else ceil_div(m, rule.mr) * rule.mr
    depth = ceil_div(k, rule.k_multiple) * rule.k_multiple
    return rows * (depth * 2 if rule.scheme == "bf16" else depth + 16)


def packed_rhs_bytes(
    rule: Layout, n: Any, k: Any, ceil_div: Callable[[Any, int], Any] = ceil_div
) -> Any:
    """Bytes of a packed RHS of n columns and depth k (ints or expressions); see packing.py."""
    columns = ceil_div(n, rule.nr) * rule.nr
    depth = ceil_div(k, rule.k_multiple) * rule.k_multiple
    tail = 8 if rule.biased else 16
    per_column = {"f32": depth * 4, "bf16": depth * 2, "qa8": depth + tail}
    return columns * per_column[rule.scheme]
