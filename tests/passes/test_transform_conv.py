"""Which convolutions multiply transformed tiles, and why others do not."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graphs import Maker, check_left_alone, check_pass

from graphopt.ir import Graph
from graphopt.ir.ops import Conv
from graphopt.ir.verify import VerificationError, verify
from graphopt.passes.parallelize_conv import ParallelizeConv
from graphopt.passes.transform_conv import TransformConv
from graphopt.target import find_target


def image(
    channels: int, size: int, out: int = 0, batch: int | str = 1, taps: int = 3, **given: Any
) -> Graph:
    """A convolution of a square image, padded so that its size stays."""
    m = Maker()
    weight = m.constant("w", out or channels, channels // given.get("groups", 1), taps, taps)
    x = m.input("x", batch, channels, size, size)
    pads = {"padding": (taps // 2, taps // 2)} | given
    extents = pads.pop("extents", (size, size))
    return m.output(m.conv(x, weight, batch, out or channels, *extents, **pads))


def reason(graph: Graph) -> str:
    return " ".join(graph.nodes[0].reasons)


def test_decides_once_and_says_why(golden) -> None:
    graph = image(16, 12)
    golden("transform_conv", check_pass(TransformConv(), graph))
    assert reason(graph).startswith("transform_conv: F(4 x 4, 3 x 3) 1.73 x as fast")
    ParallelizeConv(replace(find_target("neoverse-n2"), cores=2)).run(graph)
    assert "2 tasks of 6 tiles x 32 channels x 576 values" in reason(graph), reason(graph)


@pytest.mark.parametrize("channels, size", [(64, 56), (128, 28), (256, 14), (64, 64)])
def test_layers_of_residual_networks_and_u_nets(channels: int, size: int) -> None:
    graph = image(channels, size)
    assert TransformConv().run(graph)
    assert float(reason(graph).split("3) ")[1].partition(" x")[0]) > 2


@pytest.mark.parametrize("size, channels", [(7, 512), (1, 16), (0, 16)])
def test_what_gains_too_little_is_left_alone(size: int, channels: int) -> None:
    graph = image(channels, size, 16 if size < 7 else 0)
    check_left_alone(TransformConv(), graph)
    assert "left direct below 1.25 x" in reason(graph)


def test_the_batch_has_no_say() -> None:
    """So that an image has the same bits in any batch, of any module."""
    (one, many) = (image(512, 7, batch=batch) for batch in (1, 64))
    assert TransformConv().run(one) == TransformConv().run(many)
    assert reason(one) == reason(many)


@pytest.mark.parametrize(
    "given",
    [
        {"channels": 20},
        {"channels": 32, "taps": 5},
        {"channels": 32, "groups": 2},
        {"channels": 32, "stride": (2, 2)},
        {"channels": 32, "dilation": (2, 2), "padding": (2, 2)},
    ],
)
def test_what_it_is_not_for_is_left_alone(given: dict[str, Any]) -> None:
    size = (10, 10) if "stride" in given else (20, 20)
    graph = image(**{"size": 20, "extents": size, **given})
    check_left_alone(TransformConv(), graph)
    assert reason(graph) == ""
    graph.nodes[0].as_op(Conv).winograd = True
    with pytest.raises(VerificationError, match="Winograd's convolution where"):
        verify(graph, "the test")


@pytest.mark.parametrize("weight", [np.inf, 3e38])
def test_weights_that_would_overflow_are_left_alone(weight: float) -> None:
    graph = image(16, 12)
    data = graph.nodes[0].operands["weight"].data
    assert data is not None
    data[3, 4] = weight
    check_left_alone(TransformConv(), graph)
    assert re.search("rounding (nan|inf); left direct", reason(graph))


def test_so_many_channels_that_rounding_shows_are_left_alone() -> None:
    graph = image(8192, 24, 16)
    check_left_alone(TransformConv(), graph)
    assert "rounding 1.1e-05; left direct" in reason(graph)
