"""Ops that quantize the rows they make."""

import numpy as np
import pytest
from graphs import BF16, F32, Maker, X, Y, check_left_alone, check_pass, mul, ops

from graphopt.ir import scalar
from graphopt.ir.interpret import run_graph
from graphopt.ir.ops import Pointwise, Softmax
from graphopt.passes.assign_layouts import AssignLayouts
from graphopt.passes.fuse_quantize import LARGEST_WEIGHT, FuseQuantize
from graphopt.passes.lower_bf16 import LowerBf16
from graphopt.passes.quantize_weights import QuantizeWeights


def quantize(m: Maker, x):
    return m.quantized(x, 16, name="next")


def test_norm_writes_quantized_rows(golden) -> None:
    m = Maker()
    graph = m.output(quantize(m, m.norm(m.input("x", "B", "T", 32))))
    golden("fuse_quantize", check_pass(FuseQuantize(), graph))
    assert ops(graph) == ["norm", "linear"]
    assert graph.nodes[0].op.writes == ("packed",)


def test_1_norm_writes_both_if_something_else_reads_the_rows() -> None:
    for reader in ("node", "output"):
        m = Maker()
        normed = m.norm(m.input("x", "B", "T", 32))
        y = quantize(m, normed)
        graph = m.output(y, m.pointwise(mul(X, 2.0), normed) if reader == "node" else normed)
        check_pass(FuseQuantize(), graph)
        assert graph.nodes[0].op.writes == ("dst", "packed")


def test_linear_writes_quantized_rows(golden) -> None:
    m = Maker()
    x = m.linear(m.input("x", "B", "T", 32), 48)
    m.graph.nodes[-1].op.activation = "relu"
    graph = m.output(quantize(m, x))
    golden("fuse_quantize_linear", check_pass(FuseQuantize(), graph))
    assert ops(graph) == ["linear", "linear"]
    assert graph.nodes[0].output.packed == "qa8r"


@pytest.mark.parametrize("more", [0, 1])
def test_a_product_of_many_weights_stores_its_rows_and_says_so(more: int) -> None:
    m = Maker()
    linear = m.linear(m.input("x", "B", 2048), LARGEST_WEIGHT // 2048 + more)
    node = m.graph.nodes[-1]
    graph = m.output(quantize(m, linear))
    assert FuseQuantize().run(graph) == (not more)
    assert not FuseQuantize().run(graph)
    said = [r for r in node.reasons if r.startswith("fuse_quantize: stores its rows")]
    assert len(said) == more


def test_rows_that_would_be_stored_as_bf16_are_quantized_from_f32() -> None:
    """The result is that of int8 alone, and no reason speaks of a value that is not stored."""
    results = []
    for passes in ([], [LowerBf16(gemm=True)]):
        m = Maker()
        x = m.input("x", "B", "T", 32)
        graph = m.output(m.linear(m.linear(x, 48, name="first"), 16, name="second"))
        for step in (QuantizeWeights(), *passes, FuseQuantize()):
            step.run(graph)
        assert ops(graph) == ["quantize_rows", "linear", "linear"]
        assert not any("lower_bf16" in r for r in graph.nodes[1].reasons)
        given = np.random.default_rng(1).standard_normal((2, 5, 32)).astype(np.float32)
        results.append(run_graph(graph, [given])[0])
    np.testing.assert_array_equal(*results)


def test_gate_is_quantized_by_the_loop_that_computes_it(golden) -> None:
    m = Maker()
    both = m.input("x", "B", "T", 64)
    gate, up = m.slice(both, 2, 0, 32), m.slice(both, 2, 32, 32)
    graph = m.output(quantize(m, m.pointwise(mul(scalar.apply("silu", X)), gate, up)))
    golden("fuse_quantize_gate", check_pass(FuseQuantize(), graph))
    assert ops(graph) == ["slice", "slice", "pointwise", "linear"]


@pytest.mark.parametrize("maker", ["pointwise", "linear"])
@pytest.mark.parametrize("reader", ["node", "output"])
def test_2_rows_that_something_else_reads_are_made_once(maker: str, reader: str) -> None:
    m = Maker()
    x = m.input("x", "B", 32)
    x = m.linear(x, 32) if maker == "linear" else m.pointwise(mul(X, 2.0), x)
    y = quantize(m, x)
    other = m.pointwise(mul(X, 3.0), x) if reader == "node" else x
    check_left_alone(FuseQuantize(), m.output(y, other))


def test_other_rows_are_left_alone() -> None:
    m = Maker()
    x = m.input("x", "B", 32)
    wide = mul(X, 2.0)
    rows = [
        x,
        m.pointwise(scalar.cast(wide, BF16), x),
        m.pointwise(scalar.cast(scalar.index(1), F32), shape=("B", 32)),
        m.op(Softmax(log=False), x),
        m.reshape(m.linear(m.input("y", "B", 4, 32), 32), "B", 128),
    ]
    check_left_alone(FuseQuantize(), m.output(*(quantize(m, y) for y in rows)))


def test_operands_of_a_quantized_loop_run_along_its_rows() -> None:
    """A loop over rows would walk a transposed operand column by column."""
    m = Maker()
    x, scale = m.input("x", "B", 32, "T"), m.input("scale", "B", "T", 1)
    graph = m.output(quantize(m, m.pointwise(mul(X, Y), m.permute(x, 0, 2, 1), scale)))
    FuseQuantize().run(graph)
    AssignLayouts().run(graph)
    (copy, loop) = (n for n in graph.nodes if isinstance(n.op, Pointwise))
    assert loop.inputs == [copy.output, scale]
    assert copy.reasons == ["assign_layouts: copied for go.pointwise: it computes row after row"]
