"""What torch.export assumed about sizes holds in the compiled module, or the call is refused."""

from typing import Any

import pytest
import torch
from torch import nn

import graphopt
from graphopt.errors import InputConditionError, InputShapeError
from graphopt.testing import FP32_RELATIVE


class Halve(nn.Module):
    """Splits the second axis into pairs: its size must be even."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], x.shape[1] // 2, 2, x.shape[2]) * 2


class Shifted(nn.Module):
    """Adds a tensor that must be two shorter."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x[:, 2:] + y


class Strided(nn.Module):
    """Adds a tensor as long as the result of a strided convolution over at least three steps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, stride=2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + y


def _inputs(*shapes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


CASES = [
    (Halve(), [((2, 8, 3),), ((3, 6, 5),)], InputConditionError, ((2, 7, 3),)),
    (Shifted(), [((2, 8, 3), (2, 6, 3)), ((1, 18, 4), (1, 16, 4))], InputShapeError,
     ((2, 8, 3), (2, 7, 3))),
    (Strided(), [((2, 4, 9), (2, 4, 4)), ((1, 4, 19), (1, 4, 9))], InputConditionError,
     ((1, 4, 2), (1, 4, 1))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "fitting", "error", "misfit"), CASES, ids=["halve", "shifted", "strided"]
)
def test_sizes_follow_the_model(
    model: nn.Module, fitting: list[Any], error: type[Exception], misfit: Any
) -> None:
    model.eval()
    fast = graphopt.optimize(
        model, precision="fp32", example_inputs=_inputs(*fitting[0]), strict=True
    )
    for shapes in fitting:
        inputs = _inputs(*shapes)
        with torch.inference_mode():
            expected = model(*inputs)
            error_of = (fast(*inputs) - expected).abs().max() / expected.abs().max()
        assert error_of < FP32_RELATIVE
    with pytest.raises(error):
        fast(*_inputs(*misfit))


def test_condition_is_checked_by_a_package(tmp_path: Any) -> None:
    fast = graphopt.optimize(Halve().eval(), precision="fp32", example_inputs=_inputs((2, 8, 3)))
    fast.save(tmp_path / "halve.gopt")
    loaded = graphopt.load(tmp_path / "halve.gopt")
    assert loaded(*_inputs((1, 4, 3))).shape == (1, 2, 2, 3)
    with pytest.raises(InputConditionError, match="T"):
        loaded(*_inputs((1, 5, 3)))
