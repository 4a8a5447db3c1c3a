"""Errors op by op, and the pass that is to blame: planted faults are named."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from graphopt.cli import app
from graphopt.errors import InspectionError, OptionError
from graphopt.inspection import bisect, diff, planned, stage_errors
from graphopt.inspection.accuracy import Error, metric_named, values_of
from graphopt.inspection.models import Planned
from graphopt.ir import Graph
from graphopt.ir.ops import Linear, Norm
from graphopt.passes.base import Pass
from graphopt.passes.fuse_epilogue import FuseEpilogue
from graphopt.passes.lower_aten import LowerAten
from graphopt.passes.quantize_weights import QuantizeWeights
from tests.support.models import Partly, network


class Layers(nn.Module):
    """Six linears with activations, one of which gets a wrong scale."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x)) + x
        return x


def plan(model: nn.Module, width: int, precision: str) -> Planned:
    x = torch.randn(2, 5, width, generator=torch.Generator().manual_seed(1))
    (found,) = planned(model.eval(), "neoverse-n1", precision, (x,))
    return found


def plant(monkeypatch: pytest.MonkeyPatch, kind: type[Pass], fault: object) -> None:
    """After every run of a pass, `fault` changes the graph."""
    run = kind.run

    def wrong(self: Pass, graph: Graph) -> bool:
        modified = run(self, graph)
        fault(graph)  # type: ignore[operator]
        return modified

    monkeypatch.setattr(kind, "run", wrong)


def wrong_scale(graph: Graph) -> None:
    for node in graph.nodes:
        if isinstance(node.op, Linear) and node.origin.module == "layers.3":
            scale = node.operands["scale"]
            assert scale.data is not None
            if not hasattr(scale, "planted"):
                scale.data = scale.data * np.float32(1.25)
                scale.planted = True  # type: ignore[attr-defined]


def no_activation(graph: Graph) -> None:
    for node in graph.nodes:
        if isinstance(node.op, Linear) and node.origin.module == "0":
            node.op.activation = None


def wide_eps(graph: Graph) -> None:
    for node in graph.nodes:
        if isinstance(node.op, Norm):
            node.op.eps = 0.5


def test_errors_of_arrays() -> None:
    right = np.array([3.0, 4.0], np.float32)
    exact = Error.of(right, right)
    assert (exact.sqnr, exact.largest, exact.relative, exact.cosine) == (np.inf, 0.0, 0.0, 1.0)
    off = Error.of(np.array([3.0, 4.5], np.float32), right)
    assert off.sqnr == pytest.approx(20.0) and off.largest == 0.5 and off.relative == 0.125
    lost = Error.of(np.array([3.0, np.nan], np.float32), right)
    assert lost.sqnr == -np.inf and lost.largest == np.inf
    assert Error.of(right, right, lambda got, its: 7.0).badness == 7.0


def test_a_right_plan_has_small_errors_everywhere() -> None:
    good = plan(Layers(), 64, "int8")
    found = diff(good)
    assert {f"layers.{number}" for number in range(6)} <= {row.module for row in found}
    assert min(row.error.sqnr for row in found) > 25
    assert min(row.alone.sqnr for row in found if row.alone) > 30
    assert bisect(good).culprit == "" and bisect(good).finding is None
    assert max(error.error for error in stage_errors(good)[:2]) < 1e-6


def test_a_wrong_scale_in_one_layer_is_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, QuantizeWeights, wrong_scale)
    bad = plan(Layers(), 64, "int8")
    worst, second = diff(bad).rows[:2]
    assert worst.module == "layers.3" and worst.alone is not None and second.alone is not None
    assert worst.alone.sqnr < second.alone.sqnr - 10
    found = bisect(bad, tolerance=0.03)
    assert found.culprit == "quantize_weights"
    assert found.finding is not None and "layers.3" in found.finding.title
    inputs = [array.copy() for array in bad.example()]
    assert diff(bad, inputs, after="fuse_epilogue").outputs["add_5"].relative < 1e-5


@pytest.mark.parametrize(
    ("kind", "fault", "step", "module", "nodes"),
    [
        (FuseEpilogue, no_activation, "fuse_epilogue", "0", (2, 1)),
        (LowerAten, wide_eps, "lower_aten", "2", (1, 1)),
    ],
)
def test_a_wrong_rewrite_is_named_and_cut_out(
    kind: type[Pass],
    fault: object,
    step: str,
    module: str,
    nodes: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        plant(patch, kind, fault)
        found = bisect(plan(network(), 48, "int8"))
        assert found.culprit == step and found.finding is not None
        assert f"({module}, " in found.finding.title
        parts = found.finding.before.nodes, found.finding.after.nodes
        assert tuple(map(len, parts)) == nodes
        (tmp_path / "found.py").write_text(found.finding.source())
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(tmp_path / "found.py"), run_name="__main__")
        assert ended.value.code == 1 and f"{step} moves the result by" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:  # the pass is right again
        runpy.run_path(str(tmp_path / "found.py"), run_name="__main__")
    assert ended.value.code == 0


def test_what_cannot_be_compared() -> None:
    x = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    (partly,) = planned(Partly().eval(), "neoverse-n1", "fp32", (x,))
    with pytest.raises(InspectionError, match="torch, between compiled parts"):
        diff(partly)
    with pytest.raises(InspectionError, match="example inputs"):
        planned(network(), "neoverse-n1", "fp32")
    # Every stage of the whole graph runs nonetheless, its aten nodes in torch.
    first, lowered = partly.stages["capture"], partly.stages["fuse_pointwise"]
    values = [values_of(stage, partly.example()) for stage in (first, lowered)]
    assert lowered.graph.outputs and any(not n.is_lowered for n in lowered.graph.nodes)
    for name in (lowered.names[v] for v in lowered.graph.outputs):
        np.testing.assert_allclose(values[0][name], values[1][name], atol=1e-6)


class Decides(nn.Module):
    """The largest class of rows that are nearly equal, and the rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.linear(x)
        return y, (y * 3000).round().argmax(-1)


def test_decisions_are_judged_in_f32_alone() -> None:
    model = Decides()
    seeded = torch.Generator().manual_seed(0)
    with torch.no_grad():
        apart = torch.randn(63, 64, generator=seeded) * 1e-4
        model.linear.weight[1:] = model.linear.weight[0] + apart
        model.linear.bias.fill_(0.0)
    x = torch.randn(40, 64, generator=seeded)
    (found,) = planned(model.eval(), "neoverse-n1", "int8", (x,))
    first, chosen = found.stages["capture"], []
    for stage in (first, found.last):
        chosen.append(values_of(stage, found.example())[stage.names[stage.graph.outputs[1]]])
    assert (chosen[0] != chosen[1]).any()  # rounding decides otherwise
    assert bisect(found).culprit == ""


def test_metrics_by_name() -> None:
    assert metric_named("sqnr") is None and metric_named("numpy:dot") is np.dot
    measure = metric_named("max")
    assert measure is not None and measure(np.array([1.0, 5.0]), np.array([1.0, 2.0])) == 3.0
    for name in ("numpy:nothing", "nothing", "no.such:thing"):
        with pytest.raises(OptionError, match="module:function"):
            metric_named(name)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "import torch\ndef build():\n    torch.manual_seed(0)\n"
    text += "    return torch.nn.Linear(64, 64).eval(), (torch.randn(3, 64),)\n"
    Path("linear.py").write_text(text)
    words = ["linear.py:build", "--target", "neoverse-n1", "--precision", "int8"]
    done = CliRunner().invoke(app, ["diff", *words])
    assert done.exit_code == 0 and "alone" in done.stdout and "linear" in done.stdout
    (read,) = json.loads(CliRunner().invoke(app, ["diff", *words, "--json"]).stdout)
    assert {row["op"] for row in read["ops"]} == {"go.quantize_rows", "go.linear"}
    assert CliRunner().invoke(app, ["bisect", *words]).exit_code == 0
    done = CliRunner().invoke(app, ["bisect", *words, "--tolerance", "1e-5", "-o", "f.py"])
    assert done.exit_code == 1 and "quantize_weights is the first" in done.stdout
    assert "from graphopt.inspection" in Path("f.py").read_text()
