"""What torch.export assumed about sizes holds in the compiled module, or the call is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captured import Function, arrays
from torch import nn

import graphopt
from graphopt.compiler.module import MOST_SPECIALIZATIONS
from graphopt.compiler.pipeline import PassManager, lowering_passes
from graphopt.compiler.specialization import Specialization
from graphopt.config import Config
from graphopt.errors import (
    CaptureError,
    EmptyInputError,
    InputConditionError,
    InputError,
    InputShapeError,
)
from graphopt.frontend.capture import capture
from graphopt.ir.interpret import run_graph
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


def _times(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] == 1 else x * 3


def _doubled_steps(x: torch.Tensor) -> torch.Tensor:
    """Torch takes the squeeze for one that keeps the axis, and learns that it is 1 later."""
    y = torch.ones(x.squeeze(0).shape[0], 4)
    y[-3::3] = y[-3::3] * 2
    return y * x.sum()


#: Models of which sizes decide, with sizes in the order of the calls.
BRANCHES: dict[str, tuple[Any, list[Any]]] = {
    "a batch of one": (_times, [(2, 4), (1, 4), (3, 5)]),
    "another batch than one": (_times, [(1, 4), (3, 5)]),
    "a length": (lambda x: x * 2 if x.shape[1] > 4 else x * 3, [(2, 4), (2, 5), (1, 1), (1, 9)]),
    "squeeze": (
        lambda x: x.squeeze() * 2,
        [(2, 3, 1, 4), (1, 3, 1, 4), (2, 1, 1, 4), (1, 1, 1, 1)],
    ),
    "squeeze the batch": (lambda x: x.squeeze(0) * 2, [(1, 2, 3), (2, 2, 3), (1, 5, 3)]),
    "squeeze a copy": (lambda x: torch.squeeze_copy(x, 0), [(1, 2, 3), (2, 2, 3), (1, 5, 3)]),
    "squeeze what is left": (lambda x: x[:, 1:].squeeze(1) * 2, [(2, 4), (2, 2), (3, 3)]),
    "squeeze for the shape": (
        lambda x: torch.ones(x.squeeze(0).shape).mul_(2),
        [(1, 2, 3), (2, 2, 3), (1, 5, 3)],
    ),
    "squeeze beside an axis of 1": (
        lambda x: x.narrow(0, 0, 1).squeeze((0, 1)),
        [(2, 6, 3), (2, 1, 3), (1, 4, 3)],
    ),
    "squeeze what turns out to be 1": (_doubled_steps, [(1, 7), (2, 7), (1, 9), (5, 7)]),
    "parts": (lambda x: (x * 2).split(3)[-1] + 1, [(3, 4), (5, 4), (2, 4), (7, 4)]),
    "an op in torch": (lambda x: x.lgamma().split(3)[-1], [(3, 4), (5, 4), (7, 4)]),
    "steps": (lambda x: sum(x + i for i in range(x.shape[0])), [(2, 4), (3, 4), (1, 4)]),
    "a number": (lambda x: x * int(x.shape[1]), [(2, 4), (2, 5)]),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_sizes_that_take_another_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, shapes = BRANCHES[name]
    model = Function(function)
    monkeypatch.setattr(
        Specialization, "run", Specialization.interpret
    )  # the graph is in question, not its code
    fast = graphopt.optimize(model, precision="fp32")
    for shape in (*shapes, shapes[0]):
        (x,) = _inputs(shape)
        torch.testing.assert_close(fast(x), model(x), rtol=FP32_RELATIVE, atol=FP32_RELATIVE)
    assert 1 < len(fast._captured()) < len(shapes) + 1


def test_operands_that_begin_to_broadcast(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Function(lambda x, y: x + y)
    monkeypatch.setattr(Specialization, "run", Specialization.interpret)
    fast = graphopt.optimize(model, precision="fp32")
    for shapes in (((1, 4), (2, 4)), ((3, 4), (3, 4)), ((3, 4), (1, 4)), ((3, 1), (3, 5))):
        x, y = _inputs(*shapes)
        assert torch.equal(fast(x, y), x + y)
    with pytest.raises(InputShapeError):
        fast(*_inputs((3, 4), (2, 4)))


def test_sizes_that_would_divide_by_zero() -> None:
    fast = graphopt.optimize(Function(lambda x: x.view(x.shape[0], 2, -1) * 2), precision="fp32")
    fast(*_inputs((2, 4)))
    with pytest.raises(EmptyInputError, match="axis 0"):
        fast(*_inputs((0, 4)))


@pytest.mark.parametrize("first", [(), ((2, 4),)])
def test_no_elements_where_all_is_torchs(first: Any) -> None:
    model = Function(lambda x: x.erfinv() if x.shape[0] else torch.zeros(3))
    fast = graphopt.optimize(model, check=False)
    for shape in first:
        fast(*_inputs(shape))
    with pytest.raises(EmptyInputError, match="axis 0"):
        fast(*_inputs((0, 4)))


def test_sizes_of_ever_another_form_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Function(lambda x: x * int(x.shape[1]))
    monkeypatch.setattr(Specialization, "run", Specialization.interpret)
    fast = graphopt.optimize(model, precision="fp32")
    for length in range(2, 2 + MOST_SPECIALIZATIONS):
        fast(*_inputs((1, length)))
    with pytest.raises(InputShapeError, match="size 20 along axis 1"):
        fast(*_inputs((1, 20)))


@pytest.mark.parametrize("shape", [(1, 4), (3, 4)])
def test_a_package_refuses_sizes_that_take_another_way(tmp_path: Any, shape: Any) -> None:
    model, (x,) = Function(_times), _inputs(shape)
    graphopt.optimize(model, precision="fp32", example_inputs=(x,)).save(tmp_path / "times.gopt")
    loaded = graphopt.load(tmp_path / "times.gopt")
    torch.testing.assert_close(loaded(x), model(x))
    with pytest.raises(InputError, match="axis 0"):
        loaded(*_inputs((3, 4) if shape[0] == 1 else (1, 4)))


def test_a_package_tells_constants_apart(tmp_path: Any) -> None:
    model, (x,) = Function(lambda x, k, n: x * k + n), _inputs((2, 4))
    example = (x, 1, float("inf"))
    graphopt.optimize(model, precision="fp32", example_inputs=example).save(tmp_path / "k.gopt")
    loaded = graphopt.load(tmp_path / "k.gopt")
    assert torch.equal(loaded(*example), model(*example))
    for other in (True, 1.0):
        with pytest.raises(InputError, match=f"called with {other}"):
            loaded(x, other, float("inf"))


def test_declared_sizes_have_no_second_form(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Function(lambda x: torch.cumsum(_times(x), 1))
    shapes = {"tensors": ({0: torch.export.Dim.AUTO},)}
    fast = graphopt.optimize(
        model, precision="fp32", example_inputs=_inputs((2, 4)), dynamic_shapes=shapes
    )
    with pytest.raises(InputConditionError, match=r"Ne\(B, 1\) \(B is axis 0 of 'tensors_0'\)"):
        fast(*_inputs((1, 4)))
    squeezed, doubled = (Function(f) for f in (lambda x: x.squeeze(0), _of_three))
    for model, batch in ((squeezed, 1), (doubled, 3)):
        for dim in (torch.export.Dim.DYNAMIC, torch.export.Dim("B")):
            with pytest.raises(CaptureError, match=r"fixes .* (axis 0 of tensors_0|B), which"):
                graphopt.optimize(
                    model,
                    example_inputs=_inputs((batch, 4)),
                    dynamic_shapes={"tensors": ({0: dim},)},
                )


def _of_three(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] == 3 else x


@pytest.mark.parametrize(
    "rows",
    [lambda x: nn.functional.glu(x, -1), lambda x: torch.cat([-x[..., 8:], x[..., :8]], -1)],
    ids=["half", "rotated"],
)
def test_an_expression_of_sizes_that_a_weight_fixes(
    rows: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    x = torch.randn(2, 3, 16)
    weight = torch.randn(5, rows(x).shape[-1])
    model = Function(lambda x: nn.functional.linear(rows(x), weight))
    fast = graphopt.optimize(model, example_inputs=(x,), precision="fp32", check=False)
    torch.testing.assert_close(fast.interpret(x), model(x))
    with pytest.raises(InputConditionError):
        fast.interpret(torch.randn(2, 3, 10))


def test_conditions_with_minima_of_sizes() -> None:
    def halves(x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.glu(x, 1)
        y.chunk(2, -1)[0].clamp_(min=0)
        return y

    x = torch.randn(3, 16)
    captured = capture(Function(halves), (x,))
    lowered = PassManager(Config()).run(captured.graph, lowering_passes())
    (got,) = run_graph(lowered, arrays((x,)))
    np.testing.assert_allclose(got, halves(x).numpy(), FP32_RELATIVE, FP32_RELATIVE)


def test_rows_of_a_table_that_a_longer_input_would_repeat() -> None:
    table = torch.randn(1, 12, 4)

    def moved(x: torch.Tensor) -> torch.Tensor:
        rows = table[:, : x.shape[1]][:, -x.shape[1] :]
        return (rows * 2).expand_as(x).reshape(-1) + x.reshape(-1)

    x = torch.randn(2, 5, 4)
    fast = graphopt.optimize(Function(moved), example_inputs=(x,), precision="fp32")
    for steps in (1, 5, 12):
        x = torch.randn(3, steps, 4)
        torch.testing.assert_close(fast(x), moved(x))
    with pytest.raises(InputConditionError):
        fast(torch.randn(1, 13, 4))


def test_a_flag_that_a_size_decides() -> None:
    def attend(x: torch.Tensor) -> torch.Tensor:
        x = x[:, :, ::2]
        causal = x.shape[2] > 1
        return nn.functional.scaled_dot_product_attention(x, x, x, is_causal=causal)

    model = Function(attend)
    fast = graphopt.optimize(model, example_inputs=(torch.randn(2, 2, 6, 4),), check=False)
    for steps in (5, 1):
        x = torch.randn(1, 2, steps, 4)
        torch.testing.assert_close(fast.interpret(x), model(x))
