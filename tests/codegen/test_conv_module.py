"""Convolutions from torch to C: every shape, with what follows them fused, on every level."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from captured import arrays, captured, lowered  # noqa: E402
from graphs import assert_close, build, emit, native_levels, ops  # noqa: E402
from torch import nn  # noqa: E402

from graphopt.ir.printer import print_graph  # noqa: E402
from graphopt.testing import FP32_RELATIVE  # noqa: E402

torch.manual_seed(0)

# name: module, input, ops that must be left after fusion
CASES = {
    "1d": (nn.Conv1d(7, 9, 3, padding=1), (2, 7, 13), {"conv"}),
    "1d strided, dilated, no bias": (
        nn.Conv1d(6, 8, 3, stride=2, padding=2, dilation=2, bias=False),
        (2, 6, 15),
        {"conv"},
    ),
    "1d grouped": (nn.Conv1d(8, 12, 5, groups=4), (1, 8, 11), {"conv"}),
    "1d depthwise": (nn.Conv1d(10, 10, 4, padding=2, groups=10), (2, 10, 9), {"depthwise"}),
    "1d pointwise": (nn.Conv1d(5, 17, 1), (3, 5, 6), {"linear"}),
    "2d": (nn.Conv2d(3, 8, 3, padding=1), (2, 3, 7, 6), {"conv"}),
    "2d padded unevenly": (
        nn.Sequential(nn.ZeroPad2d((0, 1, 2, 1)), nn.Conv2d(4, 6, 3, stride=2, padding=1)),
        (1, 4, 9, 14),
        {"conv"},
    ),
    "2d strided": (nn.Conv2d(4, 6, (3, 5), stride=(2, 3), padding=(1, 0)), (1, 4, 9, 14), {"conv"}),
    "2d grouped": (nn.Conv2d(6, 9, 3, groups=3, dilation=(1, 2)), (2, 6, 6, 8), {"conv"}),
    "2d depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), (1, 8, 6, 5), {"conv"}),
    "2d depthwise along one axis": (
        nn.Conv2d(8, 8, (5, 1), groups=8),
        (2, 8, 12, 1),
        {"depthwise"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_against_torch(tmp_path, name: str) -> None:
    module, shape, expected = CASES[name]

    def model(x, conv):
        residual = torch.sin(conv(x * 3))
        return conv(x), nn.functional.gelu(conv(x * 2)) + residual, torch.relu(conv(x - 1))

    x = torch.randn(shape)
    graph = lowered(captured(model, x, conv=module).graph)
    assert expected <= set(ops(graph)), ops(graph)
    if expected == {"conv"}:  # activation and residual are the kernel's
        assert ops(graph).count("pointwise") == 4, ops(graph)  # x * 3, sin, x * 2, x - 1
    with torch.no_grad():
        wanted = [arrays(model(a, module)) for a in (x, x.abs())]
    emitted = emit(graph)
    for level in native_levels():
        library = build(emitted, level, tmp_path)
        for threads in (1, 2, 3):
            context = library.context(threads)
            for a, reference in zip((x, x.abs()), wanted, strict=True):
                got = context.run([a.numpy()])
                assert_close(got, reference, FP32_RELATIVE)


def test_other_lengths(tmp_path) -> None:
    conv = nn.Conv1d(6, 8, 3, stride=2, padding=1)

    def model(x, conv):
        return torch.relu(conv(x.transpose(1, 2))).transpose(1, 2)

    graph = lowered(captured(model, torch.randn(2, 9, 6), conv=conv).graph)
    context = build(emit(graph), native_levels()[-1], tmp_path).context(2)
    for batch, time in ((1, 1), (1, 2), (3, 40), (2, 331)):
        x = torch.randn(batch, time, 6)
        with torch.no_grad():
            assert_close(context.run([x.numpy()]), arrays(model(x, conv)), FP32_RELATIVE)


def test_transformed_tiles_of_any_size_and_batch(tmp_path) -> None:
    """One of which weights are packed once transformed and once not; bits are those of one image,
    on any number of threads."""
    conv = nn.Conv2d(16, 24, 3, padding=1)

    def model(x, conv):
        y = nn.functional.silu(conv(x))
        return y, y + conv(2 * x), nn.functional.conv2d(x, conv.weight, stride=2)

    graph = lowered(captured(model, torch.randn(2, 16, 23, 20), conv=conv).graph)
    emitted = emit(graph)
    assert [n.kernel for n in graph.nodes].count("go_winograd") == 2, print_graph(graph)
    library = build(emitted, native_levels()[-1], tmp_path)
    contexts = [library.context(threads) for threads in (1, 2, 3)]
    for batch, height, width in ((1, 1, 1), (1, 4, 5), (3, 26, 9), (2, 41, 64)):
        x = torch.randn(batch, 16, height + 2, width + 2)
        with torch.no_grad():
            expected = arrays(model(x, conv))
        results = [context.run([x.numpy()]) for context in contexts]
        assert_close(results[0], expected, FP32_RELATIVE)
        alone = contexts[1].run([x[-1:].numpy()])
        for first, *others, one in zip(*results, alone, strict=True):
            assert all(np.array_equal(first, other) for other in others)
            assert np.array_equal(first[-1:], one)
