"""What a package is, and whether this machine runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import graphopt
from graphopt.cli import app
from graphopt.errors import PackageCorruptError, PackageError
from graphopt.inspection import inspect_package
from graphopt.kernels import registry


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("info") / "linear.gopt"
    model = nn.Linear(16, 4).eval()
    fast = graphopt.optimize(
        model, example_inputs=(torch.zeros(2, 16),), precision="fp32", check=False
    )
    fast.save(path)
    return path


def test_what_is_in_it(package: Path) -> None:
    found = inspect_package(package)
    assert found.runs_here and found.kind == "compiled model" and not found.is_signed
    (module,) = found.modules
    assert module.runs == registry.host_levels()[-1].name and module.precision == "fp32"
    assert module.inputs == ("input: f32[B, 16]",) and module.outputs == ("output0: f32[B, 4]",)
    assert module.version == graphopt.__version__ and module.weights >= 16 * 4 * 4
    files = [path for path in package.rglob("*") if path.is_file()]
    assert found.files == len(files) - 1  # without the sums
    done = CliRunner().invoke(app, ["info", str(package)])
    assert done.exit_code == 0 and "yes, by" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_machine_that_does_not_run_it(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    found = inspect_package(package)
    assert not found.runs_here and found.verdict.startswith("no: this machine is riscv64")
    done = CliRunner().invoke(app, ["info", str(package), "--json"])
    read = json.loads(done.stdout)
    assert done.exit_code == 1 and not read["runs_here"] and read["modules"][0]["levels"]


def test_what_is_none_or_damaged(package: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="no package"):
        inspect_package(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in package.rglob("*"):
        if file.is_file():
            (copy / file.relative_to(package)).parent.mkdir(parents=True, exist_ok=True)
            (copy / file.relative_to(package)).write_bytes(file.read_bytes())
    (copy / "module.c").write_text("int main;")
    with pytest.raises(PackageCorruptError):
        inspect_package(copy)
