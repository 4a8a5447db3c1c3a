"""The benchmark: every peer runs the same work, and the table hides nothing."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")

from graphopt.bench import measure, paraformer, table  # noqa: E402
from graphopt.bench.engines import Engine, TorchFp32, relative_error  # noqa: E402
from graphopt.bench.onnx_engines import FUNASR, quantize_onnx  # noqa: E402
from graphopt.errors import MissingDependencyError  # noqa: E402

# Relative errors against torch fp32 that each peer must stay under at this size. fp32 sums in
# another order; bf16 has 8 bits of mantissa; int8 has outlier channels to deal with.
BOUNDS = {"fp32": 1e-5, "default": 5e-2, "int8": 0.3}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory):
    return paraformer.workload(tmp_path_factory.mktemp("onnx"), 30, blocks=2, decoder_blocks=1)


@pytest.fixture(scope="module")
def results(work) -> list[measure.Result]:
    (found,) = measure.measure([work], paraformer.peers(), [1], rounds=2)
    return found


def test_every_peer_is_listed(results: list[measure.Result]) -> None:
    assert [r.engine for r in results] == [engine.name for engine in paraformer.peers()]


def test_peers_agree_with_torch(results: list[measure.Result]) -> None:
    for result in results:
        if "is not installed" in result.missing or "needs the Python package" in result.missing:
            continue
        assert result.missing == ""
        bound = BOUNDS[result.engine.split()[-1]]
        assert set(result.errors) == {"encoder", "logits"}
        assert all(error < bound for error in result.errors.values()), result
        assert len(result.seconds) == 2 and min(result.seconds) > 0
    int8 = [max(r.errors.values()) for r in results if r.engine.endswith("int8") and r.errors]
    assert all(error > 1e-4 for error in int8), "an int8 engine that computes in fp32"


def test_recipe_keeps_the_output_layer_in_float(work) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    decoder = work.stages[1]
    nodes = onnx.load(quantize_onnx(decoder, work)).graph.node
    floats = [n.name for n in nodes if n.op_type == "MatMul"]
    integers = [n.name for n in nodes if n.op_type == "MatMulInteger"]
    assert "/decoder/output_layer/MatMul" in floats and len(integers) > 4
    assert not any(word in name for name in integers for word in FUNASR.kept_float)


class Wrong(TorchFp32):
    name = "wrong"

    def run(self) -> dict[str, np.ndarray]:
        return {name: value * 1.1 for name, value in super().run().items()}


def name_of(engine: Engine) -> str:
    return engine.name


class Absent(TorchFp32):
    name = "absent"

    def load(self, stage, workload):
        raise MissingDependencyError("absent", "this peer", "pip install absent")


class Broken(TorchFp32):
    name = "broken"

    def load(self, stage, workload):
        raise RuntimeError("cannot do this\nwith details")


class Dying(TorchFp32):
    """As a library does that was built for instructions that this CPU does not have."""

    def __init__(self, passes: int) -> None:
        self.name, self.left = f"dies after {passes}", passes

    def run(self) -> dict[str, np.ndarray]:
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return super().run()


def test_table_lists_missing_broken_dead_and_wrong(work, tmp_path: Path) -> None:
    late = Dying(measure.WARM_UPS + 1)
    engines: list[Engine] = [TorchFp32(), Wrong(), Absent(), Broken(), Dying(0), late]
    (results,) = measure.measure([work], engines, [1], rounds=2, inspect=name_of)
    reference, wrong, absent, broken, *dead = results
    assert [len(one.seconds) for one in results] == [2, 2, 0, 0, 0, 1]
    assert [one.missing for one in dead] == ["cannot measure: it was ended by SIGKILL"] * 2
    assert [one.inspected for one in results] == ["torch fp32", "wrong", *[None] * 4]
    assert reference.errors == {"encoder": 0.0, "logits": 0.0}
    assert wrong.errors["logits"] == pytest.approx(0.1, rel=1e-3)
    assert "pip install absent" in absent.missing and absent.seconds == []
    assert broken.missing == "cannot measure: RuntimeError: cannot do this"
    text = io.StringIO()
    table.print_results(Console(file=text, width=200), work.title, results, 1)
    words = ("absent", "missing", "cannot do this", "ended by SIGKILL", "CPU:")
    assert all(word in text.getvalue() for word in words)
    table.write_json(tmp_path / "r.json", work.title, results)
    read = json.loads((tmp_path / "r.json").read_text())
    assert [r["engine"] for r in read["results"]] == [engine.name for engine in engines]


def test_relative_error_is_not_fooled_by_sign_or_scale() -> None:
    x = np.array([3.0, 4.0], np.float32)
    assert relative_error(x, x) == 0
    assert relative_error(-x, x) == 2
    assert relative_error(1e-3 * x, 2e-3 * x) == pytest.approx(0.5)


def test_orders_change_but_repeat(work, tmp_path: Path) -> None:
    def names(seed: int) -> list[str]:
        log = tmp_path / "log"
        log.write_text("")

        class Logged(TorchFp32):
            def __init__(self, name: str) -> None:
                self.name = name

            def run(self):
                with log.open("a") as file:
                    file.write(self.name)
                return {}

        engines = [Logged(name) for name in "abcd"]
        measure.measure([work], engines, [1], rounds=4, seed=seed)
        return list(log.read_text()[4 * measure.WARM_UPS :])

    first = names(0)
    rounds = [first[i : i + 4] for i in range(0, 16, 4)]
    assert all(sorted(r) == list("abcd") for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1
    assert names(0) == first


def test_command_line_prints_and_writes(tmp_path: Path) -> None:
    words = "bench paraformer --only torch --blocks 2 --decoder-blocks 1 --frames 20 --rounds 1"
    command = [sys.executable, "-m", "graphopt", *words.split(), "--threads", "1,2"]
    command += ["--json", str(tmp_path / "r.json")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "1 thread" in done.stdout and "2 threads" in done.stdout and "CPU:" in done.stdout
    read = json.loads((tmp_path / "r.json").read_text())
    rows = [(r["engine"], r["threads"]) for r in read["results"]]
    assert rows == [(name, n) for n in (1, 2) for name in ("torch fp32", "torch.ao int8")]
