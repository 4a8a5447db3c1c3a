"""Random small models: compiled fp32 equals eager on every level, at two lengths and thread counts.

A failure prints the test's command and hypothesis' blob; examples are the same in every run.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from captured import arrays, lowered  # noqa: E402
from graphs import build, emit, native_levels  # noqa: E402
from hypothesis import Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from graphopt.capture import capture  # noqa: E402
from graphopt.testing import relative_error  # noqa: E402

# Up to seven layers: each adds a few units of 6e-8 times the growth of its input's error, which
# norms of small rows and exponentials raise by ten or so. A wrong element is an error above 0.1.
BOUND = 2e-4
WIDTH = 8
VARYING = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO, 2: torch.export.Dim.STATIC}
COMMAND = f"{sys.executable} -m pytest tests/fuzz/test_random_graphs.py"


class Model(nn.Module):
    """Steps on x [batch, time, 8] one after the other; each may read earlier results."""

    def __init__(self, steps: list[tuple[str, int, int]]) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.layers = nn.ModuleList(LAYERS[kind](pick) for kind, pick, _ in steps)
        self.steps = steps
        self.eval()

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
        results = [x]
        for layer, (_, _, back) in zip(self.layers, self.steps, strict=True):
            earlier = results[max(0, len(results) - 2 - back)]
            results.append(layer(results[-1], mask, earlier))
        return results[-1], results[len(results) // 2] * 1.0


class Layer(nn.Module):
    """A function of (x, mask, earlier result) and a module."""

    def __init__(
        self, function: Callable[..., torch.Tensor], module: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.function = function
        self.module = module or nn.Identity()

    def forward(self, x: Any, mask: Any, earlier: Any) -> Any:
        return self.function(self.module, x, mask, earlier)


ACTIVATIONS = (
    torch.relu,
    torch.tanh,
    torch.sigmoid,
    nn.functional.gelu,
    nn.functional.silu,
    torch.sin,
)


def attention(module: nn.Module, x: Any, mask: Any, earlier: Any) -> Any:
    q, k, v = module(x).reshape(x.shape[0], x.shape[1], 3, 2, 4).unbind(2)
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(-1, -2) / 2.0
    scores = scores.masked_fill(mask[:, None, None, :, 0] < 0.5, -1e32)
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)


def convolution(padding: str) -> Callable[..., Any]:
    def run(module: nn.Module, x: Any, mask: Any, earlier: Any) -> Any:
        y = x.transpose(1, 2)
        if padding == "before":
            y = nn.functional.pad(y, (2, 0))
        return module(y).transpose(1, 2)

    return run


def memory_block(module: nn.Module, x: Any, mask: Any, earlier: Any) -> Any:
    u = x * mask
    y = module(nn.functional.pad(u.transpose(1, 2), (1, 1))).transpose(1, 2)
    return (y + u) * mask


LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "linear": lambda n: Layer(lambda f, x, m, e: f(x), nn.Linear(WIDTH, WIDTH, bias=n % 2 == 0)),
    "feed_forward": lambda n: Layer(
        lambda f, x, m, e: f(x) + x,
        nn.Sequential(
            nn.Linear(WIDTH, 20), (nn.ReLU, nn.GELU, nn.SiLU)[n % 3](), nn.Linear(20, WIDTH)
        ),
    ),
    "norm": lambda n: Layer(lambda f, x, m, e: f(x), nn.LayerNorm(WIDTH, 1e-3)),
    "activation": lambda n: Layer(lambda f, x, m, e: ACTIVATIONS[n % len(ACTIVATIONS)](x)),
    "add": lambda n: Layer(lambda f, x, m, e: x + e * 0.5),
    "multiply": lambda n: Layer(lambda f, x, m, e: x * torch.tanh(e)),
    "mask": lambda n: Layer(lambda f, x, m, e: x * m),
    "softmax": lambda n: Layer(lambda f, x, m, e: x.softmax((-1, 1)[n % 2]) * 4),
    "conv": lambda n: Layer(convolution("both"), nn.Conv1d(WIDTH, WIDTH, 3, padding=1)),
    "grouped": lambda n: Layer(
        convolution("both"), nn.Conv1d(WIDTH, WIDTH, 3, padding=1, groups=2)
    ),
    "causal": lambda n: Layer(
        convolution("before"), nn.Conv1d(WIDTH, WIDTH, 3, groups=(1, WIDTH)[n % 2])
    ),
    "memory": lambda n: Layer(
        memory_block, nn.Conv1d(WIDTH, WIDTH, 3, groups=WIDTH, bias=n % 2 == 0)
    ),
    "halves": lambda n: Layer(lambda f, x, m, e: torch.cat([x[..., 4:], e[..., :4]], -1)),
    "strided": lambda n: Layer(
        lambda f, x, m, e: torch.stack([x[..., ::2], e[..., 1::2]], -1).flatten(2)
    ),
    "shift": lambda n: Layer(lambda f, x, m, e: torch.cat([e[:, :1], x[:, : x.shape[1] - 1]], 1)),
    "mean": lambda n: Layer(lambda f, x, m, e: x - x.mean((1, 2)[n % 2], keepdim=True)),
    "turn": lambda n: Layer(lambda f, x, m, e: (x.transpose(1, 2) * 2).tanh().transpose(1, 2)),
    "split_heads": lambda n: Layer(
        lambda f, x, m, e: (
            (x.unflatten(2, (2, 4)).permute(0, 2, 1, 3) + 1).transpose(1, 2).flatten(2)
        )
    ),
    "attention": lambda n: Layer(attention, nn.Linear(WIDTH, 24)),
}


def check(steps: list[tuple[str, int, int]]) -> None:
    """Raises AssertionError with the model and the command that repeats it."""
    try:
        compare(Model(steps))
    except Exception as error:
        raise AssertionError(f"{error}\nModel({steps!r})\nrepeat with: {COMMAND}") from error


def compare(model: Model) -> None:

    def example(batch: int, time: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(batch * 100 + time)
        lengths = torch.randint(1, time + 1, (batch,), generator=generator)
        lengths[0] = time
        mask = (torch.arange(time)[None] < lengths[:, None]).float()[..., None]
        return torch.randn(batch, time, WIDTH, generator=generator), mask

    cases = [example(1, 6), example(3, 19)]
    graph = lowered(capture(model, example(2, 9), None, {"x": VARYING, "mask": VARYING}).graph)
    assert all(n.is_lowered for n in graph.nodes)
    with torch.inference_mode():
        wanted = [arrays(model(*case)) for case in cases]
    module = emit(graph)
    with tempfile.TemporaryDirectory() as folder:
        for level in native_levels():
            library = build(module, level, Path(folder))
            for threads in (1, 2):
                context = library.context(threads)
                for case, reference in zip(cases, wanted, strict=True):
                    for got, y in zip(context.run(arrays(case)), reference, strict=True):
                        error = relative_error(got, y)
                        assert error < BOUND, f"{level}, {threads} threads: {error:.3g}"


STEPS = st.tuples(st.sampled_from(sorted(LAYERS)), st.integers(0, 5), st.integers(0, 3))


# Building a model takes a second, so shrinking would take minutes; the models are small anyway.
@settings(max_examples=14, phases=[Phase.explicit, Phase.generate])
@given(st.lists(STEPS, min_size=2, max_size=7))
def test_compiled_equals_eager(steps: list[tuple[str, int, int]]) -> None:
    check(steps)


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_every_layer_alone(kind: str) -> None:
    check([(kind, 0, 0), (kind, 1, 1)])
