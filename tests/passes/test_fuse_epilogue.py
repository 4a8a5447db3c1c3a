"""Epilogues: what the kernel of a linear or convolution finishes itself."""

import pytest
from graphs import Maker, X, add, check_left_alone, check_pass, mul, ops

from graphopt.ir import scalar
from graphopt.ir.ops import Depthwise, Linear
from graphopt.passes.fuse_epilogue import ACTIVATIONS, FuseEpilogue
from graphopt.testing import FP32_RELATIVE

BTC = ("B", "T", 8)


def test_activation_then_residuals(golden) -> None:
    m = Maker()
    x, r, s = (m.input(n, *BTC) for n in "xrs")
    y = m.pointwise(scalar.apply("relu", X), m.linear(x, 8))
    graph = m.output(m.pointwise(add(), s, m.pointwise(add(), y, r)))
    golden("fuse_epilogue", check_pass(FuseEpilogue(), graph, FP32_RELATIVE))
    (node,) = graph.nodes
    assert node.operands.get("residual0") is r and node.operands.get("residual1") is s


def test_gated_linear_unit(golden) -> None:
    """silu(gate) * up + r: the gate's kernel runs last and does it all."""
    m = Maker()
    x, r = m.input("x", *BTC), m.input("r", *BTC)
    gate = m.pointwise(scalar.apply("silu", X), m.linear(x, 8, name="gate"))
    up = m.linear(x, 8, name="up")
    graph = m.output(m.pointwise(add(), r, m.pointwise(mul(), gate, up)))
    golden("fuse_epilogue_gate", check_pass(FuseEpilogue(), graph, FP32_RELATIVE))
    assert ops(graph) == ["linear", "linear"]
    assert graph.nodes[1].operands.get("factor") is up


def test_nothing_is_multiplied_after_an_addition_or_twice() -> None:
    m = Maker()
    x, r, s = (m.input(n, *BTC) for n in "xrs")
    sums = m.pointwise(add(), m.linear(x, 8), r)
    graph = m.output(m.pointwise(mul(), sums, s))
    check_pass(FuseEpilogue(), graph, FP32_RELATIVE)
    assert ops(graph) == ["linear", "pointwise"]
    m = Maker()
    x, r, s = (m.input(n, *BTC) for n in "xrs")
    product = m.pointwise(mul(), m.linear(x, 8), r)
    late = m.pointwise(scalar.apply("relu", X), m.pointwise(mul(), product, s))
    check_pass(FuseEpilogue(), m.output(late), FP32_RELATIVE)
    assert ops(m.graph) == ["linear", "pointwise", "pointwise"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(name: str) -> None:
    m = Maker()
    slope = 0.25 if name == "leaky_relu" else 0.0
    y = m.pointwise(scalar.activated(name, X, slope), m.linear(m.input("x", *BTC), 8))
    check_pass(FuseEpilogue(), m.output(y), FP32_RELATIVE)
    assert ops(m.graph) == ["linear"]


def test_convolution() -> None:
    m = Maker()
    x, r = m.input("x", "B", 4, "T"), m.input("r", "B", 4, "T")
    y = m.conv(x, m.constant("w", 4, 4, 3), *x.shape, padding=(0, 1))
    graph = m.output(m.pointwise(add(), m.pointwise(scalar.apply("silu", X), y), r))
    check_pass(FuseEpilogue(), graph, FP32_RELATIVE)
    assert ops(graph) == ["conv"]


def test_depthwise_takes_one_addition() -> None:
    m = Maker()
    x, r, s = (m.input(n, *BTC) for n in "xrs")
    y = m.pointwise(add(), m.pointwise(add(), m.depthwise(x), r), s)
    graph = m.output(y)
    check_pass(FuseEpilogue(), graph)
    assert ops(graph) == ["depthwise", "pointwise"]
    assert graph.nodes[0].operands.get("residual") is r


def test_residual_made_after_the_linear_keeps_the_order() -> None:
    m = Maker()
    x = m.input("x", *BTC)
    y = m.linear(x, 8)
    late = m.pointwise(mul(X, 2.0), x)
    graph = m.output(m.pointwise(add(), y, late))
    check_pass(FuseEpilogue(), graph, FP32_RELATIVE)
    assert ops(graph) == ["pointwise", "linear"]


def test_sum_of_two_linears_is_fused_into_one() -> None:
    m = Maker()
    x = m.input("x", *BTC)
    graph = m.output(m.pointwise(add(), m.linear(x, 8, name="a"), m.linear(x, 8, name="b")))
    check_pass(FuseEpilogue(), graph, FP32_RELATIVE)
    assert ops(graph) == ["linear", "linear"]


def test_results_that_several_nodes_read_are_left_alone() -> None:
    m = Maker()
    y = m.linear(m.input("x", *BTC), 8)
    check_left_alone(FuseEpilogue(), m.output(m.pointwise(scalar.apply("relu", X), y), y))


def test_additions_that_broadcast_are_left_alone() -> None:
    m = Maker()
    y = m.linear(m.input("x", *BTC), 8)
    wide = m.input("wide", "N", "B", "T", 8)
    narrow = m.input("narrow", 1, "T", 8)
    a = m.pointwise(add(), y, narrow, shape=BTC)
    check_left_alone(FuseEpilogue(), m.output(m.pointwise(mul(), a, wide, shape=wide.shape)))


@pytest.mark.parametrize("name", ["relu", "hardswish"])
def test_activation_behind_a_residual(name: str) -> None:
    """Nothing is added after it, and no third activation is applied."""
    m = Maker()
    x, r = m.input("x", *BTC), m.input("r", *BTC)
    y = m.pointwise(add(), m.pointwise(scalar.apply("silu", X), m.linear(x, 8)), r)
    y = m.pointwise(scalar.activated(name, X), y)
    y = m.pointwise(add(), m.pointwise(scalar.apply("relu", X), y), r)
    check_pass(FuseEpilogue(), m.output(y), FP32_RELATIVE)
    assert ops(m.graph) == ["linear", "pointwise", "pointwise"]
    op = m.graph.nodes[0].as_op(Linear)
    assert (op.activation, op.last) == ("silu", name)


def test_activations_of_two_slopes_are_not_one() -> None:
    m = Maker()
    x, r = m.input("x", *BTC), m.input("r", *BTC)
    for slope, left in ((0.1, ["linear"]), (0.2, ["linear", "pointwise"])):
        m.graph.nodes.clear()
        y = m.pointwise(scalar.activated("leaky_relu", X, 0.1), m.linear(x, 8))
        y = m.pointwise(add(), y, r)
        y = m.pointwise(scalar.activated("leaky_relu", X, slope), y)
        check_pass(FuseEpilogue(), m.output(y), FP32_RELATIVE)
        assert ops(m.graph) == left


def test_activation_of_depthwise() -> None:
    """Before an addition, not behind it."""
    m = Maker()
    x, r = m.input("x", *BTC), m.input("r", *BTC)
    relu = scalar.activated("relu6", X)
    y = m.pointwise(add(), m.pointwise(relu, m.depthwise(x)), r)
    check_pass(FuseEpilogue(), m.output(m.pointwise(relu, y)), FP32_RELATIVE)
    assert ops(m.graph) == ["depthwise", "pointwise"]
    assert m.graph.nodes[0].as_op(Depthwise).activation == "relu6"


@pytest.mark.parametrize("op", ["exp", "second"])
def test_other_orders_are_left_alone(op: str) -> None:
    m = Maker()
    y = m.linear(m.input("x", *BTC), 8)
    if op == "second":  # a second activation
        relu = scalar.apply("relu", X)
        y = m.pointwise(scalar.apply("tanh", X), m.pointwise(relu, y))
    else:
        y = m.pointwise(scalar.apply("exp", X), y)
    graph = m.output(y)
    if op == "second":  # the first of the two is taken in, the other is not
        check_pass(FuseEpilogue(), graph, FP32_RELATIVE)
        assert ops(graph) == ["linear", "pointwise"]
    else:
        check_left_alone(FuseEpilogue(), graph)


def test_adding_a_result_to_itself_is_left_alone() -> None:
    m = Maker()
    y = m.linear(m.input("x", *BTC), 8)
    check_left_alone(FuseEpilogue(), m.output(m.pointwise(add(), y, y)))
