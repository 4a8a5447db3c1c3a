"""Conditions on a plan: they parse or are refused, hold or name the nodes because of which not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from graphopt.cli import app
from graphopt.errors import OptionError
from graphopt.inspection import Planned, check, planned
from graphopt.inspection.requirements import parse_requirements
from graphopt.kernels.registry import Level
from tests.support.models import Partly


class Mixed(nn.Module):
    """Two products that become int8 and one that is too small."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.back, self.small = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.small(torch.relu(self.back(torch.relu(self.wide(x)))))


@pytest.fixture(scope="module")
def mixed() -> list[Planned]:
    return planned(Mixed().eval(), "neoverse-n2", "int8", (torch.zeros(3, 64),))


def test_what_holds(mixed: list[Planned]) -> None:
    verdict = check(mixed, "int8>=95%, fallback=0 ,compiled=100%,portable==0")
    assert verdict.holds and not verdict.misses
    whole = 2 * 64 * 64 + 64 * 4
    assert verdict.found["int8>=95%"] == pytest.approx(100 * 2 * 64 * 64 / whole)


def test_a_node_that_misses_is_named_with_the_reason(mixed: list[Planned]) -> None:
    verdict = check(mixed, "int8>=99%,fallback=0")
    assert not verdict.holds and verdict.unmet == ("int8>=99%",)
    (miss,) = verdict.misses
    assert (miss.module, miss.op) == ("small", "go.linear")
    assert "kept in float: 64 x 4 is too small" in miss.why and miss.share == pytest.approx(
        3.03, 0.01
    )


def test_a_kernel_that_is_taken_away_is_found(
    mixed: list[Planned], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Level.kernel

    def portable(self: Level, generic: str) -> object:
        found = kernel(self, generic)
        if generic != "go_gemm_qa8":
            return found
        return replace(found, symbol="go_gemm_of_scalar", source="scalar/gemm_qa8.c")

    monkeypatch.setattr(Level, "kernel", portable)
    verdict = check(mixed, "portable=0")
    assert {miss.module for miss in verdict.misses} == {"wide", "back"}
    assert "go_gemm_of_scalar is portable C" in verdict.misses[0].why


def test_nodes_of_torch_and_modules_in_python() -> None:
    x = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    verdict = check(
        planned(Partly().eval(), "neoverse-n1", "fp32", (x,)), "fallback=0,compiled=100%"
    )
    assert verdict.found["fallback=0"] == 1 and verdict.found["compiled=100%"] < 100
    assert {miss.node for miss in verdict.misses} == {"special_i0e"}
    assert "no rule for aten.special_i0e" in verdict.misses[0].why
    assert ".py:" in verdict.misses[0].source


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("int9>=1%", "portable"),
        ("int8>=95", "end it with %"),
        ("fallback=0%", "leave out the %"),
        ("int8", "int8>=95%"),
        ("", "int8>=95%"),
        ("int8=>9%", "int8>=95%"),
    ],
)
def test_other_conditions_are_refused(text: str, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        parse_requirements(text)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "import torch\ndef build():\n"
    text += "    return torch.nn.Linear(64, 4).eval(), (torch.randn(3, 64),)\n"
    Path("tiny_linear.py").write_text(text)
    words = ["check", "tiny_linear:build", "--target", "neoverse-n2", "--precision", "int8"]
    assert CliRunner().invoke(app, [*words, "--require", "fallback=0"]).exit_code == 0
    done = CliRunner().invoke(app, [*words, "--require", "int8>=95%"])
    assert done.exit_code == 1 and "too small" in done.stdout
    done = CliRunner().invoke(app, [*words, "--require", "int8>=95%", "--json"])
    assert done.exit_code == 1 and json.loads(done.stdout)["misses"][0]["op"] == "go.linear"
    assert CliRunner().invoke(app, [*words, "--require", "int7>=5%"]).exit_code == 1
