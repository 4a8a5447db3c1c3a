"""Numbers that a model computes from sizes in tensors and reads back: expressions of the sizes."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from captured import Function, arrays  # noqa: E402
from graphs import assert_close  # noqa: E402

from graphopt.compiler.pipeline import PassManager, lowering_passes  # noqa: E402
from graphopt.config import Config  # noqa: E402
from graphopt.frontend.capture import capture  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.testing import FP32_RELATIVE  # noqa: E402

AUTO = torch.export.Dim.AUTO


class Strided(torch.nn.Module):
    """A convolution that pads as its buffers and the size say, as those of codecs do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(2, 3, 5, stride=3)
        self.register_buffer("stride", torch.tensor(3), persistent=False)
        self.register_buffer("kernel", torch.tensor(5), persistent=False)
        self.eval()

    def forward(self, x: Any) -> Any:
        frames = torch.ceil((x.shape[-1] - self.kernel) / self.stride + 1).to(torch.int64) - 1
        missing = frames * self.stride + self.kernel - x.shape[-1]
        return self.conv(F.pad(x, (0, missing)))


def halves(x: Any) -> Any:
    half = torch.div(torch.tensor(x.shape[-1]), 2, rounding_mode="trunc")
    sizes = torch.as_tensor([half, x.shape[1] * 2])
    y = x.reshape(x.shape[0], -1)[:, : sizes.prod()] * sizes[0]
    return y, x[..., half:], torch.arange(int(sizes.max().clamp(max=7))), x[..., : max(half, 3)]


def written(x: Any) -> Any:
    """What is read behind a write is what was written."""
    size = torch.tensor([x.shape[-1], 4])
    view = size[1:]
    view += 1
    return x.repeat(1, 1, 2)[..., : size[1].item()]


CASES: dict[str, Any] = {"strided": Strided(), "halves": Function(halves)}


@pytest.mark.parametrize("name", CASES)
def test_numbers_made_of_sizes_are_known_while_a_model_is_captured(name: str) -> None:
    model = CASES[name]
    graph = capture(model, (torch.randn(2, 2, 20),), dynamic_shapes=({0: AUTO, 2: AUTO},)).graph
    PassManager(Config(verify=True)).run(graph, lowering_passes())
    assert [n.op.name for n in graph.nodes if not n.is_lowered] == []
    for x in (torch.randn(2, 2, 20), torch.randn(3, 2, 31)):
        with torch.no_grad():
            assert_close(run_graph(graph, arrays(x)), arrays(model(x)), FP32_RELATIVE)
