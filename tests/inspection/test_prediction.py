"""What a model is predicted to take on Arm cores, with prices that are made up."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from graphopt.bench.arm_model import Prices
from graphopt.bench.machine import Machine
from graphopt.cli import app
from graphopt.errors import InspectionError
from graphopt.inspection import planned
from graphopt.inspection.models import Planned
from graphopt.inspection.prediction import predict, prediction_tables

PRICE = 1000


@pytest.fixture(autouse=True)
def prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Prices, "cycles", lambda self, spec: PRICE)


@pytest.fixture(scope="module")
def graph() -> Planned:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)).eval()
    (graph,) = planned(model, "neoverse-n2", "fp32", (torch.randn(2, 24, 64),))
    return graph


def test_a_step_takes_the_longer_of_arithmetic_and_memory(graph: Planned) -> None:
    (plain,) = predict(graph, [1], Machine())
    # Weights and biases in f32 at 20 GB/s and 3 GHz, against one call of 48 rows.
    bytes_of = [4 * (64 * 256 + 256), 4 * (256 * 64 + 64)]
    assert [step.memory for step in plain.steps] == pytest.approx([b * 3 / 20 for b in bytes_of])
    assert [step.cycles for step in plain.steps] == [step.memory for step in plain.steps]
    assert plain.memory_bound == 1 and plain.critical == plain.cycles
    fast = Machine().known("core_bandwidth", 1e15, "made up").known("socket_bandwidth", 1e15, "t")
    (quick,) = predict(graph, [1], fast.known("kernel_scale", 1.5, "made up"))
    assert [step.cycles for step in quick.steps] == pytest.approx([1.5 * PRICE] * 2)
    assert quick.memory_bound == 0 and quick.ms == pytest.approx(2 * 1.5 * PRICE / 3e9 * 1e3)


def test_several_cores_share_tasks_and_begin_steps(graph: Planned) -> None:
    fast = Machine().known("core_bandwidth", 1e15, "made up").known("socket_bandwidth", 1e15, "t")
    one, many = predict(graph, [1, 16], fast.known("step_seconds", 1e-6, "made up"))
    assert [step.start for step in one.steps] == [0, 0]
    assert [step.start for step in many.steps] == pytest.approx([3000, 3000])
    for alone, shared in zip(one.steps, many.steps, strict=True):
        assert 1 / 16 <= shared.balance <= 1
        assert shared.arithmetic == pytest.approx(alone.arithmetic / (16 * shared.balance))
    out = io.StringIO()
    Console(file=out, width=80).print(prediction_tables([one, many]))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "Known of this machine" in out.getvalue() and "with 1 µs" in out.getvalue()


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n\ndef build():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Linear(64, 64).eval(), (torch.randn(24, 64),)\n"
    )
    model = ["predict", f"{tmp_path}/net.py:build", "--precision", "fp32", "--cores", "1"]
    (tmp_path / "c.toml").write_text(
        'format = 1\ntarget = "neoverse-n2"\n[constants.clock]\nvalue = 1e9\nunit = "Hz"\n'
    )
    runs = [*model, "--json", "--constants", str(tmp_path / "c.toml")]
    ran = CliRunner().invoke(app, runs)
    assert ran.exit_code == 0, ran.output
    found: list[dict[str, Any]] = json.loads(ran.stdout)
    assert found[0]["constants"]["clock"]["value"] == 1e9
    assert found[0]["ms"] == pytest.approx(found[0]["cycles"] / 1e6)
    other = CliRunner().invoke(app, [*runs, "--target", "neoverse-v1"])
    assert other.exit_code == 1 and "they are of neoverse-n2" in str(other.exception)


def test_what_has_no_model_is_refused() -> None:
    (native,) = planned(nn.Linear(8, 8).eval(), "native", "fp32", (torch.zeros(1, 8),))
    with pytest.raises(InspectionError, match="LLVM's models are used of neoverse-n1"):
        predict(native, [1], Machine())
