"""The graph after each pass as text and files, by the command line and from Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from graphopt.cli import app
from graphopt.errors import InspectionError, OptionError, UnknownModelError, UnknownStageError
from graphopt.inspection import Planned, planned
from graphopt.inspection.dumps import chosen, difference, stages_after
from graphopt.inspection.export import export_text, node_data, overlays_of
from graphopt.inspection.models import planned_by_name
from graphopt.inspection.onnx_file import to_onnx
from tests.support.models import network

MODEL = """
import torch

def build():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 48), torch.nn.ReLU(), torch.nn.Linear(48, 8))
    return model.eval(), (torch.randn(3, 32),)
"""


@pytest.fixture(scope="module")
def graph() -> Planned:
    (found,) = planned(network(), "neoverse-n1", "int8", (torch.zeros(1, 3, 48),))
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "small.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str, fails: bool = False) -> str:
    done = CliRunner().invoke(app, words)
    assert (done.exit_code != 0) == fails, (done.output, done.exception)
    return done.stdout


def test_fsmn_vad_after_each_pass(golden: Callable[[str, str], None]) -> None:
    """As it was captured, and what each pass that changed something made of it."""
    pytest.importorskip("funasr")
    (vad,) = planned_by_name("fsmn-vad", "neoverse-n1", "int8")
    changed = stages_after(vad.stages, "all")
    parts = [changed[0].text]
    for before, after in pairwise(changed):
        parts.append(difference(vad.stages, before.name, after.name))
    golden("fsmn_vad_passes", "\n".join([*parts, changed[-1].text]))


def test_text_only_where_something_changed(graph: Planned) -> None:
    text = export_text(stages_after(graph.stages, "all"), "text", {})
    shown = [line.removeprefix("# after ") for line in text.splitlines() if line[:7] == "# after"]
    assert shown == [stage.name for stage in graph.stages if stage.changed]
    assert "fuse_norm" not in shown and "fuse_quantize" in shown
    with pytest.raises(UnknownStageError, match="fuse_norms"):
        stages_after(graph.stages, "fuse_norms")


def test_a_difference_shows_what_a_pass_did_and_no_renumbering(graph: Planned) -> None:
    lines = difference(graph.stages, "fold_scales", "fuse_epilogue").splitlines()
    assert [line for line in lines if line.startswith("-")][1:] == [
        "-    linear = go.linear(input, weight=0.weight, bias=0.bias)  # f32[B, T, 64]  0",
        "-    gelu = go.pointwise(linear, expr=gelu_erf(x0))  # f32[B, T, 64]  1",
    ]
    assert difference(graph.stages, "fuse_epilogue", "fuse_pointwise") == ""


def test_onnx_holds_all_that_the_graph_does(graph: Planned) -> None:
    stage = graph.stages["quantize_weights"]
    model = to_onnx(stage)
    onnx.checker.check_model(model)
    assert [node.name for node in model.graph.node] == [row.name for row in stage.nodes]
    assert {node.domain for node in model.graph.node} == {"graphopt"}
    linear = next(node for node in model.graph.node if node.name == "linear_1")
    assert linear.op_type == "linear" and linear.output[0] == model.graph.output[0].name
    notes = {entry.key: entry.value for entry in linear.metadata_props}
    assert notes["module"] == "3" and "int8" in notes["reasons"]
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    wanted = next(v for v in stage.graph.constants() if v.name == "0.weight")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(weights["0.weight"]), wanted.data)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["B", "T", 48]
    aten = to_onnx(graph.stages["capture"])
    assert {node.domain for node in aten.graph.node} == {"aten"}


def test_networks_use_the_names_of_dumps(graph: Planned) -> None:
    stage = graph.stages["fuse_epilogue"]
    read = nx.parse_graphml(export_text([stage], "graphml", {}))
    assert {data["value"] for *_, data in read.edges(data=True)} >= {"gelu", "layer_norm"}
    assert "digraph" in export_text([stage], "dot", {})
    with pytest.raises(OptionError, match="one graph"):
        export_text([stage, stage], "dot", {})


def test_model_explorer(graph: Planned) -> None:
    """The fields of its `Graph` and `GraphNodeData`; ids of edges are those of nodes."""
    stage = graph.stages["select_kernels"]
    overlays = overlays_of(stage)
    collection = json.loads(export_text([stage], "model-explorer", overlays))
    assert collection["label"] == "Sequential"
    (shown,) = collection["graphs"]
    nodes = {node["id"]: node for node in shown["nodes"]}
    assert set(nodes) == {"input", *(row.name for row in stage.nodes), "outputs"}
    edges = [edge for node in nodes.values() for edge in node["incomingEdges"]]
    assert {edge["sourceNodeId"] for edge in edges} == set(nodes) - {"outputs"}
    linear = nodes["linear_1"]
    assert linear["namespace"] == "3" and linear["label"] == "linear"
    assert {"key": "precision", "value": "int8"} in linear["attrs"]
    data = json.loads(node_data("kernel", {stage.name: overlays["kernel"]}))
    assert set(data[stage.name]["results"]) <= set(nodes)
    assert data[stage.name]["results"]["linear_1"] == {"value": "go_gemm_qa8"}
    colours = json.loads(node_data("error", {stage.name: {"linear_1": 0.5}}))
    assert [stop["stop"] for stop in colours[stage.name]["gradient"]] == [0, 1]


def test_the_command(folder: Path) -> None:
    common = ["dump", "small.py:build", "--target", "neoverse-n1", "--precision", "fp32"]
    whole = run(*common)
    assert whole.startswith("# after capture\n") and whole.rstrip().endswith("return linear_1")
    assert run(*common, "--after", "fuse_epilogue").count("go.linear") == 2
    assert "+    relu = go.linear" in run(*common, "--diff", "lower_aten", "fuse_epilogue")
    read = json.loads(run(*common, "--json", "--after", "select_kernels"))
    (node,) = (n for n in read[0]["stages"][0]["nodes"] if n["name"] == "relu")
    assert node["kernel"] == "go_gemm_f32" and node["operands"]["x"] == "input"
    run(*common, "--format", "onnx", "--out", "dumps")
    written = sorted(path.name for path in (folder / "dumps" / "Sequential").iterdir())
    assert written[0] == "00_capture.onnx" and written[-1].endswith("_select_kernels.onnx")
    run(*common, "--format", "onnx", fails=True)
    run(*common, "--format", "model-explorer", "--after", "lower_aten", "-o", "a.json")
    assert (folder / "a.json").exists() and (folder / "a.kernel.json").exists()
    run(*common, "--format", "dot", "-o", "a.dot", fails=True)


def test_models_have_one_way_to_be_named(folder: Path) -> None:
    (by_file,) = planned_by_name("small.py:build", "neoverse-n1", "fp32")
    (by_module,) = planned_by_name("small:build", "neoverse-n1", "fp32")
    assert [s.text for s in by_file.stages] == [s.text for s in by_module.stages]
    np.save("x.npy", np.ones((7, 32), np.float32))
    (given,) = planned_by_name("small:build", "neoverse-n1", "fp32", [Path("x.npy")])
    assert given.example()[0].shape == (7, 32)
    for name in ("other.py:build", "nothing"):
        with pytest.raises(UnknownModelError, match=name.partition(":")[0]):
            planned_by_name(name, "native", "fp32")
    with pytest.raises(InspectionError, match="graphopt info"):
        planned_by_name("a.gopt", "native", "fp32")
    with pytest.raises(OptionError, match="give one of"):
        chosen([by_file], "asr")


def test_an_onnx_file(folder: Path) -> None:
    relu = onnx.helper.make_node("Relu", ["x"], ["y"], "act")
    sides = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in "xy"
    ]
    body = onnx.helper.make_graph([relu], "tiny", sides[:1], sides[1:])
    onnx.save(onnx.helper.make_model(body, ir_version=9), "tiny.onnx")
    (found,) = planned_by_name("tiny.onnx", "neoverse-n1", "fp32")
    assert [row.node.op.name for row in found.last.nodes] == ["go.pointwise"]
    with pytest.raises(InspectionError, match="--inputs"):
        found.example()
