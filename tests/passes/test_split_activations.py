"""Two int8 rows per activation: what moves into the sum, and how much error is left."""

from pathlib import Path

import numpy as np
import pytest
from graphs import (
    Maker,
    build,
    check_left_alone,
    check_native,
    emit,
    native_levels,
    random_inputs,
)

from graphopt.ir.interpret import run_graph
from graphopt.ir.ops import Linear
from graphopt.ir.printer import print_graph
from graphopt.ir.verify import verify
from graphopt.passes.quantize_weights import QuantizeWeights
from graphopt.passes.quantize_weights_int4 import QuantizeWeightsInt4
from graphopt.passes.split_activations import SplitActivations
from graphopt.testing import sqnr


def finished_linear() -> Maker:
    """A linear with everything its epilogue can do, and another on the same input."""
    m = Maker()
    x, r = m.input("x", "B", "T", 64), m.input("r", "B", "T", 32)
    m.linear(x, 32)
    node = m.graph.nodes[0]
    node.operands["residual0"] = r
    node.op.activation = "relu"
    m.output(node.output, m.linear(x, 48, bias=False, name="q"))
    return m


def test_sum_finishes_what_the_kernel_did(golden) -> None:
    graph = finished_linear().graph
    QuantizeWeights().run(graph)
    assert SplitActivations().run(graph)
    verify(graph, "split_activations")
    golden("split_activations", print_graph(graph))
    check_left_alone(SplitActivations(), graph)


@pytest.mark.parametrize("int4", [False, True])
def test_error_of_activations_vanishes(int4: bool) -> None:
    """Beside a graph with the same weights and f32 activations."""
    results = []
    for split in (False, True):
        graph = finished_linear().graph
        inputs = random_inputs(graph)
        weights = [QuantizeWeightsInt4(32)] if int4 else []
        for step in (*weights, QuantizeWeights()):
            step.run(graph)
        linears = [n for n in graph.nodes if isinstance(n.op, Linear)]
        if split:
            SplitActivations().run(graph)
        results.append(run_graph(graph, inputs))
        exact_graph = finished_linear().graph
        exact = [n for n in exact_graph.nodes if isinstance(n.op, Linear)]
        for node, quantized in zip(exact, linears, strict=True):
            node.op.format, node.op.group = quantized.op.format, quantized.op.group
            node.operands |= {
                role: quantized.operands[role]
                for role in ("weight", "scale")
                if role in quantized.operands
            }
        wanted = run_graph(exact_graph, inputs)
    for one, two, reference in zip(*results, wanted, strict=True):
        assert 30 < sqnr(one, reference) < 60 < 80 < sqnr(two, reference)


def test_kernels_give_what_numpy_gives(tmp_path: Path) -> None:
    """Numpy rounds the remainder twice, so that some of its int8 steps differ."""
    graph = finished_linear().graph
    for step in (QuantizeWeights(), SplitActivations()):
        step.run(graph)
    module = check_native(graph, tmp_path, sizes=({}, {"B": 1, "T": 1}, {"T": 40}), bound=2e-5)
    assert "go_split(team" in module.source


def test_rows_of_zeros_and_nan_stay_what_they_are(tmp_path: Path) -> None:
    graph = finished_linear().graph
    for step in (QuantizeWeights(), SplitActivations()):
        step.run(graph)
    inputs = random_inputs(graph)
    inputs[0][0, 0], inputs[0][0, 1, 5] = 0, np.nan
    interpreted = run_graph(graph, inputs)
    compiled = build(emit(graph), native_levels()[-1], tmp_path).context(2).run(inputs)
    for _, got in (interpreted, compiled):
        assert np.all(got[0, 0] == 0) and np.isnan(got[0, 1]).all()
        assert np.isfinite(got[0, 2:]).all()


def test_float_linears_are_left_alone() -> None:
    check_left_alone(SplitActivations(), finished_linear().graph)
