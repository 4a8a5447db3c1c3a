"""The graph after each pass: what is kept, what it is called, and which node became which."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import graphopt
from graphopt.compiler.pipeline import PassManager, lowering_passes, placement_passes
from graphopt.compiler.stages import Stages, keep_stages
from graphopt.config import Config
from graphopt.errors import OptionError, StagesError, UnknownStageError
from graphopt.ir.interpret import run_graph
from graphopt.ir.verify import verify
from graphopt.target import native
from tests.support.captured import captured
from tests.support.models import Partly, network


def stages_of(model: nn.Module, precision: str, target: str = "native") -> Stages:
    example = (torch.randn(2, 3, 48, generator=torch.Generator().manual_seed(0)),)
    with keep_stages() as kept:
        graphopt.optimize(model, target, example, precision=precision, check=False)
    (stages,) = kept
    return stages


@pytest.fixture(scope="module")
def int8() -> Stages:
    return stages_of(network(), "int8", "neoverse-n1")


def test_every_pass_has_a_stage_that_runs(int8: Stages) -> None:
    passes = [stage.step for stage in int8]
    assert passes[0] == "" and passes[-1] == "select_kernels" and "quantize_weights" in passes
    assert len(set(int8.names)) == len(int8) and "simplify_views.2" in int8.names
    x = np.random.default_rng(0).standard_normal((1, 5, 48)).astype(np.float32)
    (wanted,) = run_graph(int8["lower_aten"].graph, [x])
    for stage in [*int8][2:]:
        verify(stage.graph, stage.name)
        (got,) = run_graph(stage.graph, [x])
        exact = int8.names.index(stage.name) < int8.names.index("quantize_weights")
        np.testing.assert_allclose(got, wanted, atol=1e-6 if exact else 0.1)
        if not exact:
            assert (got != wanted).any()


def test_changed_says_what_passes_did(int8: Stages) -> None:
    for stage, before in ((stage, int8.before(stage)) for stage in int8):
        if before is None:
            continue
        assert stage.changed == (stage.lines != before.lines)
        if not stage.changed:  # it shares all nodes
            assert stage.graph.nodes == before.graph.nodes or stage.step == "assign_layouts"
        assert set(stage.gone) == {r.name for r in before.nodes} - {r.name for r in stage.nodes}
        assert {n for row in stage.nodes for n in row.came_from} <= {r.name for r in before.nodes}
        for row in stage.nodes:
            assert (row.change == "added") == (row.name not in before)
    assert not int8["simplify_loads"].changed and int8["fuse_epilogue"].changed


def test_nodes_keep_their_names_and_places_through_fusion(int8: Stages) -> None:
    last = int8["select_kernels"]
    fused = int8["fuse_epilogue"]["gelu"]
    assert fused.came_from == ("gelu", "linear") and fused.change == "changed"
    assert (
        fused.notes == ("the kernel applies gelu_erf",) and "linear" in int8["fuse_epilogue"].gone
    )
    assert int8.ancestors(int8["fuse_epilogue"], "gelu") == ("gelu", "linear")
    places = [origin.module for origin in int8.origins(int8["fuse_epilogue"], "gelu")]
    assert places == ["0", "1"]
    (matrix,) = (
        row for row in last.nodes if row.node.origin.module == "3" and "linear" in row.call
    )
    assert int8.ancestors(last, matrix.name) == ("linear_1",)
    assert "Sequential" not in matrix.text and matrix.outputs == ("linear_1",)


def test_parts_go_on_alone() -> None:
    example = (torch.randn(2, 16, generator=torch.Generator().manual_seed(0)),)
    fast = graphopt.optimize(Partly().eval(), "neoverse-n1", example, precision="fp32", check=False)
    (stages,) = fast.stages()
    first, second = stages.parts
    assert first[0] is second[0] is stages["capture"]
    cut = stages["Partly_0/partition"]
    assert cut in first and cut not in second
    assert stages.before(cut) is stages["eliminate_dead_code.4"]
    assert cut.changed and {r.change for r in cut.nodes} <= {"same", "changed"} and not cut.gone
    names = {row.name for part in (first, second) for row in part[-1].nodes}
    assert names == {row.name for row in stages["eliminate_dead_code.4"].nodes} - {"special_i0e"}


def test_graphs_of_what_was_compiled_without_keeping_them() -> None:
    x = torch.randn(2, 48)
    model = network()
    fast = graphopt.optimize(model, "neoverse-n1", (x,), precision="fp32", check=False)
    assert [n.op.name for n in fast.graph("capture").nodes] == [
        "aten.linear",
        "aten.gelu",
        "aten.layer_norm",
        "aten.linear",
    ]
    assert fast.graph().nodes[0].kernel == "go_gemm_f32"
    with pytest.raises(UnknownStageError, match=r"no pass 'fuse_atention' .*near.* fuse_attention"):
        fast.graph("fuse_atention")
    with pytest.raises(OptionError, match="number=1: 1 graphs"):
        fast.graph(number=1)
    with torch.no_grad():
        model[0].weight += 1
    with pytest.raises(StagesError, match=r"Sequential .*keep_stages"):
        fast.graph()
    bare = graphopt.optimize(network(), "neoverse-n1", precision="fp32", check=False)
    with pytest.raises(StagesError):
        bare.stages()


def test_nothing_is_kept_unless_asked() -> None:
    manager = PassManager(Config(), keep=True)
    captured_graph = captured(torch.relu, torch.zeros(2, 3)).graph
    manager.run(captured_graph, [*lowering_passes(), *placement_passes(native())])
    assert manager.stages is None
    with keep_stages() as kept:
        PassManager(Config()).run(captured(torch.relu, torch.zeros(2, 3)).graph, [])
    assert kept == []


def printed(stages: Stages) -> str:
    return "".join(
        f"{stage.name} {stage.changed} {stage.gone} {[row.came_from for row in stage.nodes]}\n"
        f"{stage.text}"
        for stage in stages
    )


def test_two_processes_print_the_same() -> None:
    """With other seeds of hashes: this process has a random one."""
    script = (
        "from tests import test_stages as t; print(t.printed(t.stages_of(t.network(), 'int8')))"
    )
    other = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == printed(stages_of(network(), "int8")).strip()
