"""Dynamic int8: rewrites, refusals, and the noise that it may add."""

from pathlib import Path

import numpy as np
import pytest
from graphs import Maker, X, check_left_alone, check_native, mul, ops, random_inputs, tied

from graphopt.errors import WeightError
from graphopt.ir.interpret import run_graph
from graphopt.ir.printer import print_graph
from graphopt.ir.verify import verify
from graphopt.kernels import reference
from graphopt.passes.quantize_weights import QuantizeWeights
from graphopt.testing import INT8_SQNR, sqnr


def two_linears() -> Maker:
    m = Maker()
    x = m.input("x", "B", "T", 64)
    m.output(m.linear(x, 32, name="p"), m.linear(x, 16, bias=False, name="q"))
    return m


def test_one_quantized_tensor_serves_all_linears(golden) -> None:
    graph = two_linears().graph
    inputs = random_inputs(graph)
    before = run_graph(graph, inputs)
    assert QuantizeWeights().run(graph)
    verify(graph, "quantize_weights")
    golden("quantize_weights", print_graph(graph))
    for got, exact in zip(run_graph(graph, inputs), before, strict=True):
        assert INT8_SQNR < sqnr(got, exact) < 60  # not exact either: it did quantize
    check_left_alone(QuantizeWeights(), graph)


@pytest.mark.parametrize("depth, width", [(15, 64), (64, 15)])
def test_small_linears_are_left_alone(depth: int, width: int) -> None:
    m = Maker()
    graph = m.output(m.linear(m.input("x", "B", depth), width))
    check_left_alone(QuantizeWeights(), graph)
    assert f"{depth} x {width} is too small" in graph.nodes[0].reasons[0]


def test_sixteen_is_enough() -> None:
    m = Maker()
    graph = m.output(m.linear(m.input("x", "B", 16), 16))
    assert QuantizeWeights().run(graph)


def test_other_nodes_are_left_alone() -> None:
    m = Maker()
    graph = m.output(m.pointwise(mul(X, 2.0), m.norm(m.input("x", "B", 32))))
    check_left_alone(QuantizeWeights(), graph)


def test_a_weight_that_is_not_finite_is_refused_by_name() -> None:
    graph = two_linears().graph
    graph.nodes[1].inputs[1].data[3, 4] = np.nan
    with pytest.raises(WeightError, match="'q'"):
        QuantizeWeights().run(graph)


def test_weights_of_a_model_are_not_held_twice() -> None:
    graph = two_linears().graph
    first, second = (node.operands["weight"] for node in graph.nodes)
    numbers = first.data.copy()
    first.data = lambda: numbers  # as of a parameter
    QuantizeWeights().run(graph)
    weight, scale = (graph.nodes[1].operands[role] for role in ("weight", "scale"))
    assert callable(weight.held) and callable(scale.held)
    assert not callable(graph.nodes[2].operands["weight"].held) and second.data is second.held
    for factor in (1, 3):  # of which the second is what somebody has written since
        numbers *= factor
        expected = reference.quantize_channels(numbers)
        np.testing.assert_array_equal(weight.data, expected.q)
        np.testing.assert_array_equal(scale.data, expected.scale)


def test_activations_and_residuals_stay_in_the_epilogue() -> None:
    m = Maker()
    x, r = m.input("x", "B", 32), m.input("r", "B", 32)
    m.linear(x, 32)
    node = m.graph.nodes[0]
    node.operands["residual0"] = r
    node.op.activation = "relu"
    graph = m.output(node.output)
    QuantizeWeights().run(graph)
    assert ops(graph) == ["quantize_rows", "linear"]
    assert node.operands.get("residual0") is r and node.op.activation == "relu"


def test_a_table_that_a_linear_multiplies_by_is_its_weights(golden) -> None:
    graph = tied()
    table = graph.nodes[0].operands["table"].data
    QuantizeWeights().run(graph)
    golden("quantize_weights_table", print_graph(graph, reasons=True))
    tokens = np.array([[3, 36, 0], [3, 3, 17]])
    found = run_graph(graph, [tokens, np.ones((2, 40), np.float32)])[0]
    whole = reference.quantize_channels(table)
    np.testing.assert_array_equal(found, (whole.scale[:, None] * whole.q)[tokens])


def test_packed_rows_are_read(tmp_path: Path) -> None:
    graph = tied()
    QuantizeWeights().run(graph)
    module = check_native(graph, tmp_path, sizes=({}, {"B": 1, "T": 1}), bound=1e-6)
    assert module.memory.weights.bytes < 2 * 64 * 40  # the table is there once, in int8
