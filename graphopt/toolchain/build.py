"""From C to shared libraries and test programs, with every object cached by content."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from graphopt.errors import CompilerError, MissingCompilerError
from graphopt.kernels import registry
from graphopt.kernels.registry import Level
from graphopt.progress import announce
from graphopt.toolchain.cache import Cache
from graphopt.worker_threads import map_on_threads

_KERNELS = registry.ROOT
_TEAM = tuple(_KERNELS / f"runtime/{name}.c" for name in ("team", "placement"))
_RUNTIME = tuple(_KERNELS / f"runtime/{name}.c" for name in ("cpus", "gate", "module"))
_WARNINGS = ("-Wall", "-Wextra", "-Werror")
#: What a model says, such as x < x, may look like a slip to a compiler.
_GENERATED = ("-Wno-error",)
#: What a generated module includes first (codegen/templates/module.c.j2).
_MODULE_HEADER = _KERNELS / "include/go_loop.h"
#: What harness/host.c runs.
_HOSTED = """#include "go_team.h"
void {0}(go_team *, const void *);
void (*const go_host_kernel)(go_team *, const void *) = {0};
"""


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
        wheel = importlib.util.find_spec("ziglang")
        if wheel is None or wheel.origin is None:
            raise MissingCompilerError(["CC (not set)", "the ziglang wheel"], arch)
        zig = str(Path(wheel.origin).with_name("zig"))
        return Toolchain((zig, "cc"), arch, True, _version((zig,)))

    def machine_flags(self, level: Level, static: bool) -> tuple[str, ...]:
        """Flags that choose the instructions and the C library."""
        if not self.is_zig:
            return level.gcc_flags
        return (*self.link_flags(static), f"-mcpu={level.zig_cpu}")

    def link_flags(self, static: bool) -> tuple[str, ...]:
        """Flags that choose the C library, the same for all levels: zig builds each one once.

        Without the last one zig builds a runtime of its own checks as well.
        """
        if not self.is_zig:
            return ()
        library = "linux-musl" if static else "linux-gnu.2.17"
        return ("-target", f"{self.arch}-{library}", "-fno-sanitize=undefined")


@lru_cache(maxsize=8)
def _version(command: tuple[str, ...]) -> str:
    for flag in ("version", "--version"):
        result = subprocess.run([*command, flag], capture_output=True, text=True, check=False)
        if result.returncode == 0 and result.stdout.strip():
            return result.stdout.splitlines()[0]
    return "unknown"


@dataclass(frozen=True)
class _Source:
    """A C file to compile.

    Attributes:
        path: where it is; of a generated one the name.
        text: what it says, if it is generated.
        static: for a static program. Kernels never are: they use nothing of the C library that
            differs, so that one object serves libraries and programs.
        flags: for the compiler, beyond those of all files of its level.
    """

    path: Path
    text: str | None = None
    static: bool = False
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Builder:
    """Compiles modules.

    Attributes:
        cache: folder of objects and libraries.
        jobs: compilers at once.
        sanitizers: what checks programs while they run, such as `address` and `undefined`; they
            need gcc or clang (`CC`) and make no static programs.
    """

    cache: Path
    jobs: int
    sanitizers: tuple[str, ...] = ()

    def library(self, source: str, level: Level) -> Path:
        """The shared library of a generated module for one ISA level."""
        return self._library([*_called(level, source), *_module(level, source)], level)

    def traced_library(self, source: str, level: Level) -> Path:
        """The same library, but one thread does and times all tasks (harness/trace_team.c)."""
        module = _module(level, source, team=(_KERNELS / "harness/trace_team.c",))
        traced = [replace(file, flags=(*file.flags, "-DGO_TRACE")) for file in module]
        return self._library([*_called(level, source), *traced], level)

    def program(self, source: str, level: Level) -> Path:
        """A static program that runs the module on files, for emulators (runtime/main.c)."""
        static = not self.sanitizers
        main = _Source(_KERNELS / "runtime/main.c", static=static)
        module = _module(level, source, static=static)
        return self._program([*_called(level, source), *module, main], level, static)

    def onnxruntime_library(self, arch: str) -> Path:
        """The shared library of the op `graphopt::Run` for onnxruntime (kernels/onnxruntime)."""
        level = registry.level(arch, "scalar")
        paths = sorted((_KERNELS / "onnxruntime").glob("*.c"))
        sources = [*map(_Source, paths), _Source(_KERNELS / "runtime/cpu_features.c")]
        return self._library(sources, level, ("-ldl",))

    def timed_kernels(self, level: Level) -> Path:
        """A shared library that times calls of a level's kernels (harness/timer.c)."""
        timer = (_KERNELS / "harness/timer.c").read_text() + _kernel_table(level)
        paths = (*level.sources, _KERNELS / "harness/peak.c", *_TEAM, *_level(level))
        return self._library([*map(_Source, paths), _Source(Path("timer.c"), timer)], level)

    def kernel_host(self, level: Level, generic: str, flags: tuple[str, ...] = ()) -> Path:
        """A program that runs one kernel on a file (harness/host.c).

        It is static for another architecture than this machine's.

        Args:
            level: whose kernel.
            generic: generic name of the kernel.
            flags: more for the compiler of the kernel.

        Raises:
            MissingCompilerError: without a compiler.
            CompilerError: if the compiler fails.
            KeyError: if the level has no such kernel.
        """
        static, kernel = level.arch != platform.machine(), level.kernel(generic)
        host = (_KERNELS / "harness/host.c", *_TEAM, *_level(level))
        sources = [
            _Source(_KERNELS / kernel.source, flags=flags),
            *(_Source(path, static=static) for path in host),
            _Source(Path("kernel.c"), _HOSTED.format(kernel.symbol), static),
        ]
        return self._program(sources, level, static)

    def kernel_object(self, level: Level, generic: str) -> Path:
        """The object file of a kernel as it is in :meth:`kernel_host`."""
        source = _Source(_KERNELS / level.kernel(generic).source)
        return self._object(Toolchain.find(level.arch), source, level)

    @property
    def _checks(self) -> tuple[str, ...]:
        """Flags of the sanitizers.

        Checks are branches in every loop: with them, -O3 takes gcc minutes for some kernels.
        """
        if not self.sanitizers:
            return ()
        checks = f"-fsanitize={','.join(self.sanitizers)}"
        return (checks, "-fno-sanitize-recover=all", "-O1", "-g1")

    def _library(
        self, sources: Sequence[_Source], level: Level, libraries: Sequence[str] = ()
    ) -> Path:
        tools = Toolchain.find(level.arch)
        link = (*tools.command, *tools.link_flags(False), "-shared", "-s")
        return self._link(link, self._compile(tools, sources, level), ".so", libraries)

    def _program(self, sources: Sequence[_Source], level: Level, static: bool) -> Path:
        """A program with symbols, every one: zig builds a C library anew for what has none."""
        tools = Toolchain.find(level.arch)
        kind = ("-static",) if static else ()
        link = (*tools.command, *tools.link_flags(static), *self._checks, *kind)
        return self._link(link, self._compile(tools, sources, level), "")

    def _compile(self, tools: Toolchain, sources: Sequence[_Source], level: Level) -> list[Path]:
        return map_on_threads(lambda source: self._object(tools, source, level), sources, self.jobs)

    def _object(self, tools: Toolchain, file: _Source, level: Level) -> Path:
        """Compiles one file, or takes it from the cache."""
        path, text = file.path, file.text
        flags = (
            *registry.REQUIRED_FLAGS,
            *_WARNINGS,
            "-fPIC",
            "-fvisibility=hidden",
            *self._checks,
            *(() if tools.is_zig else ("-Wno-unknown-pragmas",)),
            *tools.machine_flags(level, file.static),
            *level.defines,
            *file.flags,
            f"-I{_KERNELS}",
            f"-I{_KERNELS / 'include'}",
            f"-I{_KERNELS / 'common'}",
            f"-I{_KERNELS / 'harness'}",
            f"-I{_KERNELS / 'runtime'}",
        )
        binding = registry.binding_header(level) if '"kernels.h"' in (text or "") else ""
        content = text if text is not None else path.read_text()
        key = _key(tools.version, flags, content, binding, _headers(), tools.command[0])

        def make(folder: Path) -> Path:
            announce(f"compile {path.name} for {level.arch} {level.name}")
            source, made = path, folder / "made.o"
            if text is not None:
                source = folder / "module.c"
                source.write_text(text, encoding="utf-8")
                (folder / "kernels.h").write_text(binding)
            parsed = self._parsed(tools, flags) if tools.is_zig and file.flags == _GENERATED else ()
            command = [*tools.command, *flags, *parsed, "-c", str(source), "-o", str(made)]
            _run(command, path.name, folder.parent)
            return made

        return Cache(self.cache).file(f"objects/{key}", ".o", make)

    def _parsed(self, tools: Toolchain, flags: Sequence[str]) -> tuple[str, str]:
        """Flags that give zig the header of generated modules as it was parsed before.

        Parsing it, and with it all intrinsics of an architecture, is most of compiling a module.

        Args:
            tools: zig.
            flags: of the modules; another level or C library has a file of its own.
        """
        key = _key(tools.version, flags, _headers(), tools.command[0])

        def make(folder: Path) -> Path:
            made = folder / "made.pch"
            # Sizes of the headers are compared, not times: the key is of what they say.
            parse = ("-Xclang", "-fno-pch-timestamp", "-x", "c-header", str(_MODULE_HEADER))
            _run([*tools.command, *flags, *parse, "-o", str(made)], made.name, folder.parent)
            return made

        return "-include-pch", str(Cache(self.cache).file(f"headers/{key}", ".pch", make))

    def _link(
        self,
        command: Sequence[str],
        objects: Sequence[Path],
        suffix: str,
        libraries: Sequence[str] = (),
    ) -> Path:
        key = _key(*command, *(o.name for o in objects), *libraries)

        def make(folder: Path) -> Path:
            made = folder / f"made{suffix}"
            link = [*command, *map(str, objects), "-o", str(made), "-lpthread", "-lm", *libraries]
            _run(link, "link", folder.parent)
            return made

        return Cache(self.cache).file(f"linked/{key}", suffix, make)


def _called(level: Level, source: str) -> list[_Source]:
    """The files of the kernels that a generated module names."""
    named = set(re.findall(r"\bgo_\w+", source))
    called = replace(level, kernels=tuple(k for k in level.kernels if k.generic in named))
    return [_Source(path) for path in called.sources]


def _level(level: Level) -> tuple[Path, Path]:
    """The files of a level's name and start."""
    return _KERNELS / "runtime/level.c", _KERNELS / level.start


def _module(
    level: Level, source: str, team: tuple[Path, ...] = _TEAM, static: bool = False
) -> list[_Source]:
    """A generated module and what runs it."""
    files = [_Source(path, static=static) for path in (*team, *_RUNTIME, *_level(level))]
    return [*files, _Source(Path("module.c"), source, static, _GENERATED)]


def _kernel_table(level: Level) -> str:
    """C text of a table of a level's kernels by generic name, for harness/timer.c."""
    rows = [f'    {{"{k.generic}", (go_kernel_fn *){k.generic}}},' for k in level.kernels]
    return "\n".join(["", "const go_named_kernel go_kernels[] = {", *rows, "    {0, 0},", "};", ""])


def _run(command: Sequence[str], what: str, cache: Path) -> None:
    result = subprocess.run(
        list(command),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=_environment(cache),
    )
    if result.returncode != 0:
        raise CompilerError(list(command), result.stderr, what)


def _environment(cache: Path) -> dict[str, str]:
    """Of a compiler; zig fails or hangs where it cannot write its own cache, so it gets ours."""
    environment = dict(os.environ)
    base = environment.get("XDG_CACHE_HOME") or f"{environment.get('HOME', '/proc')}/.cache"
    try:
        os.makedirs(f"{base}/zig", exist_ok=True)
        is_usable = os.access(f"{base}/zig", os.W_OK)
    except OSError:
        is_usable = False
    if not is_usable:
        environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(cache / "zig"))
    return environment


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
