"""Int4 weights: rewrites, refusals, and the noise that they may add."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from graphs import Maker, check_left_alone, check_native, ops, random_inputs, tied

from graphopt.compiler.options import Options
from graphopt.compiler.pipeline import PassManager
from graphopt.compiler.program import Program
from graphopt.config import Config
from graphopt.errors import GroupSizeError, WeightError
from graphopt.ir.interpret import execute, run_graph
from graphopt.ir.ops import QuantizeRows, Reshape
from graphopt.ir.printer import print_graph
from graphopt.ir.verify import verify
from graphopt.kernels.formats import INT4_BLOCKS
from graphopt.passes.quantize_weights_int4 import QuantizeWeightsInt4
from graphopt.passes.support.rounding import Rounding, loss_of, round_weights
from graphopt.target import find_target
from graphopt.testing import sqnr


def feed_forward() -> Maker:
    """Two linears on one input, and a head whose result the graph returns."""
    m = Maker()
    x = m.input("x", "B", "T", 64)
    both = m.linear(x, 32, name="p"), m.linear(x, 32, bias=False, name="q")
    first, second = (m.linear(v, 96, name=name) for v, name in zip(both, "uv", strict=True))
    m.output(m.linear(first, 40, name="head"), m.linear(second, 40, name="head2"))
    return m


@pytest.mark.parametrize("group", [32, 0])
def test_linears_inside_get_int4_weights(golden, group: int) -> None:
    graph = feed_forward().graph
    inputs = random_inputs(graph)
    before = run_graph(graph, inputs)
    assert QuantizeWeightsInt4(group).run(graph)
    verify(graph, "quantize_weights_int4")
    golden(f"quantize_weights_int4_{group}", print_graph(graph, reasons=True))
    for got, reference in zip(run_graph(graph, inputs), before, strict=True):
        assert 10 < sqnr(got, reference) < 40
    check_left_alone(QuantizeWeightsInt4(group), graph)


@pytest.mark.parametrize("group", [32, 0])
def test_kernels_give_what_numpy_gives(tmp_path: Path, group: int) -> None:
    graph = feed_forward().graph
    QuantizeWeightsInt4(group).run(graph)
    module = check_native(graph, tmp_path, sizes=({}, {"B": 1, "T": 1}, {"T": 40}), bound=1e-4)
    assert f"go_gemm_qs4{'b' if group else 'c'}(team" in module.source


@pytest.mark.parametrize("group", [48, 96, 2048, -32])
def test_a_group_that_does_not_fit_is_refused(group: int) -> None:
    with pytest.raises(GroupSizeError, match=f"{group} does not fit p, whose depth is 64"):
        QuantizeWeightsInt4(group).run(feed_forward().graph)


def test_each_linear_is_rounded_for_what_the_rounded_ones_before_it_give() -> None:
    graph = feed_forward().graph
    inputs = random_inputs(graph, B=4, T=100)
    whole = feed_forward().graph
    QuantizeWeightsInt4(32, Rounding("gptq", inputs)).run(graph)
    verify(graph, "quantize_weights_int4")
    rounded = [node for node in graph.nodes if getattr(node.op, "format", None) is INT4_BLOCKS]
    constants = (node.inputs[1] for node in whole.nodes if len(node.operands) > 1)
    weights = {value.name: value.data for value in constants}
    for node in graph.nodes:
        if isinstance(node.op, QuantizeRows):
            node.op = Reshape(node.output.shape)  # as the rows were during calibration
    for node, operands in execute(graph, inputs):
        if node in rounded:
            w, x = weights[node.inputs[1].name], operands[0].reshape(-1, operands[0].shape[-1])
            wanted = round_weights(w, 32, "gptq", x.T @ x)
            np.testing.assert_array_equal(operands[1], wanted.q)
            assert node.op.loss == loss_of(w, wanted.dense(), x.T @ x)
    assert len(rounded) == 4


def test_a_head_becomes_int4_on_demand_with_the_table_it_shares(tmp_path: Path) -> None:
    for group in (32, 0):
        graph = tied(width=64)
        table = graph.nodes[0].inputs[0].data
        assert not QuantizeWeightsInt4(group).run(tied(width=64))
        assert QuantizeWeightsInt4(group, Rounding(returned=True)).run(graph)
        lookup, _, linear = graph.nodes
        assert lookup.operands["table"] is linear.operands["weight"]
        assert lookup.operands["scale"] is linear.operands["scale"]
        tokens = np.array([[3, 36, 0], [3, 3, 17]])
        found = run_graph(graph, [tokens, np.ones((2, 64), np.float32)])[0]
        np.testing.assert_array_equal(found, round_weights(table, group, "nearest").dense()[tokens])
        module = check_native(graph, tmp_path, sizes=({}, {"B": 1, "T": 1}), bound=1e-6)
        assert module.memory.weights.bytes < 64 * 64  # the table is there once, in int4


@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="qemu-aarch64 is not installed")
@pytest.mark.parametrize("group", [32, 0])
def test_rows_are_looked_up_in_the_packing_of_arm(group: int) -> None:
    rounding = Rounding(returned=True)
    options = Options(find_target("neoverse-n2"), "int4", 1, group_size=group or None)
    graph, manager = tied(width=64), PassManager(Config())
    table = graph.nodes[0].inputs[0].data
    program = Program(graph, options, manager, rounding)
    program.plan()
    tokens = np.array([[3, 36, 0], [3, 3, 17]])
    found, _ = program.emulate([tokens, np.ones((2, 64), np.float32)], "", 128)
    np.testing.assert_array_equal(found, round_weights(table, group, "nearest").dense()[tokens])


def test_small_linears_are_left_alone() -> None:
    m = Maker()
    small = m.linear(m.input("x", "B", 32), 15)
    graph = m.output(m.linear(small, 32))
    check_left_alone(QuantizeWeightsInt4(32), graph)
    assert ops(graph) == ["linear", "linear"]
    assert "32 x 15 is too small" in graph.nodes[0].reasons[0]


def test_a_weight_that_is_not_finite_is_refused_by_name() -> None:
    graph = feed_forward().graph
    graph.nodes[1].inputs[1].data[3, 4] = np.nan  # type: ignore[index]
    with pytest.raises(WeightError, match="'q'"):
        QuantizeWeightsInt4(0).run(graph)
