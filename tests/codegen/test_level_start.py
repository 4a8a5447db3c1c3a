"""What a level does in a process before its kernels run."""

import ctypes
import os
import platform
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import CACHE, Maker, X, emit, mul

from graphopt.errors import LevelStartError
from graphopt.kernels import registry
from graphopt.runtime.emulate import Emulation, pack_arrays
from graphopt.runtime.library import Code, Library
from graphopt.toolchain.build import Builder

START = """#include "start.h"
static int starts;
int go_test_starts(void);
__attribute__((visibility("default"))) int go_test_starts(void) { return starts; }
const char *go_start_level(void) { starts++; return %s; }
"""
NO_ROOM = "the level scalar cannot start in this process: no room for tiles; have the system"


def starting(folder: Path, answer: str, arch: str = platform.machine()) -> registry.Level:
    """The scalar level with a start of its own, which is counted."""
    start = folder / "start.c"
    start.write_text(START % answer)
    return replace(registry.level(arch, "scalar"), start=str(start))


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """The C of a module, and its weights file."""
    m = Maker()
    m.output(m.pointwise(mul(X, 2.0), m.input("x", "B", 8)))
    module = emit(m.graph)
    weights = tmp_path_factory.mktemp("start") / "weights.bin"
    module.weights(1).tofile(weights)
    return module.source, weights


def test_a_level_starts_once_before_its_first_module(module, tmp_path: Path) -> None:
    source, weights = module
    path = Builder(CACHE, 2).library(source, starting(tmp_path, "0"))
    library = Library(path, weights, ["x"], [("B", 8)])
    starts = library.symbol("go_test_starts")
    assert starts() == 1
    x = np.ones((3, 8), np.float32)
    for threads in (1, 2):
        np.testing.assert_array_equal(library.context(threads).run([x])[0], 2 * x)
    opened = ctypes.c_void_p()
    again = library.symbol("go_open")(os.fsencode(weights), ctypes.byref(opened))
    assert (again, starts()) == (Code.OK, 1)
    library.symbol("go_close")(opened)


def test_a_level_that_may_not_run_is_refused_by_name(module, tmp_path: Path) -> None:
    source, weights = module
    library = Builder(CACHE, 2).library(source, starting(tmp_path, '"no room for tiles"'))
    with pytest.raises(LevelStartError, match=NO_ROOM):
        Library(library, weights, ["x"], [("B", 8)])


@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="qemu-aarch64 is not installed")
def test_a_program_of_a_level_that_may_not_run_says_so(module, tmp_path: Path) -> None:
    source, weights = module
    level, builder = starting(tmp_path, '"no room for tiles"', "aarch64"), Builder(CACHE, 2)
    given = tmp_path / "inputs.bin"
    given.write_bytes(pack_arrays([np.ones((3, 8), np.float32)]))
    program = builder.program(source, level)
    command = ["qemu-aarch64", program, weights, given, "made"]
    run = subprocess.run(command, capture_output=True, text=True)
    said = Emulation(builder, source, level.arch, ["x"], [("B", 8)])._error(run.stderr, 1, [])
    assert run.returncode == 1 and isinstance(said, LevelStartError)
    assert str(said).startswith(NO_ROOM)


def test_timed_kernels_and_hosts_start_their_level(tmp_path: Path) -> None:
    """What harness/host.c says is what run_cases of the kernel tests raises."""
    level, builder = starting(tmp_path, '"no room for tiles"'), Builder(CACHE, 2)
    host = builder.kernel_host(level, "go_gemm_f32")
    (tmp_path / "request").write_bytes(bytes(8))
    run = subprocess.run([host, "request", "response"], cwd=tmp_path, capture_output=True)
    assert (run.returncode, run.stderr) == (2, b"host: no room for tiles\n")
