"""Switches in the environment: every pass can be named, and what cannot be meant is refused."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from graphs import Array, Maker, X, mul
from torch import nn

import graphopt
from graphopt.codegen.emit import emit_module
from graphopt.compiler.pipeline import (
    PassManager,
    UnusedSwitchWarning,
    lowering_passes,
    pass_names,
    placement_passes,
    precision_passes,
)
from graphopt.config import Config, UnknownSwitchWarning
from graphopt.errors import SwitchError
from graphopt.frontend.capture import capture
from graphopt.ir.interpret import run_graph
from graphopt.ir.ops import Im2col
from graphopt.ir.verify import REQUIRED
from graphopt.target import find_target
from graphopt.testing import relative_error

pytestmark = pytest.mark.usefixtures("captured_once")
NAMES = pass_names()
TARGET = find_target("neoverse-n2")
BOUND = 0.15  # of int4 weights in groups of 32 behind random ones


def cases() -> list[tuple[str, str, int]]:
    """Names of passes, each with the precisions and bits of activations that make a difference."""
    found = [(step.name, "int8+bf16", 8) for step in lowering_passes()]
    for precision, bits in (("int8+bf16", 8), ("int4", 16)):
        steps = [*precision_passes(precision, 32, bits), *placement_passes(TARGET)]
        found += [(step.name, precision, bits) for step in steps]
    return list(dict.fromkeys(found))


class Model(nn.Module):
    """Something for every pass: convolutions, attention, a tied table, constants, views."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(32, 64, 3, padding=1)
        self.depthwise = nn.Conv1d(64, 64, 3, padding=1, groups=64)
        self.norm = nn.LayerNorm(64)
        self.q, self.up, self.down = nn.Linear(64, 64), nn.Linear(64, 128), nn.Linear(128, 64)
        self.table, self.head = nn.Embedding(32, 64), nn.Linear(64, 32, bias=False)
        self.head.weight = self.table.weight
        self.register_buffer("place", torch.randn(1, 64))

    def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = self.conv(x.transpose(1, 2))
        h = (h + self.depthwise(h)).transpose(1, 2) + self.table(tokens) + self.place * 2.0
        q = self.q(self.norm(h)).view(*h.shape[:2], 4, 16).transpose(1, 2)
        h = h + F.scaled_dot_product_attention(q, q, q).transpose(1, 2).reshape(h.shape)
        h = h + self.down(F.relu(self.up(self.norm(h))))
        return self.head(h), torch.sigmoid(h) * 2


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return Model().eval()


def planned(model: nn.Module, precision: str, bits: int, **switches: object) -> list[Array]:
    """The results in numpy once numbers are narrow; then the graph is placed and emitted."""
    x, tokens = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(1)), torch.arange(7)
    tokens = tokens.repeat(2, 1)
    graph = capture(model, (x, tokens), {}, None).graph
    manager = PassManager(Config(verify=True, **switches))  # type: ignore[arg-type]
    manager.run(graph, [*lowering_passes(), *precision_passes(precision, 32, bits)])
    results = run_graph(graph, [x.numpy(), tokens.numpy()])
    manager.run(graph, placement_passes(TARGET))
    assert all(node.kernel for node in graph.nodes)
    assert all(n.output.packed for n in graph.nodes if isinstance(n.op, Im2col)), (
        "it has no other C"
    )
    assert "run(" in emit_module(graph, TARGET.arch).source
    return results


@pytest.fixture(scope="module")
def exact(model: nn.Module) -> list[Array]:
    return planned(model, "fp32", 8)


def test_every_pass_has_a_case() -> None:
    assert {name for name, *_ in cases()} == set(NAMES)


@pytest.mark.parametrize("name, precision, bits", cases())
def test_every_pass_can_be_the_last(
    name: str, precision: str, bits: int, model: nn.Module, exact: list[Array]
) -> None:
    for got, wanted in zip(planned(model, precision, bits, stop_after=name), exact, strict=True):
        assert relative_error(got, wanted) < BOUND


@pytest.mark.parametrize("name, precision, bits", [c for c in cases() if c[0] not in REQUIRED])
def test_every_other_pass_can_be_left_out(
    name: str, precision: str, bits: int, model: nn.Module, exact: list[Array]
) -> None:
    skipped = planned(model, precision, bits, skip=frozenset({name}))
    for got, wanted in zip(skipped, exact, strict=True):
        assert relative_error(got, wanted) < BOUND


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_passes_that_cannot_be_left_out(name: str) -> None:
    with pytest.raises(SwitchError, match=f"SKIP='{name}'.*left out are .*fuse_attention") as error:
        PassManager(Config(skip=frozenset({"fuse_epilogue", name})))
    assert name not in str(error.value).partition("are ")[2]


@pytest.mark.parametrize("switch", ["GRAPHOPT_SKIP", "GRAPHOPT_STOP_AFTER"])
def test_a_misspelt_pass_is_refused(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(switch, "fuse_epilog")
    with pytest.raises(SwitchError, match=f"{switch}='fuse_epilog'.*near it are fuse_epilogue"):
        graphopt.optimize(nn.Linear(2, 2).eval(), example_inputs=(torch.zeros(1, 2),))


@pytest.mark.parametrize("switch", ["skip", "stop_after"])
def test_a_pass_that_a_precision_does_not_have(switch: str) -> None:
    names = {"skip": frozenset({"fuse_quantize"}), "stop_after": "fuse_quantize"}
    manager = PassManager(Config(**{switch: names[switch]}))  # type: ignore[arg-type]
    m = Maker()
    graph = m.output(m.pointwise(mul(X, 2.0), m.input("x", "B", 4)))
    manager.run(graph, [*lowering_passes(), *precision_passes("fp32")])
    with pytest.warns(UnusedSwitchWarning, match="=fuse_quantize has no effect"):
        manager.warn_of_unused()


@pytest.mark.parametrize(
    "name, value",
    [
        ("GRAPHOPT_DEBUG", "abc"),
        ("GRAPHOPT_DEBUG", "9"),
        ("GRAPHOPT_DEBUG", "-1"),
        ("GRAPHOPT_DEBUG", "1.5"),
        ("GRAPHOPT_VERIFY", "yes"),
        ("GRAPHOPT_SERIAL_CONV", "2"),
    ],
)
def test_wrong_values(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SwitchError, match=f"{name}='{value}'"):
        Config.from_environment()


def test_switches_that_are_none_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownSwitchWarning)
        Config.from_environment()
    monkeypatch.setenv("GRAPHOPT_VERYFY", "1")
    with pytest.warns(UnknownSwitchWarning, match=r"GRAPHOPT_VERYFY.*did you mean GRAPHOPT_VERIFY"):
        Config.from_environment()


def test_a_dump_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SwitchError, match="GRAPHOPT_DUMP"):
        PassManager(Config(dump=file)).run(Maker().graph, [])


def test_c_is_shown_by_save_alone_and_for_other_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAPHOPT_DEBUG", "4")
    monkeypatch.setenv("GRAPHOPT_DUMP", str(tmp_path / "dump"))
    fast = graphopt.optimize(
        nn.Linear(3, 3).eval(), "neoverse-n1", (torch.zeros(2, 3),), precision="fp32"
    )
    fast.save(tmp_path / "m.gopt")
    shown = capfd.readouterr().err
    written = (tmp_path / "m.gopt/module.c").read_text()
    assert written in shown and shown.count("Linear: built ") == 2
    assert (tmp_path / "dump/Linear/module_aarch64.c").read_text() == written
    np.testing.assert_array_equal(fast(torch.zeros(2, 3)).shape, (2, 3))
    assert (tmp_path / "dump/Linear/module_x86_64.c").is_file()
    memory = (tmp_path / "dump/Linear/plan_memory_aarch64.txt").read_text()
    assert memory.startswith("# after plan_memory\n") and "Linear: plan_memory: " in shown
