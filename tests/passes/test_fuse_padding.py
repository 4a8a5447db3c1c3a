"""Zeros around an image, inside of the convolution."""

import pytest
from graphs import Maker, check_left_alone, check_pass, ops

from graphopt.ir import Value
from graphopt.ir.ops import Conv, Pad
from graphopt.passes.fuse_padding import FusePadding
from graphopt.passes.unfold_conv import UnfoldConv
from graphopt.testing import FP32_RELATIVE


def padded(
    m: Maker, x: Value, before: tuple[int, ...], behind: tuple[int, ...], value=0.0
) -> Value:
    shape = tuple(e + b + a for e, b, a in zip(x.shape, before, behind, strict=True))
    return m.op(Pad(before, value, shape), x)


@pytest.mark.parametrize("before, behind", [((0, 1), (1, 1)), ((2, 0), (1, 3))])
def test_zeros_on_both_sides(before: tuple[int, int], behind: tuple[int, int]) -> None:
    """The windows of its rows are those of the padded image, too."""
    m = Maker()
    y = padded(m, m.input("x", "B", 16, 9, 10), (0, 0, *before), (0, 0, *behind))
    h, w = ((e + a + b + 2 - 3) // 2 + 1 for e, a, b in zip((9, 10), before, behind, strict=True))
    weight = m.constant("w", 16, 16, 3, 3)
    y = m.conv(y, weight, "B", 16, h, w, stride=(2, 2), padding=(1, 1))
    check_pass(FusePadding(), m.output(y), FP32_RELATIVE)
    assert ops(m.graph) == ["conv"]
    check_pass(UnfoldConv(windows=True), m.graph, FP32_RELATIVE)
    assert "im2col" in ops(m.graph)


def test_along_time_and_of_one_tap() -> None:
    """A tap that reads zeros is no linear."""
    m = Maker()
    y = padded(m, m.input("x", "B", 4, 7), (0, 0, 0), (0, 0, 1))
    y = m.conv(y, m.constant("w", 4, 4, 1), "B", 4, 8)
    check_pass(FusePadding(), m.output(y), FP32_RELATIVE)
    assert m.graph.nodes[0].as_op(Conv).behind == (0, 1)
    check_left_alone(UnfoldConv(windows=False), m.graph)


@pytest.mark.parametrize("why", ["channels", "value"])
def test_what_is_left_alone(why: str) -> None:
    m = Maker()
    x = m.input("x", "B", 3, 7)
    before, behind = (0, int(why == "channels"), 0), (0, 0, 1)
    y = padded(m, x, before, behind, 1.0 if why == "value" else 0.0)
    y = m.conv(y, m.constant("w", 4, y.shape[1], 3), "B", 4, 6)
    check_left_alone(FusePadding(), m.output(y))
