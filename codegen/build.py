"""From C to shared libraries and test programs, with every object cached by content."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from graphopt.errors import CompilerError, MissingCompilerError
from graphopt.kernels import registry
from graphopt.kernels.registry import Level
from graphopt.progress import announce

_KERNELS = registry.ROOT
_RUNTIME = ("runtime/team.c", "runtime/gate.c", "runtime/module.c")
_WARNINGS = ("-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True)
class Toolchain:
    """A compiler for one architecture.

    Attributes:
        command: how it is called.
        arch: what it compiles for.
        is_zig: whether it takes zig's names of targets and CPUs.
        version: identifies it in cache keys.
    """

    command: tuple[str, ...]
    arch: str
    is_zig: bool
    version: str

    @staticmethod
    def find(arch: str) -> Toolchain:
        """The compiler named in `CC` if it is set, else the ziglang wheel.

        Raises:
            MissingCompilerError: naming what was tried.
        """
        named = os.environ.get("CC")
        if named:
            command = tuple(shlex.split(named))
            if shutil.which(command[0]) is None:
                raise MissingCompilerError([f"CC={named}"], arch)
            return Toolchain(command, arch, "ziglang" in named, _version(command))
        if importlib.util.find_spec("ziglang") is None:
            raise MissingCompilerError(["CC (not set)", "the ziglang wheel"], arch)
        command = (sys.executable, "-m", "ziglang", "cc")
        return Toolchain(command, arch, True, _version((sys.executable, "-m", "ziglang")))

    def machine_flags(self, level: Level, static: bool) -> tuple[str, ...]:
        """Flags that choose the instructions and the C library."""
        if not self.is_zig:
            return level.gcc_flags
        return (*self.link_flags(static), f"-mcpu={level.zig_cpu}")

    def link_flags(self, static: bool) -> tuple[str, ...]:
        """Flags that choose the C library, the same for all levels: zig builds each one once."""
        if not self.is_zig:
            return ()
        return ("-target", f"{self.arch}-{'linux-musl' if static else 'linux-gnu.2.17'}")


@lru_cache(maxsize=8)
def _version(command: tuple[str, ...]) -> str:
    for flag in ("version", "--version"):
        result = subprocess.run([*command, flag], capture_output=True, text=True, check=False)
        if result.returncode == 0 and result.stdout.strip():
            return result.stdout.splitlines()[0]
    return "unknown"


@dataclass(frozen=True)
class Builder:
    """Compiles modules.

    Attributes:
        cache: folder of objects and libraries.
        jobs: compilers at once.
    """

    cache: Path
    jobs: int

    def library(self, source: str, level: Level) -> Path:
        """The shared library of a generated module for one ISA level."""
        tools = Toolchain.find(level.arch)
        objects = self._objects(tools, source, level, static=False)
        link = (*tools.command, *tools.link_flags(False), "-shared", "-s")
        return self._link(link, objects, ".so", ("-lpthread", "-lm"))

    def traced_library(self, source: str, level: Level) -> Path:
        """The same library, but one thread does and times all tasks (harness/trace_team.c)."""
        tools = Toolchain.find(level.arch)
        level = replace(level, macros=("-DGO_TRACE",))
        paths = (_KERNELS / "harness/trace_team.c", *(_KERNELS / n for n in _RUNTIME[1:]))
        files = [*((path, None) for path in (*level.sources, *paths)), (Path("module.c"), source)]
        objects = self._compile(tools, files, level, static=False)
        link = (*tools.command, *tools.link_flags(False), "-shared", "-s")
        return self._link(link, objects, ".so", ("-lpthread", "-lm"))

    def program(self, source: str, level: Level) -> Path:
        """A static program that runs the module on files, for emulators (runtime/main.c)."""
        tools = Toolchain.find(level.arch)
        objects = self._objects(tools, source, level, static=True)
        objects.append(self._object(tools, _KERNELS / "runtime/main.c", None, level, True))
        link = (*tools.command, *tools.link_flags(True), "-static", "-s")
        return self._link(link, objects, "", ("-lpthread", "-lm"))

    def timed_kernels(self, level: Level) -> Path:
        """A shared library that times calls of a level's kernels (harness/timer.c)."""
        tools = Toolchain.find(level.arch)
        timer = (_KERNELS / "harness/timer.c").read_text() + _kernel_table(level)
        paths = (*level.sources, _KERNELS / "harness/peak.c", _KERNELS / "runtime/team.c")
        files = [*((path, None) for path in paths), (Path("timer.c"), timer)]
        objects = self._compile(tools, files, level, static=False)
        link = (*tools.command, *tools.link_flags(False), "-shared", "-s")
        return self._link(link, objects, ".so", ("-lpthread", "-lm"))

    def kernel_host(self, level: Level, generic: str) -> Path:
        """A static program with symbols that runs one kernel on a file (harness/host.c)."""
        tools = Toolchain.find(level.arch)
        kernel = level.kernel(generic)
        host = (_KERNELS / "harness/host.c").read_text()
        files = [
            (_KERNELS / kernel.source, None),
            (_KERNELS / "runtime/team.c", None),
            (Path("host.c"), f"#define GO_HOST_KERNEL {kernel.symbol}\n{host}"),
        ]
        objects = self._compile(tools, files, level, static=True)
        link = (*tools.command, *tools.link_flags(True), "-static")
        return self._link(link, objects, "", ("-lpthread", "-lm"))

    def kernel_object(self, level: Level, generic: str) -> Path:
        """The object file of a kernel as it is in :meth:`kernel_host`."""
        tools = Toolchain.find(level.arch)
        return self._object(tools, _KERNELS / level.kernel(generic).source, None, level, True)

    def _objects(self, tools: Toolchain, source: str, level: Level, static: bool) -> list[Path]:
        paths = (*level.sources, *(_KERNELS / name for name in _RUNTIME))
        files = [*((path, None) for path in paths), (Path("module.c"), source)]
        return self._compile(tools, files, level, static)

    def _compile(
        self, tools: Toolchain, files: Sequence[tuple[Path, str | None]], level: Level, static: bool
    ) -> list[Path]:
        """Objects of files; each with its text if it is generated."""
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(lambda f: self._object(tools, f[0], f[1], level, static), files))

    def _object(
        self, tools: Toolchain, path: Path, text: str | None, level: Level, static: bool
    ) -> Path:
        """Compiles one file, or takes it from the cache. `text`: what is generated for it."""
        flags = (
            *registry.REQUIRED_FLAGS,
            *_WARNINGS,
            "-fPIC",
            "-fvisibility=hidden",
            "-fno-sanitize=undefined",
            *(() if tools.is_zig else ("-Wno-unknown-pragmas",)),
            *tools.machine_flags(level, static),
            *level.defines,
            f"-I{_KERNELS / 'include'}",
            f"-I{_KERNELS / 'common'}",
            f"-I{_KERNELS / 'harness'}",
            f"-I{_KERNELS / 'runtime'}",
        )
        binding = registry.binding_header(level) if text is not None else ""
        content = text if text is not None else path.read_text()
        key = _key(tools.version, flags, content, binding, _headers(), tools.command[0])
        target = self.cache / "objects" / f"{key}.o"
        if target.exists():
            return target
        announce(f"compile {path.name} for {level.arch} {level.name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            source = path
            if text is not None:
                source = Path(folder) / "module.c"
                source.write_text(text)
                (Path(folder) / "kernels.h").write_text(binding)
            made = Path(folder) / "made.o"
            _run([*tools.command, *flags, "-c", str(source), "-o", str(made)], path.name)
            os.replace(made, target)
        return target

    def _link(
        self, command: Sequence[str], objects: Sequence[Path], suffix: str, libraries: Sequence[str]
    ) -> Path:
        key = _key(*command, *(o.name for o in objects))
        target = self.cache / "linked" / f"{key}{suffix}"
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / f"made{suffix}"
            _run([*command, *map(str, objects), "-o", str(made), *libraries], "link")
            os.replace(made, target)
        return target


def _kernel_table(level: Level) -> str:
    """C text of a table of a level's kernels by generic name, for harness/timer.c."""
    rows = [f'    {{"{k.generic}", (go_kernel_fn *){k.generic}}},' for k in level.kernels]
    return "\n".join(["", "const go_named_kernel go_kernels[] = {", *rows, "    {0, 0},", "};", ""])


def _run(command: Sequence[str], what: str) -> None:
    result = subprocess.run(list(command), capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise CompilerError(list(command), result.stderr, what)


def _key(*parts: object) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode())
    return digest.hexdigest()[:32]


@lru_cache(maxsize=1)
def _headers() -> str:
    """A digest of every header: objects that include one change with any of them."""
    digest = hashlib.sha256()
    for path in sorted(_KERNELS.rglob("*.h")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
