"""`torch.compile(model, backend="graphopt")`: pieces of programs, sizes, weights and views."""

import importlib.metadata
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphopt import errors

torch = pytest.importorskip("torch")

import models  # noqa: E402

from graphopt.compiler import adapter, specialization, torch_compile  # noqa: E402
from graphopt.compiler.torch_compile import LeftInTorchWarning  # noqa: E402

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
#: Results are compared here, with other inputs too.
FP32 = {"precision": "fp32", "check": False}


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error", LeftInTorchWarning)
        yield


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with every capture."""
    done: list[str] = []
    capture = specialization.capture
    monkeypatch.setattr(specialization, "capture", lambda *a: done.append("") or capture(*a))
    return done


def compiled(model: Any, options: Any = FP32, **how: Any) -> Any:
    return torch.compile(model, backend="graphopt", options=options, **how)


def close(got: Any, expected: Any) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


class Broken(torch.nn.Module):
    """A break in the middle; sizes, a number and views among the results."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 4)
        self.register_buffer("shift", torch.ones(4))
        self.scale = torch.full((4,), 2.0)

    def forward(self, x: Any, number: int) -> Any:
        y = (self.linear(x) + self.shift) * self.scale
        y = y.reshape(x.shape[0] * x.shape[1], -1) * number
        torch._dynamo.graph_break()
        z = torch.relu(y)
        return z, z[1:], x[:, 1:], x.shape[1]


def test_one_capture_of_each_piece_for_all_lengths_and_numbers(captures: list[str]) -> None:
    model = Broken().eval()
    fast = compiled(model, dynamic=True)
    for length in (5, 7, 33):
        x = torch.randn(2, length, 4)
        got, expected = fast(x, 3 + length), model(x, 3 + length)
        assert got[3] == length
        close(got[:3], expected[:3])
        # What shares memory with another result, or with an argument, still does.
        got[0].add_(1)
        assert torch.equal(got[0][1:], got[1])
        got[2].zero_()
        assert not x[:, 1:].any() and x[:, :1].all()
    assert len(captures) == 2


def test_lengths_that_torch_finds_to_vary(captures: list[str]) -> None:
    model = models.network()
    fast = compiled(model)
    for length in (5, 7, 9, 40):
        x = torch.randn(2, length, 48)
        close(fast(x), model(x))
    assert len(captures) == 2  # torch.compile takes the first length for the only one


class Attending(torch.nn.Module):
    """Floats that the program holds: torch gives them as tensors where sizes vary."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.factor = 1.5

    def forward(self, x: Any, mask: Any, shift: int) -> Any:
        return self.layer(x, src_key_padding_mask=mask) * self.factor + shift


def test_floats_and_numbers_of_the_program(captures: list[str]) -> None:
    model = Attending().eval()
    fast = compiled(model, dynamic=True)
    for length, shift in ((6, 3), (9, 7), (4, 2)):
        x, mask = torch.randn(2, length, 16), torch.zeros(2, length, dtype=torch.bool)
        mask[0, -2:] = True
        kept = ~mask
        close(fast(x, mask, shift)[kept], model(x, mask, shift)[kept])
    assert len(captures) == 1
    model.factor = 0.25
    close(fast(x, mask, 2)[kept], model(x, mask, 2)[kept])
    with pytest.warns(LeftInTorchWarning, match="is no size"):
        close(fast(x, mask, -5)[kept], model(x, mask, -5)[kept])


def test_weights_that_change_are_seen(captures: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_compile, "_MOST_ATTEMPTS", 4)
    model = models.network(8)
    fast = compiled(model)
    x = torch.randn(2, 3, 8)
    for change in (
        lambda: None,
        lambda: model[0].weight.mul_(2),
        lambda: model.load_state_dict(models.network(8, seed=1).state_dict()),
        lambda: setattr(model[3].bias, "data", torch.ones(24)),
    ):
        change()
        close(fast(x), model(x))
        close(fast(x), model(x))
    assert len(captures) == 4
    model[0].weight.mul_(2)
    with pytest.warns(LeftInTorchWarning, match="its weights have changed 4 times"):
        close(fast(x), model(x))


def test_pieces_that_write_to_arguments() -> None:
    def write(x: Any, y: Any) -> Any:
        x.add_(torch.exp(y))
        return x.sum(-1)

    for both in (False, True):
        x, y = torch.randn(3, 4), torch.randn(3, 4)
        mine, theirs = (x.clone(), y), (x.clone(), y)
        if both:
            mine, theirs = ((t, t) for t in (x.clone(), x.clone()))
        close(compiled(write)(*mine), write(*theirs))
        close(mine[0], theirs[0])

    def write_and_view(x: Any) -> Any:
        x.mul_(2)
        return x[1:], x.exp()

    x = torch.randn(3, 4)
    mine, theirs = x.clone(), x.clone()
    with pytest.warns(LeftInTorchWarning, match="writes in place .*, and a result shares memory"):
        got = compiled(write_and_view)(mine)
    close(got, write_and_view(theirs))
    close(mine, theirs)


def test_results_that_share_memory_without_one_being_a_view_of_the_other() -> None:
    def halves(x: Any) -> Any:
        y = x.exp()
        return y[:2], y[2:]

    x = torch.randn(4, 3)
    with pytest.warns(LeftInTorchWarning, match="two of its results share memory"):
        close(compiled(halves)(x), halves(x))


def test_training_is_left_to_torch_and_says_how_to_infer() -> None:
    model = models.network(8)
    x = torch.randn(2, 3, 8)
    fast = compiled(model)
    with torch.enable_grad():
        with pytest.warns(LeftInTorchWarning, match=r"gradients are wanted .* torch\.no_grad\(\)"):
            y = fast(x)
        y.sum().backward()
    assert model[0].weight.grad is not None
    close(fast(x), y.detach())  # and without gradients it is compiled
    with torch.enable_grad(), pytest.raises(errors.CaptureError, match="gradients are wanted"):
        compiled(model, {**FP32, "strict": True})(x)


def test_what_cannot_be_compiled_runs_in_torch_and_says_why() -> None:
    def turn(x: Any) -> Any:
        return torch.complex(x, x * 2)

    x = torch.randn(3, 40)
    with pytest.warns(LeftInTorchWarning, match=r"a piece of the program: .*complex"):
        close(compiled(turn)(x), turn(x))
    with pytest.raises(errors.CaptureError, match="complex"):
        compiled(turn, {**FP32, "strict": True})(x)
    fast = compiled(lambda x: x.exp() + 1, dynamic=True)
    close(fast(x), x.exp() + 1)
    with pytest.warns(LeftInTorchWarning, match="is empty"):
        assert fast(x[:0]).shape == (0, 40)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"options": {"presicion": "int8"}}, "presicion='int8': there are target, precision, num"),
        ({"options": {"precision": 8}}, "option precision=8: give a name"),
        ({"options": {"dynamic_shapes": ()}}, r"option dynamic_shapes=\(\): there are target"),
        ({"options": {**FP32, "activation_bits": 16}}, "in fp32 does not use it"),
        ({"mode": "max-autotune"}, "mode='max-autotune': graphopt has no modes"),
    ],
)
def test_options_are_refused_by_name(how: dict[str, Any], message: str) -> None:
    fast = torch.compile(lambda x: x + 1, backend="graphopt", **how)
    with pytest.raises(errors.OptionError, match=message):
        fast(torch.randn(3))


def test_options_are_used() -> None:
    model, x = models.network(), torch.randn(2, 5, 48)
    fast = compiled(model, {"precision": "int8", "num_threads": 1})
    difference = float((fast(x) - model(x)).abs().max())
    assert 0 < difference < 0.1


def test_the_entry_point_is_the_backend() -> None:
    ((name, place),) = PROJECT["entry-points"]["torch_dynamo_backends"].items()
    point = importlib.metadata.EntryPoint(name, place, "torch_dynamo_backends")
    assert name == "graphopt" and point.load() is torch_compile.backend
    assert torch._dynamo.lookup_backend(name) is torch_compile.backend
    torch_compile.register()  # again, as where the entry point was loaded first
    assert adapter.torch_compile is torch_compile
