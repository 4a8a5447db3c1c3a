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
are what the arguments say, and ``ends`` where the last row of a larger array ends.
Buffers end at an unreadable page, as near as the alignment allows: 64 bytes for uint8
(packed operands), the item size for anything else, or ``align={"name": bytes}``. Writing
outside a buffer, or into one not listed in ``writes``, raises AssertionError; so does a
crash.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import shutil
import subprocess
import tempfile
from ctypes import Structure
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from sanitizers import SANITIZERS, require_sanitizers

from graphopt.config import Config
from graphopt.kernels import registry
from graphopt.kernels.host_case import At, Case, as_at, buffers, encode
from graphopt.toolchain.build import Builder, Toolchain


@dataclass(frozen=True)
class Runner:
    """A level, and for SVE the vector length in bits.

    ``mutation``: text of the kernel's source file and what to compile in its place, to
    show that a test notices. ``compiler``: "zig", or "gcc" for the host's own levels.
    ``real_smopa``: run SMOPA even where the emulator computes it wrongly. ``sanitizers``: what
    watches the kernel; they need gcc.
    """

    level: registry.Level
    vl: int = 128
    mutation: tuple[str, str] | None = None
    compiler: str = "zig"
    real_smopa: bool = False
    sanitizers: tuple[str, ...] = ()

    @property
    def native(self) -> bool:
        """Whether this machine runs the code itself."""
        return self.level.arch == platform.machine()


def _lengths(row: registry.Level) -> tuple[str, ...]:
    """Vector lengths at which a level is tested: any with SVE2, else that of Neoverse V1.

    With SME it is the length in streaming mode; qemu has no CPU with SME and without SVE.
    """
    if "sme" in row.features:
        return ("@512",)
    if "sve2" in row.features:
        return ("@128", "@256")
    return ("@256",) if "sve" in row.features else ("",)


def _ids() -> list[str]:
    ids = []
    for row in registry.LEVELS:
        ids += [f"{row.arch}/{row.name}{length}" for length in _lengths(row)]
    return ids


LEVEL_IDS = _ids()
NATIVE_IDS = [i for i in LEVEL_IDS if i.startswith(platform.machine())]


#: Whether all kernels of this machine's levels run under the sanitizers (pytest --sanitize).
SANITIZE_ALL = [False]


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
        if SANITIZE_ALL[0]:
            return sanitized(runner)
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


def sanitized(runner: Runner) -> Runner:
    """Return a native runner under the sanitizers; skip if gcc has none."""
    require_sanitizers()
    return replace(runner, compiler="gcc", sanitizers=SANITIZERS)


@functools.cache
def sme_probe(vl: int = 128) -> int:
    """What sme_probe.c says about qemu-aarch64 at a vector length in streaming mode."""
    source, level = Path(__file__).with_name("sme_probe.c"), registry.level("aarch64", "sme")
    tools, cpu = Toolchain.find("aarch64"), _emulated_cpu(Runner(level, vl))
    flags = [*registry.REQUIRED_FLAGS, *tools.machine_flags(level, True), *level.defines]
    folders = [f"-I{registry.ROOT / name}" for name in ("include", "common", "sme")]
    with tempfile.TemporaryDirectory() as folder:
        made, program = Path(folder) / "probe.o", Path(folder) / "probe"
        compile_it = [*flags, *folders, "-c", str(source), "-o", str(made)]
        link_it = [*tools.link_flags(True), "-static", str(made), "-o", str(program)]
        for command in (compile_it, link_it):
            subprocess.run([*tools.command, *command], check=True)
        return subprocess.run(["qemu-aarch64", "-cpu", cpu, str(program)]).returncode


def _changed(kernel: registry.Kernel, before: str, mutation: tuple[str, str] | None) -> Path:
    """A copy of a kernel's source that begins with ``before`` and has a text replaced."""
    text = (registry.ROOT / kernel.source).read_text()
    if mutation:
        assert text.count(mutation[0]) == 1, f"{mutation[0]!r} must occur once in {kernel.source}"
        text = text.replace(*mutation)
    folder = Config.from_environment().cache / "changed"
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"{hashlib.sha256((before + text).encode()).hexdigest()[:16]}.c"
    copy.write_text(before + text)
    return copy


@functools.cache
def build_host(
    level: registry.Level,
    generic: str,
    mutation: tuple[str, str] | None = None,
    compiler: str = "zig",
    spelled_smopa: bool = False,
    sanitizers: tuple[str, ...] = (),
) -> Path:
    """The test host of one kernel.

    ``spelled_smopa``: with other instructions in place of SMOPA.
    """
    kernel, flags = level.kernel(generic), ()
    if mutation or spelled_smopa:
        before = Path(__file__).with_name("smopa.h").read_text() if spelled_smopa else ""
        changed = replace(kernel, source=str(_changed(kernel, before, mutation)))
        level = replace(level, kernels=(changed,))
        flags = (f"-I{(registry.ROOT / kernel.source).parent}",)
    with pytest.MonkeyPatch.context() as patch:
        if compiler == "gcc":
            patch.setenv("CC", "gcc")
        builder = Builder(Config.from_environment().cache, 2, sanitizers)
        return builder.kernel_host(level, generic, flags)


def _read_case(
    data: memoryview, case: Case, label: str, said: str
) -> tuple[dict[str, np.ndarray], int]:
    """Check guards and read-only buffers; return what the buffers hold and the bytes used."""
    distinct = buffers(case)
    names = {id(as_at(p).array): name for name, p in case.pointers.items()}
    total = 8 + sum(buffer.size for buffer in distinct)
    assert len(data) >= total, f"{label}: the kernel crashed: {said}"
    broken = int(np.frombuffer(data[:8], "<u8")[0])
    if broken:
        name = names[id(distinct[broken - 1].array)]
        raise AssertionError(f"{label}: bytes around buffer {name!r} were written")
    results, position = {}, 8
    for buffer in distinct:
        array = buffer.array
        raw = data[position : position + buffer.size]
        position += buffer.size
        if not buffer.written:
            assert raw == buffer.content, f"{label}: input {names[id(array)]!r} was written"
        whole = bytes(raw) + array.tobytes()[buffer.size :]
        results[id(array)] = np.frombuffer(whole, array.dtype).reshape(array.shape).copy()
    return {name: results[id(as_at(p).array)] for name, p in case.pointers.items()}, total


def _emulated_cpu(runner: Runner) -> str:
    """Argument of qemu for a CPU with vectors of the runner's length."""
    kind = "sme" if "sme" in runner.level.features else "sve"
    switches = (f"{kind}{n}={'on' if n <= runner.vl else 'off'}" for n in (128, 256, 512, 1024))
    return ",".join(["max", *switches])


def run_cases(runner: Runner, generic: str, cases: list[Case]) -> list[dict[str, np.ndarray]]:
    """Run the level's kernel behind ``generic`` on all cases in one process.

    Returns for each case the contents of its buffers afterwards, by pointer name.
    """
    spelled = "sme" in runner.level.features and not runner.real_smopa and bool(sme_probe() & 1)
    host = build_host(
        runner.level, generic, runner.mutation, runner.compiler, spelled, runner.sanitizers
    )
    with tempfile.TemporaryDirectory() as folder:
        request, response = Path(folder) / "request", Path(folder) / "response"
        request.write_bytes(encode(cases))
        command = [str(host), str(request), str(response)]
        if not runner.native or _lengths(runner.level) != ("",):
            command = ["qemu-aarch64", "-cpu", _emulated_cpu(runner), *command]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode != 2, done.stderr
        data = memoryview(response.read_bytes())
    results, position = [], 0
    for i, case in enumerate(cases):
        label = f"{generic} on {runner.level.arch}/{runner.level.name}@{runner.vl}, case {i}"
        result, used = _read_case(data[position:], case, label, done.stderr)
        results.append(result)
        position += used
    assert done.returncode == 0, f"{generic}: exit status {done.returncode} {done.stderr}"
    return results


def end_of(view: np.ndarray, whole: np.ndarray) -> int:
    """For `Case.ends`: bytes of a whole array up to the last element of a view of it."""
    return np.lib.array_utils.byte_bounds(view)[1] - whole.ctypes.data if view.size else 0


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
