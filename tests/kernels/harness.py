"""Run kernels on numpy arrays, natively or under qemu, with guards around every buffer.

Use::

    from harness import LEVEL_IDS, Case, require, run_kernel
    from graphopt.kernels.arguments import F32, SoftmaxArgs

    @pytest.mark.parametrize("where", LEVEL_IDS)        # "x86_64/avx2", "aarch64/sve2@256", ...
    def test_softmax(where):
        runner = require(where)                         # skips and names what is missing
        dst = np.full((3, 40), np.nan, np.float32)
        args = SoftmaxArgs(rows=3, cols=33, src_stride=33, src_dtype=F32, dst_stride=40)
        out = run_kernel(runner, "go_softmax", args, {"src": x, "dst": dst}, writes=("dst",))
        out["dst"]                                      # a new array, same shape and dtype

``run_cases(runner, generic, [Case(...), ...])`` runs many cases in one process: much
faster under qemu. A pointer is an array, or ``At(array, byte_offset)``; the same array
object under two names is one buffer (in-place operation). Nested fields are written
``"epilogue.bias"`` and ``"epilogue.residual[1]"``. An array must be contiguous; strides
are what the arguments say. Buffers end at an unreadable page, as near as the alignment
allows: 64 bytes for uint8 (packed operands), the item size for anything else, or
``align={"name": bytes}``. Writing outside a buffer, or into one not listed in
``writes``, raises AssertionError; so does a crash.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from ctypes import Structure
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from graphopt.kernels import registry
from graphopt.kernels.host_case import At, Case, as_at, buffers, encode

CACHE = Path(tempfile.gettempdir()) / "graphopt-kernel-tests"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-fvisibility=hidden")


@dataclass(frozen=True)
class Runner:
    """A level, and for SVE the vector length in bits.

    ``mutation``: text of the kernel's source file and what to compile in its place, to
    show that a test notices. ``compiler``: "zig", or "gcc" for the host's own levels.
    ``real_smopa``: run SMOPA even where the emulator computes it wrongly.
    """

    level: registry.Level
    vl: int = 128
    mutation: tuple[str, str] | None = None
    compiler: str = "zig"
    real_smopa: bool = False

    @property
    def native(self) -> bool:
        """Whether this machine runs the code itself."""
        return self.level.arch == platform.machine()


#: Vector lengths at which levels with SVE are tested: any for sve2, that of Neoverse V1.
#: For sme it is the length in streaming mode; qemu has no CPU with SME and without SVE.
SVE_LENGTHS = {
    "sve2": ("@128", "@256"),
    "sve_i8mm": ("@256",),
    "sve_f32mm": ("@256",),
    "sme": ("@512",),
}


def _ids() -> list[str]:
    ids = []
    for row in registry.LEVELS:
        lengths = SVE_LENGTHS.get(row.name, ("",))
        ids += [f"{row.arch}/{row.name}{length}" for length in lengths]
    return ids


LEVEL_IDS = _ids()
NATIVE_IDS = [i for i in LEVEL_IDS if i.startswith(platform.machine())]


def require(where: str) -> Runner:
    """Return the runner of a level id; skip the test, with the reason, if it cannot run."""
    path, _, vl = where.partition("@")
    runner = Runner(registry.level(*path.split("/")), int(vl or 128))
    if runner.native:
        missing = registry.missing_features(
            runner.level, platform.machine(), registry.cpu_features()
        )
        if missing:
            pytest.skip(f"{where} needs the CPU feature(s) {', '.join(missing)}")
        if vl and runner.level.arch == "aarch64" and not shutil.which("qemu-aarch64"):
            pytest.skip(f"{where} needs qemu-aarch64 to choose the vector length")
    elif runner.level.arch != "aarch64":
        pytest.skip(f"{where} runs only on {runner.level.arch}")
    elif not shutil.which("qemu-aarch64"):
        pytest.skip(f"{where} needs qemu-aarch64")
    return runner


def require_gcc(where: str) -> Runner:
    """Return the runner of a native level compiled by gcc; skip if there is none."""
    runner = require(where)
    if not runner.native or not shutil.which("gcc"):
        pytest.skip(f"{where} needs a gcc for {runner.level.arch}")
    return replace(runner, compiler="gcc")


def compiler_of(level: registry.Level, compiler: str = "zig") -> list[str]:
    """The compiler of a level's architecture and C library, without flags of the level."""
    if compiler == "gcc":
        return ["gcc"]
    triple = "aarch64-linux-musl" if level.arch == "aarch64" else "x86_64-linux-gnu.2.17"
    return [sys.executable, "-m", "ziglang", "cc", "-target", triple]


def compile_command(level: registry.Level, compiler: str = "zig") -> list[str]:
    """Compiler and flags that make an object of a source of a level, without either's name."""
    machine = level.gcc_flags if compiler == "gcc" else (f"-mcpu={level.zig_cpu}",)
    flags = [*machine, *registry.REQUIRED_FLAGS, *WARNINGS, *level.defines]
    flags += [] if compiler == "gcc" else ["-fno-sanitize=undefined"]
    flags += ["-I", str(registry.ROOT / "include"), "-I", str(registry.ROOT / "common")]
    return [*compiler_of(level, compiler), *flags, "-c"]


def build(
    level: registry.Level, compiler: str, flags: list[str], sources: list[Path], target: Path
) -> None:
    """Compile with the flags of a level and link without: zig makes a C library for each set."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        link = [*compiler_of(level, compiler), *(["-static"] if level.arch == "aarch64" else [])]
        objects = [str(Path(folder) / f"{source.stem}.o") for source in sources]
        built = Path(folder) / "built"
        compiles = [
            [*compile_command(level, compiler), *flags, str(source), "-o", target_object]
            for source, target_object in zip(sources, objects, strict=True)
        ]
        for command in (*compiles, [*link, *objects, "-o", str(built), "-lpthread", "-lm"]):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, f"{sources[0].name} for {level.name}:\n{done.stderr}"
        built.replace(target)


@functools.cache
def sme_probe(vl: int = 128) -> int:
    """What sme_probe.c says about qemu-aarch64 at a vector length in streaming mode."""
    source, level = Path(__file__).with_name("sme_probe.c"), registry.level("aarch64", "sme")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "probe"
        build(level, "zig", ["-I", str(registry.ROOT / "sme")], [source], program)
        cpu = _emulated_cpu(Runner(level, vl))
        return subprocess.run(["qemu-aarch64", "-cpu", cpu, str(program)]).returncode


@functools.cache
def _headers_digest() -> bytes:
    digest = hashlib.sha256()
    for path in sorted(registry.ROOT.glob("*/*.h")) + sorted(registry.ROOT.glob("harness/*.c")):
        digest.update(path.read_bytes())
    return digest.digest()


def _source(kernel: registry.Kernel, mutation: tuple[str, str] | None) -> Path:
    path = registry.ROOT / kernel.source
    if mutation is None:
        return path
    text = path.read_text()
    assert text.count(mutation[0]) == 1, f"{mutation[0]!r} must occur once in {kernel.source}"
    text = text.replace(*mutation)
    copy = CACHE / f"mutant-{hashlib.sha256(text.encode()).hexdigest()[:16]}.c"
    copy.write_text(text)
    return copy


@functools.cache
def build_host(
    level: registry.Level,
    generic: str,
    mutation: tuple[str, str] | None = None,
    compiler: str = "zig",
    spelled_smopa: bool = False,
) -> Path:
    """Build the test host of one kernel, once per content of its sources and flags.

    ``spelled_smopa``: with other instructions in place of SMOPA.
    """
    CACHE.mkdir(exist_ok=True)
    kernel = level.kernel(generic)
    sources = [
        _source(kernel, mutation),
        registry.ROOT / "harness" / "host.c",
        registry.ROOT / "runtime" / "team.c",
    ]
    flags = ["-I", str((registry.ROOT / kernel.source).parent)]
    flags += ["-I", str(registry.ROOT / "runtime"), f"-DGO_HOST_KERNEL={kernel.symbol}"]
    if spelled_smopa:
        flags += ["-include", str(Path(__file__).with_name("smopa.h"))]
    command = [*compile_command(level, compiler), *flags, *map(str, sources)]
    key = hashlib.sha256(
        repr(command).encode() + _headers_digest() + b"".join(map(Path.read_bytes, sources))
    )
    host = CACHE / f"{kernel.symbol}-{level.arch}-{key.hexdigest()[:16]}"
    if not host.exists():
        build(level, compiler, flags, sources, host)
    return host


def _read_case(data: memoryview, case: Case, label: str) -> tuple[dict[str, np.ndarray], int]:
    """Check guards and read-only buffers; return what the buffers hold and the bytes used."""
    distinct = buffers(case)
    names = {id(as_at(p).array): name for name, p in case.pointers.items()}
    total = 8 + sum(buffer.array.nbytes for buffer in distinct)
    assert len(data) >= total, f"{label}: the kernel crashed"
    broken = int(np.frombuffer(data[:8], "<u8")[0])
    if broken:
        name = names[id(distinct[broken - 1].array)]
        raise AssertionError(f"{label}: bytes around buffer {name!r} were written")
    results, position = {}, 8
    for buffer in distinct:
        array = buffer.array
        raw = data[position : position + array.nbytes]
        position += array.nbytes
        if not buffer.written:
            assert raw == array.tobytes(), f"{label}: input {names[id(array)]!r} was written"
        results[id(array)] = np.frombuffer(raw, array.dtype).reshape(array.shape).copy()
    return {name: results[id(as_at(p).array)] for name, p in case.pointers.items()}, total


def _emulated_cpu(runner: Runner) -> str:
    """Argument of qemu for a CPU with vectors of the runner's length."""
    kind = "sme" if runner.level.name == "sme" else "sve"
    switches = (f"{kind}{n}={'on' if n <= runner.vl else 'off'}" for n in (128, 256, 512, 1024))
    return ",".join(["max", *switches])


def run_cases(runner: Runner, generic: str, cases: list[Case]) -> list[dict[str, np.ndarray]]:
    """Run the level's kernel behind ``generic`` on all cases in one process.

    Returns for each case the contents of its buffers afterwards, by pointer name.
    """
    spelled = runner.level.name == "sme" and not runner.real_smopa and bool(sme_probe() & 1)
    host = build_host(runner.level, generic, runner.mutation, runner.compiler, spelled)
    with tempfile.TemporaryDirectory() as folder:
        request, response = Path(folder) / "request", Path(folder) / "response"
        request.write_bytes(encode(cases))
        command = [str(host), str(request), str(response)]
        if not runner.native or runner.level.name in SVE_LENGTHS:
            command = ["qemu-aarch64", "-cpu", _emulated_cpu(runner), *command]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode != 2, done.stderr
        data = memoryview(response.read_bytes())
    results, position = [], 0
    for i, case in enumerate(cases):
        label = f"{generic} on {runner.level.arch}/{runner.level.name}@{runner.vl}, case {i}"
        result, used = _read_case(data[position:], case, label)
        results.append(result)
        position += used
    assert done.returncode == 0, f"{generic}: exit status {done.returncode} {done.stderr}"
    return results


def run_kernel(
    runner: Runner,
    generic: str,
    args: Structure,
    pointers: dict[str, np.ndarray | At],
    writes: tuple[str, ...] = ("dst",),
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Run one case; see run_cases."""
    return run_cases(runner, generic, [Case(args, pointers, writes, threads)])[0]
