"""Int4 weights: rewrites, refusals, and the noise that they may add."""

from pathlib import Path

import numpy as np
import pytest
from graphs import Maker, check_left_alone, check_native, ops, random_inputs

from graphopt.errors import GroupSizeError, WeightError
from graphopt.interpret import run_graph
from graphopt.passes.quantize_weights_int4 import QuantizeWeightsInt4
from graphopt.printer import print_graph
from graphopt.testing import sqnr
from graphopt.verify import verify


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
