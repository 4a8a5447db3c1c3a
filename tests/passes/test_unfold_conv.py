"""Convolutions as linears over im2col, and windows that are packed as they are gathered."""

import pytest
from graphs import Maker, X, check_left_alone, check_pass, mul, ops

from graphopt.passes.fuse_im2col import FuseIm2col
from graphopt.passes.lower_bf16 import LowerBf16
from graphopt.passes.quantize_weights import QuantizeWeights
from graphopt.passes.unfold_conv import UnfoldConv

WINDOWS, POINTWISE = UnfoldConv(windows=True), UnfoldConv(windows=False)


def conv(m: Maker, x, weight, *extents, **given):
    """A convolution with a bias."""
    bias = m.constant("bias", int(weight.shape[0]))
    return m.conv(x, weight, *extents, bias=bias, **given)


def test_1_one_tap_is_a_linear_in_every_precision() -> None:
    for unfold in (WINDOWS, POINTWISE):
        m = Maker()
        x = m.input("x", "B", 5, "T")
        graph = m.output(conv(m, x, m.constant("w", 7, 5, 1), "B", 7, "T", activation="relu"))
        check_pass(unfold, graph)
        assert ops(graph) == ["permute", "linear", "permute"]


@pytest.mark.parametrize("attrs", [{"stride": (1, 2)}, {"padding": (0, 1)}])
def test_1_one_tap_that_skips_or_pads_is_a_window(attrs) -> None:
    m = Maker()
    x, extent = m.input("x", "B", 32, 9), 5 if "stride" in attrs else 11
    graph = m.output(conv(m, x, m.constant("w", 32, 32, 1), "B", 32, extent, **attrs))
    check_left_alone(POINTWISE, graph)
    check_pass(WINDOWS, graph)
    assert "im2col" in ops(graph)


def test_2_windows_and_what_goes_with_them(golden) -> None:
    m = Maker()
    x, r = m.input("x", "B", 8, "T"), m.input("r", "B", 16, "T")
    weight = m.constant("w", 16, 8, 3)
    y = conv(m, x, weight, "B", 16, "T", residual0=r, padding=(0, 1), activation="relu")
    graph = m.output(y)
    golden("unfold_conv", check_pass(WINDOWS, graph))
    assert ops(graph) == ["permute", "permute", "im2col", "linear", "permute"]


def test_2_groups_and_two_axes() -> None:
    m = Maker()
    x, weight = m.input("x", "B", 6, 9, 8), m.constant("w", 32, 3, 3, 2)
    r = m.input("r", "B", 32, 5, 6)
    attrs = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    graph = m.output(conv(m, x, weight, "B", 32, 5, 6, residual0=r, **attrs))
    check_pass(WINDOWS, graph)
    assert ops(graph).count("linear") == ops(graph).count("im2col") == 2
    assert {"cat", "slice"} <= set(ops(graph)) and "conv" not in ops(graph)


@pytest.mark.parametrize(
    "weight, groups, reason",
    [
        ((32, 1, 3), 32, "one channel per group"),
        ((32, 2, 3), 16, "too small"),
        ((8, 32, 3), 1, "too small"),
    ],
)
def test_small_and_depthwise_convolutions_stay(weight, groups, reason) -> None:
    m = Maker()
    x = m.input("x", "B", 32, 9)
    graph = m.output(conv(m, x, m.constant("w", *weight), "B", weight[0], 7, groups=groups))
    check_left_alone(WINDOWS, graph)
    assert reason in graph.nodes[0].reasons[-1]


def test_windows_stay_where_nothing_becomes_narrower() -> None:
    m = Maker()
    graph = m.output(conv(m, m.input("x", "B", 32, 9), m.constant("w", 32, 32, 3), "B", 32, 7))
    check_left_alone(POINTWISE, graph)


@pytest.mark.parametrize("narrow", [QuantizeWeights(), LowerBf16(gemm=True)])
def test_im2col_pack_themselves(narrow) -> None:
    m = Maker()
    x = m.input("x", "B", 8, "T")
    graph = m.output(conv(m, x, m.constant("w", 16, 8, 3), "B", 16, "T", padding=(0, 1)))
    WINDOWS.run(graph)
    narrow.run(graph)
    check_pass(FuseIm2col(), graph)
    assert ops(graph) == ["permute", "im2col", "linear", "permute"]
    assert graph.nodes[1].output.packed in ("qa8r", "bf16")


def test_rows_of_other_nodes_are_left_alone() -> None:
    m = Maker()
    x = m.pointwise(mul(X, 2.0), m.input("x", "B", 32))
    check_left_alone(FuseIm2col(), m.output(m.quantized(x, 16)))
