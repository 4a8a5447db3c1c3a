"""Depthwise convolution: every spelling becomes `go.depthwise`, other convolutions stay."""

import numpy as np
import pytest
from graphs import F32, Maker, check_left_alone, check_pass, ops

from graphopt.ir.ops import Depthwise, Pad
from graphopt.passes.lower_depthwise import LowerDepthwise
from graphopt.passes.simplify_views import SimplifyViews


def conv(m: Maker, x, weight, *extents, groups=4, **given):
    return m.conv(x, weight, *extents, groups=groups, **given)


def test_1_one_axis_1d(golden) -> None:
    m = Maker()
    x = m.input("x", "B", 4, "T")
    t = m.shape("T")[0]
    y = conv(m, x, m.constant("w", 4, 1, 3), "B", 4, t - 2 * 2 + 2, padding=(0, 1), dilation=(1, 2))
    golden("lower_depthwise_1", check_pass(LowerDepthwise(), m.output(y)))


def test_1_stride() -> None:
    m = Maker()
    x = m.input("x", "B", 4, 9)
    y = conv(m, x, m.constant("w", 4, 1, 3), "B", 4, 4, stride=(1, 2))
    check_pass(LowerDepthwise(), m.output(y))


def test_1_one_axis_2d() -> None:
    m = Maker()
    x = m.input("x", "B", 4, "T", 1)
    t = m.shape("T")[0]
    graph = m.output(conv(m, x, m.constant("w", 4, 1, 3, 1), "B", 4, t - 2, 1))
    check_pass(LowerDepthwise(), graph, T=6)
    assert "depthwise" in ops(graph) and "conv" not in ops(graph)


@pytest.mark.parametrize("late_axis", [False, True])
def test_2_padding_along_time(golden, late_axis: bool) -> None:
    m = Maker()
    x = m.input("x", "B", "T", 4)
    t = m.shape("T")[0]
    channels = m.permute(x, 0, 2, 1)
    if late_axis:  # 2-D convolution of a value that gets its fourth axis after the padding
        p = m.op(Pad(before=(0, 0, 2), value=0.0, shape=m.shape("B", 4, t + 3)), channels)
        p = m.reshape(p, "B", 4, t + 3, 1)
        y = conv(m, p, m.constant("w", 4, 1, 4, 1), "B", 4, t, 1)
    else:
        p = m.op(Pad(before=(0, 0, 2), value=0.0, shape=m.shape("B", 4, t + 3)), channels)
        y = conv(m, p, m.constant("w", 4, 1, 4), "B", 4, t)
    graph = m.output(y)
    text = check_pass(LowerDepthwise(), graph)
    (node,) = (n for n in graph.nodes if isinstance(n.op, Depthwise))
    assert node.op.pad_left == 2
    SimplifyViews().run(graph)
    assert graph.nodes[-1].op.is_view and node.inputs[0] is x
    if not late_axis:
        golden("lower_depthwise_2", text)


@pytest.mark.parametrize(
    "pad", [dict(before=(0, 0, 1), value=1.0), dict(before=(0, 1, 0), value=0.0)]
)
def test_other_padding_stays(pad) -> None:
    m = Maker()
    x = m.input("x", "B", 3, 5) if pad["before"][1] else m.input("x", "B", 4, 4)
    p = m.op(Pad(shape=m.shape("B", 4, 5), **pad), x)
    graph = m.output(conv(m, p, m.constant("w", 4, 1, 3), "B", 4, 3))
    check_pass(LowerDepthwise(), graph)
    assert "pad" in ops(graph)


def test_two_axes_are_left_alone() -> None:
    m = Maker()
    x = m.input("x", "B", 4, 5, 6)
    y = conv(m, x, m.constant("w", 4, 1, 3, 3), "B", 4, 3, 4)
    check_left_alone(LowerDepthwise(), m.output(y))


def test_padding_beside_the_time_axis_is_left_alone() -> None:
    m = Maker()
    y = conv(
        m, m.input("x", "B", 4, 9, 1), m.constant("w", 4, 1, 3, 1), "B", 4, 7, 3, padding=(0, 1)
    )
    check_left_alone(LowerDepthwise(), m.output(y))


def test_channel_multiplier_is_left_alone() -> None:
    m = Maker()
    x = m.input("x", "B", 4, 5)
    y = conv(m, x, m.constant("w", 8, 1, 3), "B", 8, 3)
    check_left_alone(LowerDepthwise(), m.output(y))


def test_dense_and_grouped_are_left_alone() -> None:
    m = Maker()
    x = m.input("x", "B", 4, 5)
    a = conv(m, x, m.constant("w", 4, 4, 3), "B", 4, 3, groups=1)
    b = conv(m, x, m.constant("v", 4, 2, 3), "B", 4, 3, groups=2)
    check_left_alone(LowerDepthwise(), m.output(a, b))


def test_taps_are_stored_tap_by_channel() -> None:
    m = Maker()
    x = m.input("x", "B", 4, 5)
    weight = m.constant("w", 4, 1, 3)
    graph = m.output(conv(m, x, weight, "B", 4, 3))
    LowerDepthwise().run(graph)
    (node,) = (n for n in graph.nodes if isinstance(n.op, Depthwise))
    np.testing.assert_array_equal(node.inputs[1].data, weight.data[:, 0].T)
    assert node.output.dtype is F32
