"""The FSMN memory block: masks and the identity around a depthwise convolution."""

import pytest
from graphs import Maker, add, check_left_alone, check_pass, mul, ops

from graphopt.ir.ops import Depthwise
from graphopt.passes.fuse_fsmn import FuseFsmn

BTC = ("B", "T", 4)


def block(m: Maker) -> tuple:
    return m.input("x", *BTC), m.input("mask", "B", "T", 1)


def depthwise_of(graph):
    (node,) = (n for n in graph.nodes if isinstance(n.op, Depthwise))
    return node


def test_1_2_3_whole_block(golden) -> None:
    m = Maker()
    x, mask = block(m)
    u = m.pointwise(mul(), x, mask)
    s = m.pointwise(add(), m.depthwise(u), u)
    graph = m.output(m.pointwise(mul(), s, mask))
    inner = FuseFsmn()
    text = check_pass(inner, graph)
    golden("fuse_fsmn", text)
    node = depthwise_of(graph)
    assert node.op.identity == 1 and node.inputs[0] is x
    assert node.operands.get("mask_in") is mask and node.operands.get("mask_out") is mask


def test_1_mask_on_the_input() -> None:
    m = Maker()
    x, mask = block(m)
    graph = m.output(m.depthwise(m.pointwise(mul(), mask, x)))
    check_pass(FuseFsmn(), graph)
    assert depthwise_of(graph).operands.get("mask_in") is mask


def test_2_identity_before_the_mask() -> None:
    m = Maker()
    x, mask = block(m)
    y = m.depthwise(m.pointwise(mul(), x, mask))
    graph = m.output(m.pointwise(add(), x, y))
    check_pass(FuseFsmn(), graph)
    assert depthwise_of(graph).op.identity == 2


def test_3_mask_on_the_result_alone() -> None:
    m = Maker()
    x, mask = block(m)
    graph = m.output(m.pointwise(mul(), m.depthwise(x), mask))
    check_pass(FuseFsmn(), graph)
    assert depthwise_of(graph).operands.get("mask_out") is mask


def test_masks_over_channels_are_left_alone() -> None:
    m = Maker()
    x, mask = m.input("x", *BTC), m.input("mask", "B", 1, 4)
    graph = m.output(m.pointwise(mul(), m.depthwise(m.pointwise(mul(), x, mask)), mask))
    check_left_alone(FuseFsmn(), graph)


@pytest.mark.parametrize("second", ["add", "mul"])
def test_results_that_several_nodes_read_are_left_alone(second: str) -> None:
    m = Maker()
    x, mask = block(m)
    y = m.depthwise(x)
    other = m.pointwise(add(), y, x) if second == "add" else m.pointwise(mul(), y, mask)
    check_left_alone(FuseFsmn(), m.output(other, y))


def test_no_identity_with_a_stride() -> None:
    m = Maker()
    x = m.input("x", "B", 4, 4)
    y = m.op(Depthwise(2, 1, 3, 4), x, m.constant("w", 1, 4))
    check_left_alone(FuseFsmn(), m.output(m.pointwise(add(), y, x)))


def test_an_addition_after_the_mask_is_no_identity() -> None:
    m = Maker()
    x, mask = block(m)
    masked = m.pointwise(mul(), m.depthwise(x), mask)
    graph = m.output(m.pointwise(add(), masked, x))
    check_pass(FuseFsmn(), graph)
    assert depthwise_of(graph).op.identity == 0 and "pointwise" in ops(graph)
