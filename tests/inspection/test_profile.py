"""Profiles: times that add up, their place in the model, limits, tables and events."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import graphopt
from graphopt.cli import app
from graphopt.compiler import baseline
from graphopt.compiler.profile import Baseline, Profile, Run, Timed, _spans
from graphopt.errors import OptionError
from graphopt.inspection.profiling import report
from graphopt.inspection.profiling.limits import last_cache_bytes, limits_of
from graphopt.inspection.profiling.roofs import Roofs
from graphopt.inspection.profiling.tables import lines_by, profile_tables
from graphopt.zoo.catalog import build_model

MODEL = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(64), nn.Linear(64, 128), nn.Linear(128, 64)

    def forward(self, x):
        x = x + self.down(torch.relu(self.up(self.norm(x))))
        return x.transpose(1, 2).softmax(-1)


def build():
    torch.manual_seed(0)
    return Block().eval(), (torch.randn(2, 10, 64),)
"""
ROOFS = Roofs(2, {"f32": 1e9, "bf16": 2e9, "int8": 4e9}, memory=1e9, cache=1e10)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "block.py"
    path.write_text(MODEL)
    return path


@pytest.fixture(scope="module")
def model(file: Path) -> tuple[nn.Module, tuple[Any, ...]]:
    module, example = build_model(f"{file}:build")
    return module, example


@pytest.fixture(scope="module")
def fast(model: tuple[nn.Module, tuple[Any, ...]]) -> Any:
    """In which the last step spins for much longer than all others take."""
    module, example = model
    with graphopt.keep_stages():
        fast = graphopt.optimize(
            module, precision="int8", example_inputs=example, num_threads=2, check=False
        )
    (program,) = fast.programs()
    slow = program.module.steps[-1].function
    head, name, tail = program.module.source.partition(f" {slow}(")
    opened, brace, body = tail.partition("{\n")
    spin = "for (volatile long spin = 0; spin < 100000000; spin++) {}\n"
    program.module.source = head + name + opened + brace + spin + body
    vars(program).pop("_library", None)
    program._contexts._idle.clear()
    return fast


@pytest.fixture(scope="module")
def profile(fast: Any, model: tuple[nn.Module, tuple[Any, ...]]) -> Profile:
    module, example = model
    found: Profile = fast.profile(*example, repeats=3, baseline=module)
    return found


def test_a_slow_op_is_named(profile: Profile) -> None:
    slowest = max(profile, key=lambda row: row["ms"])
    assert slowest["op"] == "go.softmax" and slowest is profile[-1]
    line, *others = lines_by(profile, limits_of(profile, ROOFS), "op")
    assert line.name == "softmax softmax" and line.ms > 10 * sum(other.ms for other in others)


def test_times_add_up(profile: Profile) -> None:
    times = [row["ms"] for row in profile]
    assert all(ms > 0 for ms in times) and profile.outside >= 0
    assert sum(times) + profile.outside == pytest.approx(profile.whole)
    assert all(0 < row["busy"] <= row["threads"] == profile.threads == 2 for row in profile)
    for row, spans in zip(profile, profile.runs[0].timed.spans, strict=True):
        assert spans or row["busy"] < 2


def test_every_step_knows_its_captured_nodes(
    fast: Any, profile: Profile, model: tuple[nn.Module, tuple[Any, ...]]
) -> None:
    (stages,), before = fast.stages(), profile.before
    assert before is not None and before.modules["linear"] == "up" and before.call > 0
    powers = {name: float(2**i) for i, name in enumerate(before.nodes)}
    steps = baseline._steps(stages, fast.programs(), powers)
    works = {
        (row["op"], row["module"]): {name for name in powers if int(powers[name]) & int(sum_)}
        for row, sum_ in zip(profile, steps, strict=True)
    }
    assert works["go.norm", "norm"] == {"layer_norm"}
    assert works["go.linear", "up"] == {"linear", "relu"}
    assert works["go.linear", "down"] == {"linear_1", "add"}
    assert works["go.softmax", ""] >= {"softmax"}
    assert sum(steps) <= sum(powers.values())


def test_what_threads_did_is_cut_at_steps() -> None:
    seconds = np.array([1.0, 2.0])
    # The first thread works, the second is set aside in step 0 until 2.5, the third took no part.
    marks = np.array([[0.1, 1.0, 1.0, 2.0, 3.0], [0.2, 2.5, 2.5, 2.9, 3.0], [0, 0, 0, 0, 0]])
    (first, second) = _spans(seconds, marks)
    assert first == [(0, 0.1, 0.9), (1, 0.2, 0.8)]
    assert second == [(0, 1.0, 1.0), (1, 2.5, pytest.approx(0.4))]


def row_of(**more: Any) -> dict[str, Any]:
    row = {
        "node": "%0", "op": "go.linear", "kernel": "go_gemm_qa8", "module": "m", "fused": [],
        "macs": 4_000_000, "bytes": 1000, "memory_bytes": 0, "scheme": "int8", "critical": True,
        "inputs": [((2, 10, 64), "qa8r"), ((128, 64), "int8")], "outputs": [((2, 10, 128), "f32")],
        "ms": 1.25, "busy": 2.0, "threads": 2,
    }  # fmt: skip
    return {**row, **more}


@pytest.mark.parametrize(
    ("row", "share", "text"),
    [
        ({}, 0.8, "limited by arithmetic: 3 GMAC/s in int8, 80% of the roof"),
        ({"scheme": "f32", "ms": 5.0}, 0.8, "limited by arithmetic: 1 GMAC/s in f32, 80%"),
        ({"ms": 0.0}, 0.0, "no time that can be measured"),
        ({"macs": 0, "bytes": 9_000_000}, 0.72, "limited by caches: 7.2 GB/s"),
        ({"ms": 10.0, "busy": 1.1}, 0.1, "limited by its tasks: 1.1 of 2 threads work"),
        ({"ms": 0.004, "macs": 4000}, 0.25, "too short"),
        ({"ms": 10.0}, 0.1, "limited by arithmetic, with loss"),
        ({"ms": 10.0, "inputs": [((1, 4, 64), "f32")]}, 0.1, "reading weights for 4 rows"),
        ({"ms": 10.0, "op": "go.softmax", "macs": None}, 0.0, "value by value"),
    ],
)
def test_a_sentence_says_what_limits(row: dict[str, Any], share: float, text: str) -> None:
    (limit,) = limits_of([row_of(**row)], ROOFS)
    assert limit.share == pytest.approx(share, abs=1e-4) and text in limit.text


def test_weights_beyond_the_cache_come_from_memory() -> None:
    weights = last_cache_bytes() + 1
    (limit,) = limits_of([row_of(bytes=weights, memory_bytes=weights, ms=weights / 0.8e6)], ROOFS)
    assert limit.roof == "memory" and limit.share == pytest.approx(0.8)
    assert "limited by memory: 0.8 GB/s" in limit.text


@pytest.fixture
def made_up() -> Profile:
    rows = [row_of(), row_of(node="%1", module="layers.3.down", fused=["act"], ms=0.5)]
    timed = Timed([1.25, 0.5], [2, 2], [[(0, 0.1, 1.0), (1, 0.1, 1.2)], []], 2.0, 1.9, 2)
    nodes = {"a": 8.0, "b": 2.0, "c": 1.0}
    modules = {"a": "m", "b": "layers.3.down", "c": "act"}
    return Profile("M", (Run(rows, timed),), None, Baseline("torch", 12.0, nodes, modules, (8, 3)))


def test_tables_fit_and_modules_keep_their_place(made_up: Profile) -> None:
    limits = limits_of(made_up, ROOFS)
    out = io.StringIO()
    kinds = ["op", "module", "step"]
    Console(file=out, width=80).print(profile_tables(made_up, limits, ROOFS.text, kinds, 15))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "in layers.*.down" in text  # where the work of act is done
    assert "6.00 times as fast" in text and "(outside of steps)" in text
    before = {line.name: line.before for line in lines_by(made_up, limits, "module")}
    assert before == {"m": 8.0, "layers.*.down": 2.0, "act": 1.0}
    assert made_up.overhead == pytest.approx(2.0 / 1.9 - 1) and "2 steps" in repr(made_up)


def test_perfetto_gets_what_each_thread_did(made_up: Profile) -> None:
    events = [event for event in made_up.trace()["traceEvents"] if event["ph"] == "X"]
    assert [(e["tid"], e["ts"], e["dur"]) for e in events] == [
        (0, 100.0, 1200.0),
        (1, 100.0, 1000.0),
        (2, 100.0, 1200.0),
    ]


def test_the_command_writes_what_onnxruntime_does(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "measure_roofs", lambda threads: ROOFS)
    command = ["profile", f"{file}:build", "--precision", "int8", "--repeats", "1", "--json"]
    ran = CliRunner().invoke(app, [*command, "--trace", str(tmp_path / "t.json"), "--baseline"])
    assert ran.exit_code == 0, ran.output
    whole, *nodes = json.loads(ran.stdout)
    assert (whole["name"], whole["cat"]) == ("model_run", "Session")
    assert [node["args"]["op_name"] for node in nodes][:2] == ["go.norm", "go.linear"]
    up = nodes[1]
    assert up["cat"] == "Node" and up["args"]["node_index"] == "1" and up["dur"] > 0
    assert up["args"]["output_type_shape"] == [{"qa8r": [2, 10, 128]}]
    assert up["args"]["before_ms"] > 0 and up["args"]["macs"] == 2 * 10 * 64 * 128
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


def test_what_is_refused(fast: Any, model: tuple[nn.Module, tuple[Any, ...]]) -> None:
    _, example = model
    with pytest.raises(OptionError, match="repeats=0"):
        fast.profile(*example, repeats=0)
    with pytest.raises(OptionError, match="the very model"):
        fast.profile(*example, baseline=nn.Linear(2, 2))
    with pytest.raises(OptionError, match="give some of op, module, step"):
        Profile("M", ()).tables(["ops"])
