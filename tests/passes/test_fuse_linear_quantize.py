"""Products that quantize their own rows."""

import numpy as np
import pytest
from graphs import Maker, check_left_alone, check_pass, ops

from graphopt.interpret import run_graph
from graphopt.ir import DType
from graphopt.passes.fuse_linear_quantize import LARGEST_WEIGHT, FuseLinearQuantize
from graphopt.passes.lower_bf16 import LowerBf16
from graphopt.passes.quantize_dynamic_int8 import QuantizeDynamicInt8


def quantize(m: Maker, x):
    rows = m.op("go.quantize_rows", [x], *x.shape, dtype=DType.I8)
    rows.packed = "qa8r"
    y = m.linear(rows, 16, name="next")
    m.graph.nodes[-1].attrs["scheme"] = "int8"
    return y


def test_linear_writes_quantized_rows(golden) -> None:
    m = Maker()
    x = m.linear(m.input("x", "B", "T", 32), 48)
    m.graph.nodes[-1].attrs["activation"] = "relu"
    graph = m.output(quantize(m, x))
    golden("fuse_linear_quantize", check_pass(FuseLinearQuantize(), graph))
    assert ops(graph) == ["linear", "linear"]
    assert graph.nodes[0].output.packed == "qa8r"


def test_rows_that_something_else_needs_are_left_alone() -> None:
    for reader in ("node", "output"):
        m = Maker()
        x = m.linear(m.input("x", "B", "T", 32), 32)
        y = quantize(m, x)
        check_left_alone(FuseLinearQuantize(), m.output(y, m.norm(x) if reader == "node" else x))


def test_rows_of_other_nodes_and_behind_views_are_left_alone() -> None:
    m = Maker()
    x = m.reshape(m.linear(m.input("x", "B", 4, 32), 32), "B", 128)
    y = quantize(m, m.norm(m.input("y", "B", 32)))
    check_left_alone(FuseLinearQuantize(), m.output(quantize(m, x), y))


@pytest.mark.parametrize("more", [0, 1])
def test_a_product_of_many_weights_stores_its_rows_and_says_so(more) -> None:
    m = Maker()
    linear = m.linear(m.input("x", "B", 2048), LARGEST_WEIGHT // 2048 + more)
    node = m.graph.nodes[-1]
    graph = m.output(quantize(m, linear))
    assert FuseLinearQuantize().run(graph) == (not more)
    assert not FuseLinearQuantize().run(graph)
    assert [r for r in node.reasons if "too many weights" in r] == node.reasons[:more]


def test_rows_that_would_be_stored_as_bf16_are_quantized_from_f32() -> None:
    """The result is that of int8 alone, and no reason speaks of a value that is not stored."""
    results = []
    for passes in ([], [LowerBf16(gemm=True)]):
        m = Maker()
        x = m.input("x", "B", "T", 32)
        graph = m.output(m.linear(m.linear(x, 48, name="first"), 16, name="second"))
        for step in (QuantizeDynamicInt8(), *passes, FuseLinearQuantize()):
            step.run(graph)
        assert ops(graph) == ["quantize_rows", "linear", "linear"]
        assert not any("lower_bf16" in r for r in graph.nodes[1].reasons)
        given = np.random.default_rng(1).standard_normal((2, 5, 32)).astype(np.float32)
        results.append(run_graph(graph, [given])[0])
    np.testing.assert_array_equal(*results)
