"""`tune`: the fastest mix of precisions within a budget. Here work stands for time."""

import json
import math
import re
import shlex
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import graphopt
from graphopt.cli import app
from graphopt.compiler.program import Program
from graphopt.errors import InspectionError, OptionError, UnknownPrecisionError
from graphopt.inspection import tuning
from graphopt.inspection.budget import Budget
from graphopt.inspection.tune_chart import svg_chart, text_chart
from graphopt.testing import sqnr

SPEED = {"f32": 1, "bf16": 2, "int8": 4, "int4": 4.5}


PAGE = (Path(__file__).parents[2] / "docs" / "tune.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.M | re.S)
SOURCE = BLOCKS[0][1]  # a stack of products; what the second one reads has huge channels


def build() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    scope: dict[str, Any] = {"__name__": "outliers"}
    exec(SOURCE, scope)
    model, inputs = scope["build"]()
    return model, inputs


@pytest.fixture(autouse=True)
def work_is_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A step takes its multiply-adds over the speed of its format; all else nothing."""

    def times(program: Program, inputs: Any) -> dict[str, float]:
        found: dict[str, float] = defaultdict(float)
        for row in program.work(inputs):
            found[row["module"]] += row["macs"] / SPEED.get(row.get("scheme", ""), 1)
        return found

    monkeypatch.setattr(tuning, "_layer_times", times)
    monkeypatch.setattr(tuning, "_milliseconds", lambda *given: sum(times(*given).values()))
    yield


def test_outliers_that_int8_breaks_are_repaired(tmp_path: Path) -> None:
    model, inputs = build()
    found = graphopt.tune(model, inputs, "sqnr>=25dB", precisions=("fp32", "int8"))
    fp32, int8 = found.whole
    assert int8.value < 15 and not int8.holds  # plain int8 breaks it
    chosen = {layer.module: layer.chosen for layer in found.layers}
    assert chosen == {
        "layers.0": "int8",
        "layers.1": "fp32",
        "layers.2": "int8",
        "head": "fp32",  # too narrow for int8
    }
    assert found.plan == graphopt.PrecisionPlan("int8", {"layers.1": "fp32"})
    assert found.best.value >= 25 and found.best.ms < fp32.ms / 1.5

    file = tmp_path / "plan.toml"
    file.write_text(found.text(), encoding="utf-8")
    fast = graphopt.optimize(model, example_inputs=inputs, plan=file)
    with torch.no_grad():
        right = model(*inputs).numpy()
    assert sqnr(fast(*inputs).numpy(), right) == pytest.approx(found.best.value, abs=0.1)
    assert "layers.1" in found.text() and "dB" in found.text().splitlines()[-1]

    chart = text_chart(found).splitlines()
    assert max(map(len, chart)) <= 80 and any("*" in line for line in chart[:-1])
    drawn = ElementTree.fromstring(svg_chart(found))
    circles = [node for node in drawn.iter() if node.tag.endswith("circle")]
    assert len(circles) == len(found.tried) + len(found.whole)
    shown = json.loads(json.dumps(found.as_dict()))
    assert shown["best"]["plan"]["layers"] == {"layers.1": "fp32"}


def test_a_measure_of_the_user_decides() -> None:
    model, inputs = build()
    seen: list[str] = []

    def errors(fast: Any) -> float:
        seen.append(fast.options.precision)
        return float("int8" in {row.precision for row in fast.report() if "layers.0" in row.module})

    found = graphopt.tune(model, inputs, "errors<=+0", errors, precisions=("fp32", "int8"))
    chosen = [layer.module for layer in found.layers if layer.chosen == "fp32"]
    assert chosen == ["layers.0", "head"] and seen[0] == "fp32"
    with pytest.raises(InspectionError, match="fp32 itself has 0"):
        graphopt.tune(model, inputs, "errors>=1", errors, precisions=("fp32",))


def test_what_the_page_shows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("outliers.py").write_text(SOURCE, encoding="utf-8")
    of = {kind: [text for k, text in BLOCKS if k == kind] for kind, _ in BLOCKS}
    command = shlex.split(of["sh"][0])[1:]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    layers = [line.split("\u2502")[1].strip() for line in lines if "\u2502" in line]
    assert layers == ["layers.0", "layers.1", "layers.2", "head", "ms", "sqnr"]
    assert all(f"\u2502 {layer} " in of["text"][0] for layer in layers)
    written, shown = (tomllib.loads(t) for t in (Path("plan.toml").read_text(), of["toml"][0]))
    assert written == shown == {"precision": "int8", "layers": {"layers.1": "fp32"}}
    assert Path("tune.svg").read_text().startswith("<svg")
    exec(of["python"][1], {})
    assert capsys.readouterr().out == of["text"][1]


@pytest.mark.parametrize(
    "text, match",
    [
        ("sqnr", "sqnr>=30dB"),
        ("sqnr<=30dB", "give sqnr>=..."),
        ("kl<=0.1dB", "not in dB"),
        ("sqnr>=+30dB", "leave out the sign"),
        ("cer<=0.1", "metric= of your own"),
        ("top1>=1.2.3", "no number"),
    ],
)
def test_a_budget_that_is_none_is_refused(text: str, match: str) -> None:
    with pytest.raises(OptionError, match=match.replace("+", r"\+")):
        Budget.of(text)


def test_other_precisions_and_functions_are_refused() -> None:
    model, inputs = build()
    with pytest.raises(UnknownPrecisionError, match="int3"):
        graphopt.tune(model, inputs, precisions=("int3",))
    with pytest.raises(OptionError, match=r"metric=.*got, reference"):
        graphopt.tune(model, inputs, "m<=1", metric=lambda a, b, c: 0.0)
    with pytest.raises(InspectionError, match="example inputs"):
        graphopt.tune(model)


def test_measures() -> None:
    reference = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32))
    got = np.log(np.array([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]], np.float32)) + 3
    kl = (0.5 * math.log(2) - 0.25 * math.log(2)) / 2
    assert Budget.of("kl<=0.1").worst([got], [reference]) == pytest.approx(kl, abs=1e-6)
    assert Budget.of("top1>=50%").worst([got], [reference]) == 0.5
    ids = np.array([1, 2, 3, 4])
    assert Budget.of("top1>=0.5").worst([ids + (ids > 3)], [ids]) == 0.75
    sqnr30 = Budget.of(" SQNR >= 30 dB ".lower())
    assert sqnr30.worst([ids + 1], [ids]) == math.inf  # whole numbers are not judged
    assert sqnr30.worst([got[:1]], [reference]) == -math.inf
    cer = Budget.of("cer<=+0.2%", metric=lambda fast: 0.0)
    assert cer.holds(0.0319, 0.03) and not cer.holds(0.0321, 0.03)
