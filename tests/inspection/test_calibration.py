"""What is measured of this machine, and how far a prediction was off; prices are made up."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from graphopt.bench.arm_model import Prices
from graphopt.bench.machine import Machine, read_machine
from graphopt.cli import app
from graphopt.inspection import calibration, planned


def test_constants_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_MEMORY_BYTES", 32 << 20)
    monkeypatch.setattr(calibration, "_PASSES", 2)
    file = tmp_path / "machine.toml"
    done = CliRunner().invoke(app, ["calibrate", "-o", str(file), "--json"])
    assert done.exit_code == 0, done.output
    machine, shown = read_machine(file), json.loads(done.stdout)
    assert machine.target == "native" and shown["check"] is None
    assert 1e8 < machine.clock < 1e10  # no CPU that runs this is beyond
    assert machine["core_bandwidth"].value > 1e8 and machine.bytes_per_cycle > 0.01
    assert "kernel_scale" not in machine.constants
    told = {name: one["origin"] for name, one in shown["constants"].items()}
    assert "dependent additions" in told["clock"] and told["kernel_scale"] == "assumed"


def test_a_prediction_is_scaled_by_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Prices, "cycles", lambda self, spec: 1_000_000)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval()
    (graph,) = planned(model, "neoverse-n2", "fp32", (torch.randn(24, 64),))
    machine = Machine(name="box", target="neoverse-n2").known("clock", 2e9, "made up")
    rows = [{"ms": 0.75, "macs": 1}, {"ms": 0.75, "macs": 1}]
    found = calibration.checked(graph, machine, rows)
    # A million cycles each, at the assumed 3 GHz and at 2 GHz; 1.5 ms were 3 million cycles.
    assert found.check is not None and found.check.assumed == pytest.approx(2 / 3)
    assert found.machine.kernel_scale == pytest.approx(1.5)
    assert found.check.known == pytest.approx(found.check.measured) == pytest.approx(1.5)
    Console(width=80).print(found)
    printed = capsys.readouterr().out
    assert "(-56%)" in printed and "(+0%)" in printed
    assert max(map(len, printed.splitlines())) <= 80
