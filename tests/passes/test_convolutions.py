"""Convolutions of every form: their rules in numpy, and as compiled code, against torch."""

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from captured import Function, arrays, captured  # noqa: E402
from graphs import assert_close  # noqa: E402
from torch import nn  # noqa: E402

import graphopt  # noqa: E402
from graphopt.ir import DType  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.passes.lower_aten import LowerAten  # noqa: E402
from graphopt.testing import FP32_RELATIVE, INT8_SQNR, relative_error, sqnr  # noqa: E402

_random = torch.Generator().manual_seed(0)


def randn(*shape: int) -> Any:
    return torch.randn(*shape, generator=_random)


def _filters(*shape: int) -> Any:
    return nn.Parameter(randn(*shape))


SIGNAL, IMAGE, VOLUME = randn(2, 4, 9), randn(2, 4, 7, 6), randn(2, 4, 5, 4, 6)
EACH, HALF = [_filters(6, 4, *[3, 2, 4][:n]) for n in (1, 2, 3)], _filters(6, 2, 4)
BACK = [_filters(4, 3, *[4, 3, 2][:n]) for n in (1, 2, 3)]
POINT, PAIRS, BY_CHANNEL = _filters(4, 3, 1), _filters(4, 2, 3, 3), _filters(4, 1, 2, 2, 3)
BIAS = _filters(6)
GAIN = randn(1, 4)

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "same, odd and even": (
        lambda x: (F.conv1d(x, EACH[0], padding="same"), F.conv1d(x, HALF, BIAS, 1, "same", 3, 2)),
        (SIGNAL,),
    ),
    "same, 2-D": (lambda x: F.conv2d(x, EACH[1], None, 1, "same", (2, 1)), (IMAGE,)),
    "same, 3-D": (lambda x: F.conv3d(x, EACH[2], BIAS, padding="same"), (VOLUME,)),
    "one number for all axes": (lambda x: F.conv2d(x, EACH[1], None, 2, 1, 2), (IMAGE,)),
    "without a batch": (
        lambda x, y: (F.conv1d(x, EACH[0]), F.conv_transpose2d(y, BACK[1], None, 2)),
        (SIGNAL[0], IMAGE[0]),
    ),
    "3-D": (
        lambda x: F.conv3d(x, EACH[2], BIAS, (2, 1, 2), (1, 0, 2), (1, 3, 1)),
        (VOLUME,),
    ),
    "3-D by channel": (lambda x: F.conv3d(x, BY_CHANNEL, None, 1, 1, 2, 4), (VOLUME,)),
    "computed weights": (
        lambda x, g: F.conv1d(x, EACH[0] * g.T, BIAS, 2, 1, 2),
        (SIGNAL, GAIN),
    ),
    "computed weights, 2-D in groups": (
        lambda x, g: F.conv2d(x, PAIRS * g.T[:, :, None, None], None, 1, 1, 1, 2),
        (IMAGE, GAIN),
    ),
    "filters for each item, none without items": (
        lambda x: F.conv2d(
            x.flatten(0, 1)[None],
            (EACH[1] * x.mean((2, 3))[:, None, :, None, None]).flatten(0, 1),
            padding=1,
            groups=x.shape[0],
        ),
        (IMAGE,),
    ),
    "transposed": (
        lambda x: (
            F.conv_transpose1d(x, BACK[0]),
            F.conv_transpose1d(x, BACK[0], BIAS[:3], 2, 1),
            F.conv_transpose1d(x, BACK[0], None, 3, 0, 2),
            F.conv_transpose1d(x, POINT, None, 3, 0, 2),
        ),
        (SIGNAL,),
    ),
    "transposed, dilated": (
        lambda x: (
            F.conv_transpose1d(x, BACK[0], None, 1, 2, 1, 1, 2),
            F.conv_transpose1d(x, BACK[0], None, 2, 1, 0, 1, 2),
            F.conv_transpose1d(x, BACK[0], None, 2, 0, 2, 1, 3),
        ),
        (SIGNAL,),
    ),
    "transposed, in groups": (
        lambda x: (
            F.conv_transpose1d(x, BACK[0], BIAS, 2, 1, 1, 2),
            F.conv_transpose1d(x, BACK[0], None, 2, 1, 0, 4),
        ),
        (SIGNAL,),
    ),
    "transposed, cropped below its input": (
        lambda x: F.conv_transpose1d(x, BACK[0], None, 1, 5, 0, 1, 1),
        (SIGNAL,),
    ),
    "transposed, a bias computed": (
        lambda x, g: F.conv_transpose1d(x, BACK[0], g[0, :3], 2),
        (SIGNAL, GAIN),
    ),
    "transposed, 2-D": (
        lambda x: F.conv_transpose2d(x, BACK[1], BIAS, (2, 3), (1, 0), (1, 2), 2, (1, 2)),
        (IMAGE,),
    ),
    "transposed, 3-D": (
        lambda x: F.conv_transpose3d(x, BACK[2], BIAS[:3], 2, (1, 0, 1), 1),
        (VOLUME,),
    ),
    "other names": (
        lambda x: (
            torch.convolution(x, BACK[0], None, [2], [1], [1], True, [1], 1),
            torch._convolution(x, BACK[0], None, [2], [1], [1], True, [1], 1, *[False] * 4),
            torch._convolution(x, EACH[0], BIAS, [2], [1], [1], False, [0], 1, *[False] * 4),
        ),
        (SIGNAL,),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rules(name: str) -> None:
    """At the sizes of the example and at others: a batch of none, one frame more."""
    function, tensors = CASES[name]
    graph = captured(function, *tensors).graph
    LowerAten().run(graph)
    assert all(n.is_lowered for n in graph.nodes), [n.reasons for n in graph.nodes]
    more, *rest = tensors
    calls = [tensors, (torch.cat([more, more[..., :1]], -1), *rest)]
    if "without" not in name:
        calls.append((more[:0], *rest))
    for given in calls:
        with torch.no_grad():
            wanted = arrays(function(*given))
        got = run_graph(graph, arrays(given))
        assert [g.shape for g in got] == [w.shape for w in wanted]
        assert_close(got, wanted, FP32_RELATIVE, [DType.F32] * len(got))


UP = {
    "1-D": (nn.ConvTranspose1d(32, 16, 8, 4, 2), randn(2, 32, 11)),
    "2-D": (nn.ConvTranspose2d(16, 16, 3, 2, 1, 1), randn(2, 16, 5, 6)),
    "3-D": (nn.Conv3d(16, 16, (2, 3, 3), padding="same"), randn(2, 16, 3, 5, 4)),
    "computed": (nn.Conv1d(8, 16, 3, padding="same"), randn(2, 8, 12)),
}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_code(precision: str) -> None:
    """All of them in one build; int8 leaves the noise of two factors of 8 bits."""

    def model(*given: Any) -> Any:
        *inputs, line, image, volume, computed = given
        filters = computed.weight * inputs[3].mean()
        return (
            torch.relu(line(inputs[0])),
            image(inputs[1]) * 2,
            volume(inputs[2]),
            F.conv1d(inputs[3], filters, computed.bias, padding="same"),
        )

    modules = {f"m{i}": module for i, (module, _) in enumerate(UP.values())}
    plain = Function(model, **modules)
    inputs = [x for _, x in UP.values()]
    fast = graphopt.optimize(plain, precision=precision, example_inputs=tuple(inputs), strict=True)
    with torch.inference_mode():
        for given in (inputs, [torch.cat([x, x[..., :2]], -1)[:1] for x in inputs]):
            for got, wanted in zip(fast(*given), plain(*given), strict=True):
                if precision == "fp32":
                    assert relative_error(got.numpy(), wanted.numpy()) <= FP32_RELATIVE
                else:
                    assert sqnr(got.numpy(), wanted.numpy()) >= INT8_SQNR
