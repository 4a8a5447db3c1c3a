"""Tasks of a convolution: balanced, and not too small."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graphs import Maker, check_left_alone, check_pass

import graphopt
from graphopt.passes.parallelize_conv import ParallelizeConv
from graphopt.target import find_target

TARGET = find_target("neoverse-n2")


def conv(batch: int, channels: int, time: int, groups: int = 1, kernel: int = 3) -> Maker:
    m = Maker()
    x = m.input("x", batch, channels, time)
    weight = m.constant("w", channels, channels // groups, kernel)
    m.output(m.conv(x, weight, *x.shape, padding=(0, kernel // 2), groups=groups))
    return m


def tile(graph, cores: int) -> int:
    ParallelizeConv(replace(TARGET, cores=cores)).run(graph)
    return graph.nodes[0].op.tile_rows


def test_decides_once_and_says_why(golden) -> None:
    graph = conv(1, 64, 512).graph
    golden("parallelize_conv", check_pass(ParallelizeConv(replace(TARGET, cores=4)), graph))
    (reason,) = graph.nodes[0].reasons
    assert reason == (
        "parallelize_conv: 4 tasks of 128 positions x 12288 MACs for 4 cores, balance 1.00 at the "
        "example size (512 positions, 1 groups)"
    )


@pytest.mark.parametrize("cores, rows", [(1, 256), (2, 256), (4, 128), (8, 64), (16, 32)])
def test_more_cores_get_smaller_tiles(cores: int, rows: int) -> None:
    assert tile(conv(1, 64, 512).graph, cores) == rows


def test_groups_are_tasks_too() -> None:
    assert tile(conv(1, 64, 256, groups=4).graph, 4) == 256


def test_tasks_keep_enough_work() -> None:
    # 2 channels x 3 taps x 2 = 12 MACs a position: below 16 Ki even at the largest tile.
    assert tile(conv(1, 2, 512).graph, 16) == 256


def test_an_empty_example_is_one_task() -> None:
    assert tile(conv(0, 16, 100).graph, 1) == tile(conv(1, 16, 1).graph, 1)


def test_unbalanced_everywhere_takes_the_best() -> None:
    # 9 positions: one task of 16 or two of 8 for three cores
    assert tile(conv(1, 64, 9).graph, 3) == 8


def test_other_nodes_and_decided_ones_are_left_alone() -> None:
    m = Maker()
    check_left_alone(ParallelizeConv(TARGET), m.output(m.linear(m.input("x", "B", 4), 4)))
    graph = conv(1, 4, 8).graph
    graph.nodes[0].op.tile_rows = 8
    check_left_alone(ParallelizeConv(TARGET), graph)


def test_serial_convolutions_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    model = nn.Sequential(nn.Conv1d(24, 24, 5, groups=24, padding=2), nn.Conv1d(24, 40, 3)).eval()
    x = torch.randn(2, 24, 300, generator=torch.Generator().manual_seed(0))

    def run() -> tuple[np.ndarray[Any, Any], str]:
        fast = graphopt.optimize(model, precision="fp32", example_inputs=(x,), num_threads=2)
        with torch.inference_mode():
            return fast(x).numpy(), fast.dump()

    expected, _ = run()
    monkeypatch.setenv("GRAPHOPT_SERIAL_CONV", "1")
    result, text = run()
    assert text.count("serial=True") == 2
    np.testing.assert_array_equal(result, expected)
