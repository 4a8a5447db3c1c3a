"""graphopt bench kernels on tiny shapes: its rows and its judgement. No test depends on a time."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from graphopt.bench.kernels import measure, peers, peers_torch, row, run
from graphopt.bench.kernels.attention_ops import Attention, Rope
from graphopt.bench.kernels.native import Kernels
from graphopt.bench.kernels.other_ops import Depthwise, Norm, Quantize, unpack_rows
from graphopt.bench.kernels.shapes import SPECS
from graphopt.bench.kernels.workloads import Gemm, Label, Operands
from graphopt.config import Config
from graphopt.errors import BenchmarkError, MissingToolError
from graphopt.kernels import registry
from graphopt.kernels.formats import INT8
from graphopt.kernels.packing import pack_lhs_qa8r
from graphopt.kernels.reference import quantize_rows
from graphopt.n2sim.llvm import Llvm
from graphopt.target import native
from graphopt.toolchain.build import Builder

TINY = (
    Gemm("int8", 9, 20, 40),
    Gemm("int4", 9, 20, 40),
    Gemm("int4", 9, 20, 64, 32),
    Gemm("bf16", 9, 20, 40),
    Gemm("f32", 9, 20, 40),
    Quantize(9, 40),
    Norm(9, 40),
    Norm(9, 40, quantized=True),
    Depthwise(30, 20, 5),
    Attention("f32", 19, 2, 16),
    Attention("bf16", 19, 2, 16),
    Attention("f32", 40, 4, 16, 3, 2, causal=True),
    Norm(9, 40, rms=True),
    Rope("f32", 5, 4, 2, 16),
    Rope("bf16", 5, 4, 2, 16),
)
LABEL_KEYS = {"name", "op", "scheme", "m", "n", "k", "group"}
SHARED_KEYS = {"engine", "part", "threads", "target", "peak_share", "peak", "pack_share", "note"}


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Rows of a moment, which say nothing of speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "SAMPLE_SECONDS", 1e-4)
        patch.setattr(measure, "IDLE_SECONDS", 0)
        yield


@pytest.fixture(scope="module")
def rows() -> list[row.Row]:
    return run.bench("native", "", (2,), 1, specs=TINY)


def test_every_kernel_has_rows_and_is_right(rows: list[row.Row]) -> None:
    ours = [r for r in rows if r.engine.startswith("graphopt")]
    assert {(r.label.name, r.threads) for r in ours} == {(s.name, 2) for s in TINY}
    for one in ours:
        assert one.error is not None and not one.note, one
    assert [r for r in rows if r.note.startswith("WRONG")] == []


def test_json_rows(rows: list[row.Row]) -> None:
    data = json.loads(row.to_json(rows))
    assert isinstance(data, list) and len(data) == len(rows)
    for item in data:
        assert item.keys() >= LABEL_KEYS | SHARED_KEYS | {"gmacs", "seconds", "quartiles"}
        assert "macs_per_cycle" not in item
        if item["seconds"] is not None and item["op"] not in (
            "quantize",
            "norm",
            "rms_norm",
            "rope",
        ):
            assert item["gmacs"] > 0
            low, high = item["quartiles"]
            assert low <= item["seconds"] <= high


def test_only_calls_that_pack_have_a_share_of_packing(rows: list[row.Row]) -> None:
    for one in rows:
        packs = one.part == "call" and one.label.op == "gemm" and one.label.scheme != "f32"
        expected = packs and one.engine.startswith("graphopt")
        assert (one.pack_share is not None) == expected, one


def test_peers_take_part_or_say_why_not(rows: list[row.Row]) -> None:
    peers = [r for r in rows if not r.engine.startswith("graphopt")]
    assert {"onnxruntime MatMulInteger", "onnxruntime MatMulNBits", "torch SDPA"} <= {
        r.engine for r in peers
    }
    assert all(r.seconds is not None or r.note for r in peers)


def dies(operands: Operands, threads: int) -> Callable[[], np.ndarray]:
    def call() -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        return operands.data["x"]

    return call


def test_a_peer_that_dies_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    lives = peers.Peer("lives", peers_torch.layer_norm)
    dead = peers.Peer("dies", dies)
    monkeypatch.setitem(peers._PEERS, ("norm", "f32"), (dead, lives))
    found = run.bench("native", "", (1,), 1, specs=(Norm(9, 40), Norm(8, 40)))
    for name in ("norm 9x40", "norm 8x40"):
        rows = {one.engine: one for one in found if one.label.name == name}
        assert rows["dies"].note == "cannot measure: it was ended by SIGKILL"
        assert rows["dies"].seconds is None
        assert rows["lives"].seconds is not None and rows["lives"].error is not None
        assert any(engine.startswith("graphopt") for engine in rows)


def test_tables_hold_every_row(rows: list[row.Row]) -> None:
    assert row.table(rows).row_count == len(rows)


def test_few_rows_are_compared_with_reading_their_weights() -> None:
    rows = run.bench("native", "", (1,), 1, specs=(Gemm("int8", 1, 2048, 1024),))
    ours = [r for r in rows if r.engine.startswith("graphopt")]
    assert {r.part for r in ours} == {"call", "kernel", "streamed"}
    for one in ours:
        assert one.error is not None and not one.note, one
        assert one.peak  # of which reads are one; which is the slowest is a matter of time


def test_the_peak_is_the_slower_of_instructions_and_reads() -> None:
    def peak(engine: str, seconds: float, *limits: str) -> measure.Contender:
        return measure.Contender(
            engine, "peak", "x", lambda _: 0.0, 8, limits=limits, samples=[seconds]
        )

    loops = [peak("slow", 2.0), peak("fast", 1.0)]
    one = measure.Contender("k", "kernel", "x", lambda _: 0.0, 8)
    for seconds, expected in ((0.5, "fast"), (1.5, "reads")):
        found = measure._peak_of(one, [*loops, peak("reads", seconds, "kernel")])
        assert found is not None and found.engine == expected
    found = measure._peak_of(one, [*loops, peak("reads", 9.0, "streamed")])
    assert found is not None and found.engine == "fast"


def test_a_wrong_result_is_named() -> None:
    one = measure.Contender("x", "call", "", lambda _: 0.0, 1)
    measure._judge(one, np.array([1.0, 2.0]), np.array([1.0, 2.1]), 1e-3)
    assert one.note.startswith("WRONG")
    measure._judge(one, np.array([1.0, np.nan]), np.array([1.0, 2.0]), 1e-3)
    assert "nan" in one.note


def test_calls_are_on_memory_of_their_own() -> None:
    target = native()
    level = target.isa_levels[-1]
    kernels = Kernels(Builder(Config.from_environment().cache, 2).timed_kernels(level), 1)
    work = Quantize(3, 33).build(target.arch, 1)
    calls = kernels.prepare([work.kernel])
    packed = calls.written["dst"]
    assert packed.ctypes.data % 64 == 0
    calls.run(2)
    quantized = quantize_rows(work.data["x"])
    steps = quantized.q - quantized.zp[:, None]
    want = steps.astype(np.float32) * quantized.scale[:, None]
    np.testing.assert_array_equal(work.read(packed), want)
    assert not work.kernel.case.pointers["dst"].any()
    missing = dataclasses.replace(work.kernel, generic="go_none")
    with pytest.raises(KeyError, match="go_none"):
        kernels.prepare([missing])
    kernels.close()


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_packed_rows_are_read_back(arch: str) -> None:
    x = np.random.default_rng(0).standard_normal((11, 45), dtype=np.float32)
    rule = INT8.layout(arch)
    values = unpack_rows(rule, 11, 45, pack_lhs_qa8r(rule, quantize_rows(x)))
    assert np.abs(values - x).max() <= 0.51 * np.ptp(x, axis=1).max() / 255


def test_peak_loops_count_what_they_do() -> None:
    """A level's int8 loops multiply more in a step than its f32 loop: wider or several."""
    for level in native().isa_levels:
        if level.name == "scalar":
            continue
        builder = Builder(Config.from_environment().cache, 2)
        kernels = Kernels(builder.timed_kernels(level), 2)
        loops = {loop.unit: loop for loop in kernels.peak_loops()}
        assert set(loops) == {"f32", "bf16", "int8"}
        assert loops["int8"].macs > loops["f32"].macs
        assert all(loop.run(1) > 0 for loop in loops.values())
        assert kernels.read_loop(1 << 20)(1) > 0
        kernels.close()


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
@pytest.mark.parametrize("level", registry.levels(platform.machine()), ids=lambda v: v.name)
def test_timer_and_peaks_compile_with_gcc(level: registry.Level, tmp_path: Path) -> None:
    (tmp_path / "kernels.h").write_text(registry.binding_header(level))
    folders = [registry.ROOT / name for name in ("include", "harness", "runtime")]
    flags = [*registry.REQUIRED_FLAGS, *level.gcc_flags, "-Wall", "-Wextra", "-Werror"]
    flags += [f"-I{folder}" for folder in (tmp_path, *folders)]
    sources = [str(registry.ROOT / "harness" / name) for name in ("peak.c", "timer.c")]
    done = subprocess.run(
        ["gcc", "-fsyntax-only", "-Wno-unknown-pragmas", *flags, *sources],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_names_are_unique_and_only_selects() -> None:
    assert len({spec.name for spec in SPECS}) == len(SPECS)
    with pytest.raises(BenchmarkError, match=r"no kernel matches 'fft'.*int8 128x512x512"):
        run.bench("native", "fft", (1,), 1)
    with pytest.raises(BenchmarkError, match="regular expression"):
        run.bench("native", "(", (1,), 1)


def test_arm_rows() -> None:
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("qemu-aarch64 is missing (apt-get install qemu-user)")
    try:
        Llvm.find()
    except MissingToolError as error:
        pytest.skip(str(error))
    rows = run.bench("neoverse-n2", "", (1,), 1, specs=(TINY[0], TINY[4], TINY[5]))
    parts = [(r.label.scheme, r.part) for r in rows if r.engine == "graphopt neon_i8mm"]
    assert parts[:3] == [("int8", "call"), ("int8", "kernel"), ("int8", "main loop")]
    assert {r.engine for r in rows} == {"graphopt neon_i8mm", "graphopt sve2"}
    for item, one in zip(json.loads(row.to_json(rows)), rows, strict=True):
        assert item.keys() >= LABEL_KEYS | SHARED_KEYS | {"cycles", "macs_per_cycle"}
        assert "gmacs" not in item and item["cycles"] > 0 and item["threads"] == 1
        if one.label.op == "gemm":
            assert 0 < item["macs_per_cycle"] <= 65 and 0 < item["peak_share"] < 1.02
            assert item["peak"] == {"int8": "smmla", "f32": "fmla"}[one.label.scheme]
        else:
            assert one.per_element == pytest.approx(item["cycles"] / (9 * 40))
    call, kernel = rows[0], rows[1]
    assert call.cycles is not None and kernel.cycles is not None
    assert call.pack_share == pytest.approx(1 - kernel.cycles / call.cycles)


def test_command_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "graphopt", "bench", "kernels", "--only", "norm 168"]
    file = tmp_path / "rows.json"
    options = ["--rounds", "1", "--threads", "1,2", "--json"]
    done = subprocess.run([*words, *options, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(text in done.stdout for text in ("norm 168x512", "1 thread", "2 threads"))
    assert {item["name"] for item in json.loads(file.read_text())} == {"norm 168x512"}
    printed = subprocess.run([*words, *options, "-"], capture_output=True, text=True)
    assert isinstance(json.loads(printed.stdout), list)


def test_label_has_the_fields_of_a_row() -> None:
    assert {f.name for f in dataclasses.fields(Label)} == LABEL_KEYS
