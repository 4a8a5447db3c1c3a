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


def tile(graph, cores: int) -> tuple[int, int]:
    """Positions and channels of a task."""
    ParallelizeConv(replace(TARGET, cores=cores)).run(graph)
    op = graph.nodes[0].op
    return op.tile_rows, op.tile_cols


def test_decides_once_and_says_why(golden) -> None:
    graph = conv(1, 64, 512).graph
    golden("parallelize_conv", check_pass(ParallelizeConv(replace(TARGET, cores=4)), graph))
    (reason,) = graph.nodes[0].reasons
    assert reason == (
        "parallelize_conv: 4 tasks of 132 positions x 64 channels x 192 values for 4 cores, "
        "balance 0.97 at the example size (512 positions, 1 groups)"
    )


@pytest.mark.parametrize("cores, rows", [(1, 174), (4, 132), (8, 132), (16, 66)])
def test_more_cores_get_smaller_tasks(cores: int, rows: int) -> None:
    assert tile(conv(1, 64, 512).graph, cores) == (rows, 64 if cores < 8 else 32)


def test_groups_are_tasks_too() -> None:
    assert tile(conv(1, 64, 240, groups=4).graph, 4) == (240, 32)


def test_few_positions_are_cut_by_channels() -> None:
    """The last convolutions of a residual network: 7 x 7 positions, 512 channels."""
    assert tile(conv(1, 512, 49).graph, 2) == (54, 256)
    assert tile(conv(1, 512, 49).graph, 16) == (54, 32)


def test_windows_stay_in_the_second_cache() -> None:
    rows, _ = tile(conv(1, 512, 3000).graph, 1)
    assert rows * 512 * 3 * 4 <= 512 * 1024


def test_tasks_keep_enough_work() -> None:
    # 2 channels x 3 taps x 2 = 12 MACs a position: to begin a task takes longer than most of it.
    assert tile(conv(1, 2, 240).graph, 16) == (60, 32)


def test_an_empty_example_is_one_task() -> None:
    assert tile(conv(0, 16, 100).graph, 1) == tile(conv(1, 16, 1).graph, 1)


@pytest.mark.parametrize("size, channels", [(56, 64), (28, 128), (14, 256), (7, 512)])
def test_balance_on_sixteen_cores(size: int, channels: int) -> None:
    """Of the convolutions of a residual network."""
    graph = conv(1, channels, size * size).graph
    tile(graph, 16)
    (reason,) = graph.nodes[0].reasons
    assert float(reason.partition("balance ")[2][:4]) >= 0.9


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
