"""Building: the cache, the compilers, and what happens without one."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from graphs import CACHE, Maker, X, build, emit, mul, native_levels, random_inputs

from graphopt.errors import CompilerError, MissingCompilerError
from graphopt.ir.interpret import run_graph
from graphopt.kernels import registry
from graphopt.target import find_target
from graphopt.toolchain import build as building
from graphopt.toolchain.build import Builder, Toolchain

LEVEL = registry.host_levels()[0]


def tiny() -> Maker:
    m = Maker()
    m.output(m.pointwise(mul(X, 2.0), m.linear(m.input("x", "B", 8), 8)))
    return m


def test_the_same_graph_gives_the_same_bytes() -> None:
    first, second = emit(tiny().graph), emit(tiny().graph)
    assert first.source == second.source
    np.testing.assert_array_equal(first.weights(1), second.weights(2))


def test_a_cache_hit_compiles_nothing(monkeypatch) -> None:
    source = emit(tiny().graph).source
    first = Builder(CACHE, 2).library(source, LEVEL)

    def refuse(*_):
        raise AssertionError("the compiler ran")

    monkeypatch.setattr(building, "_run", refuse)
    assert Builder(CACHE, 2).library(source, LEVEL) == first
    with pytest.raises(AssertionError, match="the compiler ran"):
        Builder(CACHE, 2).library(source + "\n", LEVEL)


def test_levels_have_libraries_of_their_own() -> None:
    source = emit(tiny().graph).source
    levels = registry.host_levels()
    paths = {Builder(CACHE, 2).library(source, level) for level in levels}
    assert len(paths) == len(levels)


def test_a_missing_compiler_is_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CC", "no-such-compiler --fast")
    with pytest.raises(MissingCompilerError, match="no-such-compiler"):
        Builder(tmp_path, 1).library(emit(tiny().graph).source, LEVEL)


def test_no_compiler_at_all(monkeypatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(building.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingCompilerError, match="ziglang"):
        Toolchain.find("x86_64")


def test_a_failing_compiler_shows_what_it_said() -> None:
    source = emit(tiny().graph).source.replace("static void run(", "oops static void run(")
    with pytest.raises(CompilerError, match=r"(?s)module\.c.*oops"):
        Builder(CACHE, 2).library(source, LEVEL)


def test_a_failed_build_leaves_nothing_behind(tmp_path, monkeypatch) -> None:
    def fail(command, what, cache):
        raise CompilerError(list(command), "no space", what)

    monkeypatch.setattr(building, "_run", fail)
    with pytest.raises(CompilerError):
        Builder(tmp_path, 2).library(emit(tiny().graph).source, LEVEL)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
def test_gcc_through_cc(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CC", "gcc")
    graph = tiny().graph
    inputs = random_inputs(graph)
    wanted = run_graph(graph, inputs)
    library = build(emit(graph), native_levels()[0], tmp_path)
    got = library.context(2).run(inputs)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
@pytest.mark.parametrize("source", LEVEL.sources, ids=lambda path: path.stem)
def test_gcc_takes_every_kernel(source, tmp_path) -> None:
    """Without optimizing, which takes gcc ten seconds for some."""
    folders = [f"-I{registry.ROOT / name}" for name in ("", "include", "common")]
    flags = [*registry.REQUIRED_FLAGS, *LEVEL.gcc_flags, *LEVEL.defines, *folders]
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    command = ["gcc", *flags, *warnings, "-O0", "-c", str(source), "-o", str(tmp_path / "made.o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif("CC" in os.environ, reason="zig alone reads a parsed header")
@pytest.mark.parametrize("level", [LEVEL, registry.level("aarch64", "sve2")], ids=lambda v: v.arch)
def test_the_parsed_header_of_modules_changes_no_byte(level, tmp_path, monkeypatch) -> None:
    text = emit(tiny().graph).source
    source = building._Source(Path("module.c"), text, False, building._GENERATED)
    tools, made = Toolchain.find(level.arch), []
    link = [*tools.command, *tools.link_flags(False), "-shared", "-s"]  # without where it was made
    for folder in ("parsed", "plain"):
        builder = Builder(tmp_path / folder, 1)
        compiled = builder._object(tools, source, level)
        made.append(builder._link(link, [compiled], ".so").read_bytes())
        monkeypatch.setattr(Builder, "_parsed", lambda *_: ())
    assert made[0] == made[1]
    headers = [(tmp_path / folder / "headers").exists() for folder in ("parsed", "plain")]
    assert headers == [True, False]


def test_only_what_a_module_calls_is_compiled(tmp_path) -> None:
    Builder(tmp_path, 2).library(emit(tiny().graph).source, LEVEL)
    runtime = ("team.c", "placement.c", "cpus.c", "gate.c", "level.c", "start.c", "module.c")
    files = {"gemm_f32.c", *runtime, "the generated module.c"}
    assert len(list((tmp_path / "objects").glob("*/*.o"))) == len(files)


def test_zig_gets_a_cache_where_it_has_none(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ZIG_GLOBAL_CACHE_DIR", raising=False)
    for home in (None, "/proc/nobody"):
        monkeypatch.setenv("HOME", home) if home else monkeypatch.delenv("HOME")
        assert building._environment(tmp_path)["ZIG_GLOBAL_CACHE_DIR"] == str(tmp_path / "zig")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert "ZIG_GLOBAL_CACHE_DIR" not in building._environment(tmp_path)
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", "mine")
    assert building._environment(tmp_path)["ZIG_GLOBAL_CACHE_DIR"] == "mine"


def test_flags_follow_the_compiler(monkeypatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    zig = Toolchain.find("aarch64")
    sve = registry.level("aarch64", "sve2")
    assert zig.is_zig and "aarch64-linux-gnu.2.17" in zig.machine_flags(sve, static=False)
    assert "aarch64-linux-musl" in zig.machine_flags(sve, static=True)
    monkeypatch.setenv("CC", f"{shutil.which('true')} -v")
    named = Toolchain.find(find_target("native").arch)
    assert not named.is_zig and named.machine_flags(LEVEL, False) == LEVEL.gcc_flags
