"""The library of an ISA level holds no instruction that its list of CPU features does not cover.

What was compiled is decoded again: x86 by iced-x86, which knows the CPUID bits of every
instruction; aarch64 by LLVM's assembler, told to accept the level's features alone.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

import graphopt
from graphopt.config import Config
from graphopt.errors import MissingToolError
from graphopt.kernels import registry
from graphopt.kernels.registry import Level
from graphopt.n2sim.llvm import Llvm
from graphopt.target import Target, native
from graphopt.toolchain.build import Builder

torch = pytest.importorskip("torch")

#: What every x86-64 CPU has, as iced-x86 calls it; endbr64 is a no-op where CET is missing.
X86_BASE = {"X64", "CMOV", "CPUID", "CX8", "FPU", "FXSR", "MMX", "MULTIBYTENOP", "PAUSE"}
X86_BASE |= {"SSE", "SSE2", "TSC", "CET_IBT", *(f"INTEL{n}86" for n in (80, 1, 2, 3, 4))}
#: What AVX2 brings with it, so that /proc/cpuinfo need not be asked.
UNDER_AVX2 = {"AVX", "SSE3", "SSSE3", "SSE4_1", "SSE4_2", "POPCNT"}
#: Names of /proc/cpuinfo that the decoder spells otherwise.
X86_NAMES = {"abm": "LZCNT"}
ARM_NAMES = {"asimd": "neon", "asimddp": "dotprod", "atomics": "lse", "lrcpc": "rcpc"}
ARM_NAMES |= {"ilrcpc": "rcpc-immo", "svei8mm": "i8mm", "svebf16": "bf16"}
ARM_NAMES |= {"smei8i32": "sme", "smef32f32": "sme", "svef32mm": "f32mm"}

#: No CPU has them all.
EVERY_ARM = tuple(row.name for row in registry.levels("aarch64"))

_CODE = re.compile(r"^\s+[0-9a-f]+:\s+(\S+)[ \t]*(.*?)(?:\s*//.*)?$", re.M)
_ADDRESS = re.compile(r"(?<![#-])\b0x[0-9a-f]+(?: <[^>]*>)?$")


TARGETS = (native(), Target("every-arm", "aarch64", EVERY_ARM, True, True, 1))


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Libraries of a small model by architecture and level."""
    folder, found = tmp_path_factory.mktemp("isa"), {}
    model, inputs = torch.nn.Linear(48, 40).eval(), (torch.randn(3, 48),)
    for target in TARGETS:
        path = folder / f"{target.name}.gopt"
        graphopt.optimize(model, target, precision="int8", example_inputs=inputs).save(path)
        for library in (path / "lib").glob("*.so"):
            found[f"{target.arch}/{library.stem}"] = library
    return found


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Libraries of all kernels by architecture and level."""
    folder, found = tmp_path_factory.mktemp("kernels"), {}
    builder = Builder(Config.from_environment().cache, 2)
    for target in TARGETS:
        for name in target.levels:
            made = builder.timed_kernels(registry.level(target.arch, name))
            found[f"{target.arch}/{name}"] = folder / f"{target.arch}-{name}.so"
            shutil.copy(made, found[f"{target.arch}/{name}"])
    return found


def x86_instructions(library: Path) -> bytes:
    """The .text section of an ELF file."""
    objcopy = shutil.which("objcopy")
    if objcopy is None:
        pytest.skip("needs objcopy (Debian: binutils)")
    text = library.with_suffix(".text")
    subprocess.run([objcopy, "-O", "binary", "-j", ".text", library, text], check=True)
    return text.read_bytes()


def beyond_x86(library: Path, features: Iterable[str]) -> set[str]:
    """CPUID features that instructions need and ``features`` do not cover, with an example."""
    iced = pytest.importorskip("iced_x86")
    names = {
        value: name for name, value in vars(iced.CpuidFeature).items() if isinstance(value, int)
    }
    allowed = X86_BASE | {X86_NAMES.get(f, f.upper()) for f in features}
    allowed |= UNDER_AVX2 if "AVX2" in allowed else set()
    needed: dict[str, str] = {}
    for instruction in iced.Decoder(64, x86_instructions(library)):
        for feature in instruction.cpuid_features():
            needed.setdefault(names[feature], str(instruction))
    return {f"{name}: {needed[name]}" for name in needed.keys() - allowed}


def beyond_arm(library: Path, features: Iterable[str]) -> set[str]:
    """Messages of the assembler about instructions that ``features`` do not cover."""
    try:
        llvm = Llvm.find()
        listing, _ = llvm.run("llvm-objdump", "-d", "--no-show-raw-insn", str(library))
    except MissingToolError as error:
        pytest.skip(str(error))
    lines = [f"{op} {_ADDRESS.sub('.Lx', rest)}" for op, rest in _CODE.findall(listing)]
    assert len(lines) > 1000
    attributes = ",".join("+" + ARM_NAMES.get(f, f) for f in ("v8a", *features))
    assembled = subprocess.run(
        [f"llvm-mc{llvm.suffix}", "-triple=aarch64", f"-mattr={attributes}", "-o", "/dev/null"],
        input="\n".join([*lines, ".Lx:"]),
        capture_output=True,
        text=True,
        check=False,
    )
    return set(re.findall(r"error: (.*)", assembled.stderr))


def beyond(level: Level, library: Path, features: Iterable[str]) -> set[str]:
    find = beyond_arm if level.arch == "aarch64" else beyond_x86
    return find(library, features)


@pytest.mark.parametrize("level", registry.LEVELS, ids=lambda row: f"{row.arch}/{row.name}")
def test_a_level_needs_no_more_than_its_features(
    level: Level, kernels: dict[str, Path], packaged: dict[str, Path]
) -> None:
    name = f"{level.arch}/{level.name}"
    if name not in kernels:
        pytest.skip(f"{name} is not built on this machine")
    assert packaged.keys() == kernels.keys()
    for library in (kernels[name], packaged[name]):
        assert not beyond(level, library, level.features)


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_features_of_a_lower_level_do_not_cover_a_higher_one(
    arch: str, kernels: dict[str, Path]
) -> None:
    built = [row for row in registry.levels(arch) if f"{arch}/{row.name}" in kernels]
    for lower, higher in itertools.pairwise(built):
        if set(higher.features) == set(lower.features):
            continue
        assert beyond(higher, kernels[f"{arch}/{higher.name}"], lower.features)
