"""The C interface from C: a caller, the file program, and the pool of threads."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt.kernels import registry
from graphopt.runtime import library as runtime
from graphopt.runtime.emulate import pack_arrays, unpack_arrays

torch = pytest.importorskip("torch")

import models  # noqa: E402
from c_programs import HERE, KERNELS, compile_c  # noqa: E402


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    words = [str(c) for c in command]
    return subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=600, **options
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("c") / "net.gopt"
    x = torch.randn(2, 5, 48)
    graphopt.optimize(models.network(), precision="int8", example_inputs=(x,)).save(path)
    return path


def best_library(package: Path) -> Path:
    return package / "lib" / f"{registry.host_levels()[-1].name}.so"


@pytest.fixture(scope="module")
def example() -> np.ndarray:
    """What caller.c makes."""
    i = np.arange(2 * 7 * 48, dtype=np.float32)
    return ((i % 17) * 0.125 - 1).astype(np.float32).reshape(2, 7, 48)


def test_a_program_in_c(package: Path, example: np.ndarray, tmp_path: Path) -> None:
    program = compile_c(tmp_path / "caller", HERE / "caller.c", best_library(package))
    done = run(program, package / "weights.bin")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith("y ")] == [
        "abi 7",
        "missing: 7 1",
        "wrong size: 7 1",
        "threads: 8 8",
        "taken 1 1, given back 0",
        "inputs 1, outputs 1, threads 3, arena 0",
        "dtype: code 2, 2, input 0, axis -1, expected 0, got 2, input 0 has dtype 2, not 0, rank 0",
        "rank: code 1, 1, input 0, axis -1, expected 3, got 2, "
        "input 0 has 2 dimensions, not 3, rank 0",
        "shape: code 3, 3, input 0, axis 2, expected 48, got 47, "
        "input 0 has size 47 along axis 2, not 48, rank 0",
        "empty: code 4, 4, input 0, axis 1, expected 1, got 0, "
        "input 0 has size 0 along axis 1, rank 0",
        "negative: code 4, 4, input 0, axis 0, expected 1, got -3, "
        "input 0 has size -3 along axis 0, rank 0",
        "huge: 9",
        "output 0: rank 3, 2 7 24",
        "guards 1, arena 1, time 1",
        "threads 1, forks 1, running 0",
    ]
    got = np.array([float.fromhex(line[2:]) for line in lines if line.startswith("y ")])
    expected = graphopt.load(package)(example)
    np.testing.assert_array_equal(got.astype(np.float32).reshape(2, 7, 24), expected)


def test_header_is_c_and_cplusplus(tmp_path: Path) -> None:
    for suffix in ("c", "cc"):
        source = tmp_path / f"only.{suffix}"
        source.write_text('#include "graphopt.h"\nint main(void) { return GO_OK; }\n')
        standard = ["-x", "c++", "-std=c++11"] if suffix == "cc" else ["-x", "c", "-std=c99"]
        assert run(compile_c(tmp_path / suffix, *standard, "-pedantic", source)).returncode == 0


def test_libraries_show_the_interface_alone(package: Path) -> None:
    header = (KERNELS / "include" / "graphopt.h").read_text()
    for library in (package / "lib").glob("*.so"):
        listed = run("nm", "-D", "--defined-only", library)
        if listed.returncode:
            pytest.skip("nm is not installed")
        names = {line.split()[-1] for line in listed.stdout.splitlines() if " T " in line}
        names -= {"_init", "_fini"}
        assert names and all(f" {name}(" in header or f"*{name}(" in header for name in names)
        assert len(names) == header.count("GO_API ") - header.count("define GO_API ")


@pytest.fixture(scope="module")
def file_program(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runtime/main.c with the package's library; emulators get it as one static program."""
    output = tmp_path_factory.mktemp("files") / "program"
    return compile_c(output, KERNELS / "runtime" / "main.c", best_library(package))


def test_file_program(
    file_program: Path, package: Path, example: np.ndarray, tmp_path: Path
) -> None:
    given, made = tmp_path / "in", tmp_path / "out"
    given.write_bytes(pack_arrays([example]))
    done = run(file_program, package / "weights.bin", given, made)
    assert done.returncode == 0, done.stderr
    (got,) = unpack_arrays(made.read_bytes())
    np.testing.assert_array_equal(got, graphopt.load(package)(example))


def test_file_program_refuses(
    file_program: Path, package: Path, example: np.ndarray, tmp_path: Path
) -> None:
    given, made, weights = tmp_path / "in", tmp_path / "out", package / "weights.bin"
    good = pack_arrays([example])
    contents = {
        good[:-1]: "truncated",
        good[:30]: "truncated",
        b"": "truncated",
        b"\xff" * 4 + good[4:]: "truncated",
        good[:4] + b"\x63" + good[5:]: "truncated",
        pack_arrays([example[:, :, :47]]): "go_error 3 0 2 48 47 input 0 has size 47 along axis 2",
        pack_arrays([example.astype(np.float64)]): "go_error 2 0 -1 0 2 input 0 has dtype 2, not 0",
        good[:8] + b"\xff" * 8 + good[16:]: "truncated",
        good[:8] + b"\xff" * 7 + b"\x0f" + good[16:]: "truncated",
    }
    for content, message in contents.items():
        given.write_bytes(content)
        done = run(file_program, weights, given, made)
        assert done.returncode == 1 and message in done.stderr, (content[:24], done)
    given.write_bytes(good)
    assert "cannot read" in run(file_program, weights, tmp_path / "none", made).stderr
    assert "cannot write" in run(file_program, weights, given, tmp_path).stderr
    assert "cannot open the weights" in run(file_program, given, given, made).stderr
    assert "usage" in run(file_program).stderr


@pytest.fixture(scope="module")
def team_stress(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("team")
    runtime = [KERNELS / "runtime" / name for name in ("team.c", "placement.c", "cpus.c")]
    return compile_c(folder / "stress", HERE / "team_stress.c", *runtime)


def test_pool_of_one_to_eight_threads(team_stress: Path) -> None:
    done = run(team_stress)
    assert done.stdout == "done\n" and done.returncode == 0, (done.stdout[-500:], done.returncode)


def test_a_sleeping_thread_is_kept_from_the_cpu_of_its_caller(tmp_path: Path) -> None:
    runtime = [KERNELS / "runtime" / name for name in ("team.c", "placement.c")]
    done = run(compile_c(tmp_path / "placement", HERE / "placement.c", *runtime))
    if done.returncode == 77:
        pytest.skip("needs two CPUs")
    apart = ["apart: 1, may run there: 0"] * 6
    assert done.stdout.splitlines() == ["bound alike: 1", *apart], done


def test_a_gate_lets_no_more_threads_run_than_its_limit(tmp_path: Path) -> None:
    runtime = [KERNELS / "runtime" / name for name in ("team.c", "placement.c", "gate.c", "cpus.c")]
    done = run(compile_c(tmp_path / "gate", HERE / "gate_stress.c", *runtime))
    assert done.stdout == "at most 3, 1200 runs, 0 running, 0 waiting\n", done


@pytest.mark.parametrize("program", ["team_stress", "gate_stress"])
def test_threads_share_no_data_without_order(program: str, tmp_path: Path) -> None:
    names = ("team", "placement", "gate", "cpus")
    sources = [HERE / f"{program}.c", *(KERNELS / "runtime" / f"{name}.c" for name in names)]
    include = [f"-I{KERNELS / name}" for name in ("include", "runtime")]
    watched, built = tmp_path / program, None
    if shutil.which("gcc"):
        built = run(
            "gcc", "-fsanitize=thread", "-O1", *include, *sources, "-lpthread", "-o", watched
        )
    if built is None or built.returncode:
        pytest.skip("gcc with its thread sanitizer is not installed")
    done = run(watched)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the thread sanitizer does not run with this kernel's address layout")
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr


def test_default_threads_respect_the_affinity(team_stress: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    everything = int(run(team_stress, "default").stdout)
    assert 1 <= everything <= len(cpus)
    for count in {1, len(cpus)}:
        done = run(
            team_stress, "default", preexec_fn=lambda n=count: os.sched_setaffinity(0, cpus[:n])
        )
        assert int(done.stdout) == min(count, everything)


def test_a_loaded_module_uses_the_cpus_of_the_process(package: Path) -> None:
    code = (
        "import os, sys, graphopt, numpy as np\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "graphopt.load(sys.argv[1])(np.zeros((1, 2, 48), np.float32))\n"
        "print(len(os.listdir('/proc/self/task')))\n"
    )
    # numpy's own threads, if any, exist in both runs.
    idle = code.replace("graphopt.load(sys.argv[1])(np.zeros((1, 2, 48), np.float32))", "")
    counts = [int(run(sys.executable, "-c", c, package).stdout) for c in (idle, code)]
    assert counts[0] == counts[1]


def test_a_function_takes_its_threads_from_the_gate(package: Path, example: np.ndarray) -> None:
    module = graphopt.load(package, num_threads=2)
    expected, runs = module(example), []
    run_once = threading.Thread(target=lambda: runs.append(module(example)))

    def square(number: int) -> tuple[int, int]:
        if number == 0:
            run_once.start()
            run_once.join(0.2)
        return number * number, runtime._gate.running + 10 * len(runs)

    try:
        graphopt.limit_threads(1)
        assert module.map(square, range(5)) == [(i * i, 1) for i in range(5)]
        run_once.join(10)
        np.testing.assert_array_equal(runs, [expected])
    finally:
        graphopt.limit_threads(64)
    both = min(2, len(os.sched_getaffinity(0)))
    assert [running for _, running in module.map(square, range(1, 4))] == [10 + both] * 3
    assert module.map(square, [3]) == [(9, 11)] and module.map(square, []) == []
    with pytest.raises(ZeroDivisionError):
        module.map(lambda number: 1 // number, [1, 0])
    assert runtime._gate.running == 0
