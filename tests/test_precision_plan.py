"""Plans of precisions: each entry decides what it names, or is refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import graphopt
from graphopt.compiler.precision_plan import PrecisionPlan
from graphopt.errors import OptionError, PlanError
from graphopt.inspection import planned
from graphopt.ir.ops import Linear, QuantizeRows
from graphopt.target import find_target


class Block(nn.Module):
    """A residual block, a convolution and a head that is too narrow for int8."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.ffn = nn.LayerNorm(64), nn.Sequential(nn.Linear(64, 128), nn.ReLU())
        self.down, self.head = nn.Linear(128, 64), nn.Linear(64, 4)
        self.conv = nn.Conv1d(64, 64, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.down(self.ffn(self.norm(x)))
        x = x + self.conv(x.mT).mT
        return self.head(x)


class Branching(nn.Module):
    """Runs in Python around its block."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.last = Block(), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.block(x)
        return self.last(y) if y.mean() > 1e6 else y


torch.manual_seed(0)
MODEL, X = Block().eval(), torch.randn(2, 10, 64)


def formats(plan: dict[str, Any]) -> dict[str, str]:
    """The format of each product of the planned graph."""
    (graph,) = planned(MODEL, "neoverse-n2", "auto", (X,), plan=plan)
    return {
        row.node.origin.module: str(row.node.op.decided)
        for row in graph.last.nodes
        if isinstance(row.node.op, Linear)
    }


def test_every_layer_gets_its_precision() -> None:
    plan = {"precision": "int8", "layers": {"ffn": "fp32", "conv": "bf16"}}
    got = formats(plan)
    assert got == {"ffn.0": "f32", "down": "int8", "conv": "bf16", "head": "f32"}
    got = formats({"precision": "fp32", "layers": {"ffn.0": "int4", "conv": "int8"}})
    assert got == {"ffn.0": "int4", "down": "f32", "conv": "int8", "head": "f32"}


def test_a_whole_precision_is_a_plan_without_layers() -> None:
    texts = []
    for given in ({"precision": "int8+bf16"}, {"plan": {"precision": "int8+bf16"}}):
        options = {"precision": "auto", **given}
        (graph,) = planned(MODEL, "neoverse-n2", example_inputs=(X,), **options)
        texts.append(graph.last.text)
    assert texts[0] == texts[1] and "qa8r" in texts[0] and "bf16" in texts[0]


def test_a_layer_in_fp32_neither_quantizes_nor_stores_bf16() -> None:
    plan = {"precision": "bf16", "layers": {"ffn": "fp32", "down": "fp32"}}
    (graph,) = planned(MODEL, "neoverse-n2", "auto", (X,), plan=plan)
    rows = {row.node.origin.module: row.node for row in graph.last.nodes}
    assert {rows[name].output.dtype.value for name in ("ffn.0", "down")} == {"f32"}
    assert not any(isinstance(row.node.op, QuantizeRows) for row in graph.last.nodes)


@pytest.mark.parametrize(
    "plan, match",
    [
        ({"layers": {"fnn": "int8"}}, "'fnn'.*no such module; near it are.*ffn"),
        ({"layers": {"head": "int8"}}, "'head'.*in f32.*64 x 4 is too small"),
        ({"layers": {"norm": "int8"}}, "'norm'.*no product of weights"),
        ({"layers": {"ffn": "int8", "ffn.0": "fp32"}}, "'ffn'.*other entries leave"),
        ({"layers": {"ffn": "int9"}}, "'ffn' = 'int9'.*fp32, bf16"),
        ({"layers": {"ffn": 8}}, "'ffn' = 8.*fp32, bf16"),
        ({"layers": ["ffn"]}, "table of layers"),
        ({"precision": "half"}, "'precision' = 'half'.*fp32, bf16"),
        ({"precisions": "int8"}, "'precisions'.*precision and layers"),
        ("missing.toml", "'missing.toml': No such file"),
        (7, "'int': give the path"),
    ],
)
def test_what_decides_nothing_is_refused_by_name(plan: Any, match: str) -> None:
    with pytest.raises(PlanError, match=match):
        planned(MODEL, "neoverse-n2", "auto", (X,), plan=plan)
        graphopt.optimize(MODEL, "neoverse-n2", plan=plan)


def test_a_precision_stands_in_the_plan_or_beside_it() -> None:
    with pytest.raises(OptionError, match=r"precision='bf16'.*leave out one"):
        graphopt.optimize(MODEL, precision="bf16", plan={"precision": "int8"})
    fast = graphopt.optimize(MODEL, "neoverse-n2", precision="bf16", plan={"layers": {}})
    assert fast.options.precision == "bf16"


def test_a_plan_is_a_file_that_a_person_can_edit(tmp_path: Path) -> None:
    plan = PrecisionPlan("int8", {"a.b": "fp32", 'odd "name"\\': "bf16"})
    file = tmp_path / "plan.toml"
    file.write_text(plan.text("of a model\n\nmeasured", {"a.b": "20 dB"}), encoding="utf-8")
    assert PrecisionPlan.of(file) == plan
    assert file.read_text(encoding="utf-8").splitlines()[:2] == ["# of a model", "#"]
    file.write_text("[layers]\nencoder.0.w = 'int4'\n", encoding="utf-8")
    assert PrecisionPlan.of(str(file)) == PrecisionPlan(layers={"encoder.0.w": "int4"})
    file.write_text("[layers\n", encoding="utf-8")
    with pytest.raises(PlanError, match=r"plan.toml': .*TOML file"):
        PrecisionPlan.of(file)


def test_submodules_of_a_model_in_python_have_their_part_of_the_plan() -> None:
    plan = {"precision": "int8", "layers": {"block.ffn": "fp32", "block.conv": "fp32"}}
    model = Branching().eval()
    fast = graphopt.optimize(model, "neoverse-n2", (X,), plan=plan)
    kinds = {row.module: row.precision for row in fast.report() if row.precision}
    assert kinds["block.ffn.0"] == kinds["block.conv"] == "f32" and kinds["block.down"] == "int8"
    with pytest.raises(PlanError, match=r"'block\.norm'"):
        graphopt.optimize(model, "neoverse-n2", (X,), plan={"layers": {"block.norm": "int8"}})


def test_names_above_a_layer_decide_and_the_longest_wins() -> None:
    plan = PrecisionPlan("int8", {"a": "bf16", "a.b.c": "fp32"})
    found = [plan.precision_of(name) for name in ("a.b.c", "a.b.cd", "a", "ab", "")]
    assert found == ["fp32", "bf16", "bf16", "int8", "int8"]
    assert plan.within("a.b") == PrecisionPlan("bf16", {"c": "fp32"})
    assert plan.name == "fp32,bf16,int8"


def test_an_onnx_model_takes_a_plan() -> None:
    onnx = pytest.importorskip("onnx")
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="/enc/first"),
        helper.make_node("MatMul", ["y", "w"], ["z"], name="/enc/second"),
    ]
    ports = [helper.make_tensor_value_info(name, kind, ["n", 64]) for name in "xz"]
    constant = onnx.numpy_helper.from_array(weight, "w")
    model = helper.make_model(helper.make_graph(nodes, "g", ports[:1], ports[1:], [constant]))
    fast = graphopt.optimize(model, "neoverse-n2", plan={"layers": {"enc.first": "fp32"}})
    assert [row.precision for row in fast.report() if row.precision] == ["f32", "int8"]
    with pytest.raises(PlanError, match=r"'enc\.third'.*enc\.first"):
        graphopt.optimize(model, "neoverse-n2", plan={"layers": {"enc.third": "fp32"}})


def test_auto_in_a_plan_is_the_precision_of_the_target() -> None:
    auto = find_target("neoverse-n2").precision("auto")
    fast = graphopt.optimize(MODEL, "neoverse-n2", plan={"precision": "auto"})
    assert fast.options.precision == auto
