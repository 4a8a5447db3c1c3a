"""Every kernel of every ISA level, as rows of data.

A :class:`Level` says how to compile for a family of CPUs, which CPU features it
needs, which C symbol implements each generic name that generated code calls
(``go_gemm_qa8`` and so on), which parts of shared kernels it does its own way, and what a
process does before it runs them. Nothing here compiles or runs anything.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from graphopt.kernels.formats import FORMATS, Format

ROOT = Path(__file__).parent

#: Flags without which kernels are not what reference.py says: a compiler that
#: contracts a * b + c on its own would change float results.
REQUIRED_FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-Wno-psabi")


@dataclass(frozen=True)
class Kernel:
    """One implementation: the generic name it stands for, its C symbol and its source."""

    generic: str
    symbol: str
    source: str  # relative to the kernels folder


#: Parts of kernels that a level may do its own way: name -> portable header. Sources include a
#: part as GO_PART_<NAME>; :attr:`Level.defines` makes that the level's header.
PARTS = {
    "quantize_group": "common/quantize_group.h",
    "pack_bf16_step": "common/pack_bf16_step.h",
}


@dataclass(frozen=True)
class Part:
    """A level's own way for a part of kernels: its name in ``PARTS``, and the header."""

    name: str
    header: str  # relative to the kernels folder


@dataclass(frozen=True)
class Level:
    """One ISA level.

    Attributes:
        arch: architecture, as `platform.machine` calls it.
        name: unique in the architecture.
        zig_cpu: what it compiles for, as zig calls it.
        gcc_flags: the same for gcc and clang.
        features: what it needs of a CPU, as /proc/cpuinfo calls it.
        kernels: one for each generic name of ``ARGUMENTS``, in this order.
        parts: headers in place of portable ones.
        start: C file of what a process does before the level's kernels run in it
            (runtime/start.h), relative to the kernels folder.
    """

    arch: str
    name: str
    zig_cpu: str
    gcc_flags: tuple[str, ...]
    features: tuple[str, ...]
    kernels: tuple[Kernel, ...]
    parts: tuple[Part, ...] = ()
    start: str = "runtime/start.c"

    @property
    def sources(self) -> tuple[Path, ...]:
        """C files to compile for this level, each once."""
        return tuple(dict.fromkeys(ROOT / kernel.source for kernel in self.kernels))

    @property
    def defines(self) -> tuple[str, ...]:
        """Macros for the compiler: the suffix of symbols, and the headers of parts."""
        headers = PARTS | {part.name: part.header for part in self.parts}
        parts = (f'-DGO_PART_{name.upper()}="{header}"' for name, header in headers.items())
        return (f"-DGO_ISA={self.name}", *parts)

    def kernel(self, generic: str) -> Kernel:
        """Return the kernel behind a generic name; KeyError if the level has none."""
        for kernel in self.kernels:
            if kernel.generic == generic:
                return kernel
        raise KeyError(f"level {self.arch}/{self.name} has no {generic}")


#: Generic name -> argument struct of go_kernel.h.
ARGUMENTS = {
    **{format.kernel: "go_gemm_args" for format in FORMATS},
    "go_pack_bf16": "go_pack_lhs_args",
    "go_quantize_rows": "go_pack_lhs_args",
    "go_im2col_bf16": "go_im2col_args",
    "go_im2col_qa8r": "go_im2col_args",
    "go_norm": "go_norm_args",
    "go_softmax": "go_softmax_args",
    "go_attention": "go_attention_args",
    "go_rope": "go_rope_args",
    "go_split": "go_pack_lhs_args",
    "go_depthwise": "go_depthwise_args",
    "go_conv": "go_conv_args",
    "go_winograd": "go_conv_args",
    "go_recurrent": "go_recurrent_args",
    "go_cif": "go_cif_args",
}

_ARCH_PACKING = {"x86_64": ("1x2", "1x4"), "aarch64": ("8x4", "8x8")}


def _kernels(
    arch: str,
    isa: str,
    attention: str = "common",
    **gemms: str,
) -> tuple[Kernel, ...]:
    """Rows of one level.

    Args:
        arch: its architecture.
        isa: its name.
        attention: folder of its attention.
        gemms: folder and tile of GEMMs, by what their sources are called. The folder may be that of
            another level, whose sources are compiled once more with this level's flags. Those that
            are not given are portable C. The other sources are shared by all levels.
    """
    assert gemms.keys() <= {format.source for format in FORMATS}, "a source is misspelled"
    pack_bf16, pack_qa8 = _ARCH_PACKING[arch]

    def gemm(format: Format) -> Kernel:
        layout = format.layout(arch)
        portable = f"scalar/{layout.mr}x{layout.nr}x{layout.step}"
        folder, tile = gemms.get(format.source, portable).split("/")
        lhs, rhs = format.rows or "f32", format.operand or format.token
        symbol = f"go_gemm_f32_{lhs}_{rhs}_{tile}_{isa}"
        return Kernel(format.kernel, symbol, f"{folder}/{format.source}.c")

    def plain(op: str, folder: str = "common") -> Kernel:
        return Kernel(f"go_{op}", f"go_{op}_{isa}", f"{folder}/{op}.c")

    return (
        *map(gemm, FORMATS),
        Kernel("go_pack_bf16", f"go_pack_bf16_{pack_bf16}_{isa}", "common/pack_bf16.c"),
        Kernel("go_quantize_rows", f"go_pack_qa8r_{pack_qa8}_{isa}", "common/quantize_rows.c"),
        *(
            Kernel(
                f"go_im2col_{token}",
                f"go_pack_{token}_{tile}_{isa}_im2col",
                f"common/im2col_{token}.c",
            )
            for token, tile in (("bf16", pack_bf16), ("qa8r", pack_qa8))
        ),
        plain("norm"),
        plain("softmax"),
        plain("attention", attention),
        *map(plain, ("rope", "split", "depthwise", "conv", "winograd", "recurrent", "cif")),
    )


#: What x86-64-v3 adds, and what a compiler for neoverse-n2 uses without being asked.
_AVX2 = ("avx2", "fma", "f16c", "bmi1", "bmi2", "movbe", "abm")
_VNNI = (*_AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni")
_N2_BASE = ("asimd", "asimddp", "i8mm", "bf16", "atomics", "lrcpc", "ilrcpc")

#: Kernels that several levels compile from the same sources.
_AVX512 = {
    "gemm_f32": "avx512_vnni/12x32x1",
    "gemm_bf16": "avx512_vnni/12x32x2",
    "gemm_qa8": "avx512_vnni/12x32x4",
    "gemm_qs4": "avx512_vnni/6x32x8",
}
_SVE = {
    "gemm_bf16": "sve2/8x8x4",
    "gemm_qa8": "sve2/8x8x8",
    "gemm_qs4": "neon_i8mm/8x8x16",
    "attention": "neon_i8mm",
}
_FOUR_ROWS = (Part("quantize_group", "neon_dotprod/quantize_group.h"),)
_BF16 = (*_FOUR_ROWS, Part("pack_bf16_step", "neon_i8mm/pack_bf16_step.h"))

LEVELS = (
    Level(
        "x86_64",
        "scalar",
        "x86_64",
        ("-march=x86-64",),
        (),
        _kernels("x86_64", "scalar"),
    ),
    Level(
        "x86_64",
        "avx2",
        "x86_64_v3",
        ("-march=x86-64-v3",),
        _AVX2,
        _kernels(
            "x86_64",
            "avx2",
            gemm_f32="avx2/6x16x1",
            gemm_bf16="avx2/4x16x2",
            gemm_qa8="avx2/4x64x4",
            gemm_qs4="avx2/4x16x8",
        ),
    ),
    Level(
        "x86_64",
        "avx512_vnni",
        "x86_64_v4+avx512vnni",
        ("-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"),
        _VNNI,
        _kernels(
            "x86_64",
            "avx512_vnni",
            **_AVX512,
        ),
    ),
    Level(
        "x86_64",
        "avx512_bf16",
        "x86_64_v4+avx512vnni+avx512bf16",
        ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16", "-mprefer-vector-width=512"),
        (*_VNNI, "avx512_bf16"),
        _kernels(
            "x86_64",
            "avx512_bf16",
            **_AVX512,
        ),
    ),
    Level(
        "aarch64",
        "scalar",
        "generic",
        ("-march=armv8-a",),
        (),
        _kernels("aarch64", "scalar", gemm_f32="scalar/4x16x1"),
    ),
    Level(
        "aarch64",
        "neon_dotprod",
        "generic+neon+dotprod",
        ("-march=armv8.2-a+dotprod",),
        ("asimd", "asimddp"),
        _kernels(
            "aarch64",
            "neon_dotprod",
            gemm_f32="neon_i8mm/6x16x1",
            gemm_bf16="neon_dotprod/8x8x4",
            gemm_qa8="neon_dotprod/8x8x8",
            gemm_qs4="neon_dotprod/8x8x16",
        ),
        _FOUR_ROWS,
    ),
    Level(
        "aarch64",
        "neon_i8mm",
        "generic+neon+dotprod+i8mm+bf16",
        ("-march=armv8.2-a+dotprod+i8mm+bf16",),
        ("asimd", "asimddp", "i8mm", "bf16"),
        _kernels(
            "aarch64",
            "neon_i8mm",
            gemm_f32="neon_i8mm/6x16x1",
            gemm_bf16="neon_i8mm/8x8x4",
            gemm_qa8="neon_i8mm/8x8x8",
            gemm_qs4="neon_i8mm/8x8x16",
            attention="neon_i8mm",
        ),
        _BF16,
    ),
    Level(
        "aarch64",
        "sve_i8mm",
        "neoverse_v1",
        ("-mcpu=neoverse-v1",),
        (*_N2_BASE, "sve", "svei8mm", "svebf16"),
        _kernels(
            "aarch64",
            "sve_i8mm",
            gemm_f32="neon_i8mm/6x16x1",
            **_SVE,
        ),
        _BF16,
    ),
    Level(
        "aarch64",
        "sve2",
        "neoverse_n2",
        ("-mcpu=neoverse-n2",),
        (*_N2_BASE, "sve", "sve2", "svei8mm", "svebf16"),
        _kernels(
            "aarch64",
            "sve2",
            gemm_f32="neon_i8mm/6x16x1",
            **_SVE,
        ),
        _BF16,
    ),
    Level(
        "aarch64",
        "sve_f32mm",
        "neoverse_v1+f32mm",
        ("-mcpu=neoverse-v1+f32mm",),
        (*_N2_BASE, "sve", "svei8mm", "svebf16", "svef32mm"),
        _kernels(
            "aarch64",
            "sve_f32mm",
            gemm_f32="sve_f32mm/8x16x1",
            **_SVE,
        ),
        _BF16,
    ),
    Level(
        "aarch64",
        "sme",
        "generic+neon+dotprod+i8mm+bf16+sme",
        ("-march=armv9-a+nosve+i8mm+bf16+sme",),
        ("asimd", "asimddp", "i8mm", "bf16", "sme", "smei8i32", "smef32f32"),
        _kernels(
            "aarch64",
            "sme",
            gemm_f32="sme/16x32x1",
            gemm_bf16="neon_i8mm/8x8x4",
            gemm_qa8="sme/32x32x8",
            gemm_qs4="neon_i8mm/8x8x16",
            attention="neon_i8mm",
        ),
        _BF16,
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
    """What a host lacks to run a level.

    Args:
        row: the level.
        arch: of the host, as ``platform.machine()`` calls it.
        features: of its CPU, as ``cpu_features`` gives them.

    Returns:
        The missing CPU features, or the level's architecture if the host has another; empty if
        nothing is missing.
    """
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
