"""The page of `graphopt inspect`: its data, its places, its bundle, and what it may do."""

import base64
import gzip
import hashlib
import html
import importlib.util
import json
import re
import shutil
from itertools import accumulate, chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import graphopt
from graphopt.cli import app
from graphopt.compiler.stages import Stages
from graphopt.errors import StorageError
from graphopt.inspection.page import measures
from graphopt.inspection.page.html import bundle, render_page
from graphopt.inspection.page.layout import Drawn, layouts
from graphopt.inspection.page.package import write_package_page
from graphopt.inspection.profiling.roofs import Roofs
from graphopt.ir.interpret import run_graph
from graphopt.output_files import check_file
from graphopt.testing import relative_error
from tests.support import language_models

ROOT = Path(__file__).parents[2]
ROOFS = Roofs(2, {"f32": 1e9, "int8": 4e9}, memory=1e9, cache=1e10)


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("page_build", ROOT / "page" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(32), nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


@pytest.fixture(scope="module")
def compiled() -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block()).eval()
    with graphopt.keep_stages():
        return graphopt.optimize(model, precision="int8", example_inputs=(torch.randn(2, 5, 32),))


@pytest.fixture(scope="module")
def page(compiled: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "measure_roofs", lambda threads: ROOFS)
        assert compiled.inspect(path) == path
    return path.read_text("utf-8")


def test_roofs_and_threads(data: dict[str, Any]) -> None:
    assert (data["roofs"]["gmacs"], data["roofs"]["gbytes"]) == (4.0, 10.0)  # most is int8
    steps = {key for key, *_ in data["steps"]}
    assert data["timeline"] and {key for _, key, *_ in data["timeline"]} <= steps
    ends: dict[int, float] = {}
    for thread, _, begun, length in data["timeline"]:
        assert length > 0 and begun >= ends.get(thread, 0.0) - 0.01  # rounded to nanoseconds
        ends[thread] = begun + length


def test_a_speed_up_that_nobody_can_tell_is_not_told() -> None:
    steady = [(1.0, 2.0 + 0.1 * i) for i in range(5)]
    assert measures.speed_up(steady) == ("2.20x", "half of 5 turns lie between 2.10 and 2.30")
    figure, note = measures.speed_up([(1.0, 2.0), (1.0, 9.0), (3.0, 2.0), (1.0, 5.0), (1.0, 1.0)])
    assert figure == "" and "too busy" in note


@pytest.fixture(scope="module")
def data(page: str) -> dict[str, Any]:
    return data_of(page)


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'id="report">([^<]*)<', page)
    assert found is not None
    text = gzip.decompress(base64.b64decode(found[1]))
    decoded: dict[str, Any] = json.loads(text)
    return decoded


def rows_of(data: dict[str, Any]) -> list[list[int]]:
    """The rows of every stage, as the page finds them."""
    rows: list[list[int]] = []
    for stage in data["stages"]:
        given = stage["nodes"]
        rows.append(rows[stage["before"]] if given is None else list(accumulate(given)))
    return rows


def test_the_page_has_every_node_of_every_stage(compiled: Any, data: dict[str, Any]) -> None:
    (stages,) = compiled.stages()
    nodes, strings, keys = data["nodes"], data["strings"], data["keys"]
    assert [s["pass"] for s in data["stages"]] == list(stages.names)
    for stage, rows in zip(stages, rows_of(data), strict=True):
        ops = [(keys[nodes["key"][r]], strings[nodes["op"][r]]) for r in rows]
        inside = [(name, op) for name, op in ops if op not in ("input", "output")]
        assert inside == [(row.name, row.node.op.name) for row in stage.nodes]
        shown = {keys[nodes["key"][r]]: r for r in rows}
        for row in stage.nodes:
            texts = [strings[nodes[column][shown[row.name]]] for column in ("text", "type")]
            assert texts == [row.call, row.types]


def test_a_node_has_a_new_row_where_a_pass_changed_it(compiled: Any, data: dict[str, Any]) -> None:
    (stages,) = compiled.stages()
    key = data["nodes"]["key"]
    rows = [{data["keys"][key[r]]: r for r in one} for one in rows_of(data)]
    changes = set()
    for number, stage in enumerate(stages):
        for row in stage.nodes if number else ():
            before = rows[number - 1].get(row.name)
            now = rows[number][row.name]
            found = "added" if before is None else "same" if before == now else "changed"
            assert found == row.change, (stage.name, row.name)
            changes.add(found)
    assert changes == {"added", "same", "changed"}


class InTorch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.last(y + torch.linalg.svd(y)[1][..., None])


def test_parts_between_nodes_of_torch_are_graphs_of_their_own(tmp_path: Path) -> None:
    fast = graphopt.optimize(InTorch().eval(), example_inputs=(torch.randn(2, 8, 8),), check=False)
    data = data_of(fast.inspect(tmp_path / "p.html", measure=False).read_text("utf-8"))
    nodes, strings = data["nodes"], data["strings"]
    ops = [[strings[nodes["op"][r]] for r in rows] for rows in rows_of(data)]
    begin = [n for n, stage in enumerate(data["stages"]) if "partition" in stage["pass"]]
    assert len(begin) == 2
    for number, inside in zip(begin, (["go.linear"], ["go.pointwise", "go.linear"]), strict=True):
        stage = data["stages"][number]
        assert stage["changed"] and stage["notes"] and "aten.linalg_svd" in ops[stage["before"]]
        assert [op for op in ops[number] if op in ("go.linear", "go.pointwise")] == inside
        assert "aten.linalg_svd" not in ops[number]
    assert len(data["steps"]) == sum(len(program.module.steps) for program in fast.programs())


def test_what_was_measured_is_of_the_nodes_that_run(compiled: Any, data: dict[str, Any]) -> None:
    (program,) = compiled.programs()
    key, keys = data["nodes"]["key"], data["keys"]
    last = [keys[key[r]] for r in rows_of(data)[-1]]
    steps = [keys[step] for step, *_ in data["steps"]]
    assert len(steps) == len(program.module.steps) and set(steps) <= set(last)
    assert [keys[k] for k in data["values"]["time"]["keys"]] == steps
    assert all(value > 0 for value in data["values"]["time"]["values"])
    macs = dict(zip(data["values"]["macs"]["keys"], data["values"]["macs"]["values"], strict=True))
    assert sum(macs.values()) == 2 * (2 * 5 * 32 * 64 + 2 * 5 * 64 * 32)
    for step, function, call in data["steps"]:
        text = data["functions"][function]
        assert re.match(r"\w+", call)[0] in text, step  # type: ignore[index]


def test_memory_that_is_shared_is_not_needed_at_once(data: dict[str, Any]) -> None:
    memory = data["memory"]
    lives = memory["lives"]
    assert lives and memory["unshared"] >= memory["arena"] > 0
    for number, (_, text, at, size, first, last) in enumerate(lives):
        assert at >= 0 and at + size <= memory["arena"] and first <= last
        for _, other, begin, room, start, end in lives[:number]:
            apart = last < start or end < first or at + size <= begin or begin + room <= at
            assert apart, (text, other)


def test_nothing_is_shown_that_was_not_measured(compiled: Any, tmp_path: Path) -> None:
    path = compiled.inspect(tmp_path / "plain.html", measure=False)
    data = data_of(path.read_text("utf-8"))
    assert "time" not in data["values"] and data["critical"] == []
    assert {"time", "timeline", "accuracy"} <= set(data["missing"])
    assert [f["value"] for f in data["facts"] if f["label"] == "Speed-up"] == [""]


def test_errors_are_those_of_the_graph_after_each_pass(compiled: Any, tmp_path: Path) -> None:
    path = compiled.inspect(tmp_path / "errors.html", measure=False, errors=True)
    data = data_of(path.read_text("utf-8"))
    (stages,), (example,) = compiled.stages(), compiled.options.example_inputs
    x = example.numpy()
    right = run_graph(stages["lower_aten"].graph, [x.copy()])[0]
    for stage, shown in zip(stages, data["stages"], strict=True):
        if stage.changed and stage.name not in ("capture", "lower_aten"):
            got = run_graph(stage.graph, [x.copy()])[0]
            assert float(shown["error"]) == pytest.approx(relative_error(got, right), 0.2, 1e-6)
            assert not shown["wrong"]
        elif not stage.changed:
            assert shown["error"] == ""
    narrow = [s["error"] for s in data["stages"] if s["pass"] == "quantize_weights"]
    assert float(narrow[0]) > 1e-4
    last = {data["nodes"]["key"][r] for r in rows_of(data)[-1]}
    measured = data["values"]["error"]["keys"]
    assert measured and set(measured) <= last
    assert [key for key, *_ in data["accuracy"]] == measured
    assert "accuracy" not in data["missing"] and data["facts"][1]["label"] == "Error"


def test_a_package_shows_what_it_holds(compiled: Any, tmp_path: Path) -> None:
    compiled.save(tmp_path / "net.gopt")
    inputs = [np.zeros((2, 5, 32), np.float32)]
    path = write_package_page(tmp_path / "net.gopt", tmp_path / "net.html", inputs)
    data = data_of(path.read_text("utf-8"))
    (stages,), (program,) = compiled.stages(), compiled.programs()
    nodes, strings, keys = data["nodes"], data["strings"], data["keys"]
    assert [s["pass"] for s in data["stages"]] == ["captured", "lowered", "planned"]
    ends = [stages[name] for name in ("capture", "eliminate_dead_code.4", stages.names[-1])]
    for stage, rows in zip(ends, rows_of(data), strict=True):
        ops = [strings[nodes["op"][r]] for r in rows]
        assert [op for op in ops if op not in ("input", "output")] == [
            row.node.op.name for row in stage.nodes
        ]
        read = sorted(len([k for _, k, _ in nodes["inputs"][r]]) for r in rows)
        made = [sum(not v.is_constant for v in row.node.inputs) for row in stage.nodes]
        assert read == sorted([0, 1, *made])
    planned = {keys[nodes["key"][r]]: r for r in rows_of(data)[-1]}
    assert len(data["steps"]) == len(program.module.steps) == len(data["values"]["time"]["keys"])
    for (key, function, call), step in zip(data["steps"], program.module.steps, strict=True):
        assert strings[nodes["op"][planned[keys[key]]]] == step.node.op.name
        assert strings[nodes["kernel"][planned[keys[key]]]] == step.node.kernel
        assert call.startswith(f"{step.function}(") and step.function in data["functions"][function]


def test_the_page_may_run_its_own_script_alone(page: str) -> None:
    policy = html.unescape(re.search(r'Policy" content="([^"]*)"', page)[1])  # type: ignore[index]
    assert policy.startswith("default-src 'none'; ")
    for kind, tag in (("script", "script"), ("style", "style")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert not re.search(r"(src|href)=(?!\"data:,\")", page.partition("<script")[0])


def test_a_name_cannot_become_markup(data: dict[str, Any]) -> None:
    evil = "</script><script>alert(1)</script>"
    page = render_page({**data, "model": {**data["model"], "name": evil}})
    assert evil not in page and data_of(page)["model"]["name"] == evil


def test_a_place_where_no_file_can_be_is_refused_at_once(compiled: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "page.html"):
        with pytest.raises(StorageError, match=r"it is a folder|file is no folder"):
            compiled.inspect(path, measure=False)
    check_file(tmp_path / "new" / "page.html")
    check_file(tmp_path / "file")


def chain_of(names: str) -> Drawn:
    return Drawn({name: [names[i - 1]] if i else [] for i, name in enumerate(names)})


def test_nodes_keep_their_places_from_pass_to_pass() -> None:
    graphs = [chain_of("abcdefgh"), chain_of("abcdefgh"), chain_of("abxdefgh"), chain_of("abdefgh")]
    (layout,) = layouts(graphs, [-1, 0, 1, 2])
    assert (layout.first, layout.last) == (0, 3)
    assert set(layout.places) == set("abcdefghx")
    assert layout.places["c"][1] == layout.places["x"][1]
    assert len(set(layout.places.values())) == 9


def test_a_graph_that_became_small_is_drawn_anew() -> None:
    graphs = [chain_of("abcdefghijklmnop"), chain_of("abp"), chain_of("abp"), chain_of("ab")]
    found = layouts(graphs, [-1, 0, 1, 2])
    # What is gone is still seen in the pass that removed it.
    assert [(one.first, one.last) for one in found] == [(0, 1), (2, 3)]
    assert len(found[1].places) == 3


def test_places_of_stages_follow_the_ways_of_the_data(compiled: Any) -> None:
    (stages,) = compiled.stages()
    graphs = [drawn(stages, number) for number in range(len(stages))]
    for layout in layouts(graphs, range(-1, len(graphs) - 1)):
        assert len(set(layout.places.values())) == len(layout.places)
        for graph in graphs[layout.first : layout.last + 1]:
            for name, reads in graph.reads.items():
                for read in reads:
                    assert layout.places[read][1] < layout.places[name][1]


def drawn(stages: Stages, number: int) -> Drawn:
    stage = list(stages)[number]
    maker = {value: row.name for row in stage.nodes for value in row.outputs}
    return Drawn(
        {row.name: [maker[v] for v in row.operands.values() if v in maker] for row in stage.nodes}
    )


def test_the_bundle_is_made_of_the_sources(build: ModuleType) -> None:
    for name in ("page.js", "page.css"):
        first = bundle(name).partition("\n")[0]
        assert first == f"/* sources {build.digest()} */", "run make page"


def test_the_bundle_is_small() -> None:
    assert sum(len(bundle(name).encode()) for name in ("page.js", "page.css")) <= 120_000


def test_the_sources_give_the_bundle(build: ModuleType, tmp_path: Path) -> None:
    if not build.ESBUILD.exists() or shutil.which("node") is None:
        pytest.skip("esbuild is not installed: make page")
    build.build(tmp_path)
    for name in ("page.js", "page.css"):
        assert (tmp_path / name).read_text("utf-8") == bundle(name)


def test_every_colour_has_a_dark_one() -> None:
    style = (ROOT / "page" / "src" / "style.css").read_text("utf-8")
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    names = [set(re.findall(r"(--\w+):", part.partition("}")[0])) for part in (light, dark)]
    assert names[1] == names[0] and len(names[0]) > 8
    assert set(chain.from_iterable(re.findall(r"var\((--\w+)\)", p) for p in (dark,))) <= names[0]


def test_a_language_model_has_a_page(tmp_path: Path) -> None:
    language_models.gguf(tmp_path / "small.gguf")
    command = ["inspect", str(tmp_path / "small.gguf"), "--precision", "fp32", "--no-measure"]
    ran = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "r.html"), "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout) == {"pages": [str(tmp_path / "r.html")]}
    data = data_of((tmp_path / "r.html").read_text("utf-8"))
    assert data["model"]["name"] == "small.gguf" and data["steps"]
    assert data["stages"][0]["pass"] == "capture" and data["missing"]["timeline"]
