"""`optimize` compares what it compiled with the model, and says where it departs."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from captured import Function  # noqa: E402
from torch import nn  # noqa: E402

import graphopt  # noqa: E402
from graphopt.compiler.rounding_noise import ROUNDINGS, RoundingNoise  # noqa: E402
from graphopt.compiler.specialization import Specialization  # noqa: E402
from graphopt.errors import (  # noqa: E402
    CaptureError,
    ExampleMismatchError,
    NondeterministicModelError,
    OptionError,
)
from graphopt.ir.ops import Linear  # noqa: E402
from graphopt.passes.fuse_epilogue import FuseEpilogue  # noqa: E402
from graphopt.passes.lower_aten import RULES  # noqa: E402
from graphopt.target import native  # noqa: E402

X = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A result of floats in a dict, beside integers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm = nn.Linear(64, 64), nn.LayerNorm(64)
        self.eval()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = torch.relu(self.linear(x))
        return {"normal": self.norm(y).transpose(1, 2), "positive": y > 1e-3}


class Whole(nn.Module):
    """A submodule, and what is made of its result."""

    def __init__(self, inner: nn.Module, result: Callable[..., Any]) -> None:
        super().__init__()
        self.inner, self.result = inner, result

    def forward(self, x: torch.Tensor) -> Any:
        return self.result(self.inner(x))


def refusal(function: Callable[..., Any], *inputs: torch.Tensor) -> str:
    """The text of the error of a check."""
    with pytest.raises(ExampleMismatchError) as caught:
        graphopt.optimize(Function(function), precision="fp32", example_inputs=inputs or (X,))
    return str(caught.value)


def test_agreement_is_reported() -> None:
    fast = graphopt.optimize(Net(), precision="fp32", example_inputs=(X[:, :1].clone(),))
    assert fast.report().checks == (
        "example, compiled: as the model, within 0.0001 of the largest magnitude",
    )
    assert "as the model" in fast.report().title
    fast(X)  # a call of another structure is checked too
    assert len(fast.report().checks) == 2
    assert all("as the model" in line for line in fast.report().checks)


def test_without_check(monkeypatch: pytest.MonkeyPatch) -> None:
    break_relu(monkeypatch)
    fast = graphopt.optimize(Net(), precision="fp32", example_inputs=(X,), check=False)
    assert fast.report().checks == ("example: not compared",)
    with pytest.raises(OptionError, match="check"):
        graphopt.optimize(Net(), check=1)


def test_other_machine_is_checked_in_numpy() -> None:
    target = "neoverse-n2" if native().arch == "x86_64" else "native"
    fast = graphopt.optimize(Net(), target, (X,), precision="int8")
    assert ("in numpy" in fast.report().checks[0]) == (target != "native")


def break_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(RULES["aten.relu"], lower=RULES["aten.abs"].lower)
    monkeypatch.setitem(RULES, "aten.relu", broken)


def test_wrong_rule_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    break_relu(monkeypatch)
    with pytest.raises(ExampleMismatchError) as caught:
        graphopt.optimize(Net(), precision="fp32", example_inputs=(X,))
    text = str(caught.value)
    assert "go.pointwise is the first: %relu" in text and "lower_aten" in text
    assert "test_example_check.py" in text and "torch.relu(self.linear(x))" in text


def test_wrong_pass_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    run = FuseEpilogue.run

    def broken(self: FuseEpilogue, graph: Any) -> bool:
        changed = run(self, graph)
        for node in graph.nodes:
            if isinstance(node.op, Linear):
                node.op.activation = None
        return changed

    monkeypatch.setattr(FuseEpilogue, "run", broken)
    with pytest.raises(ExampleMismatchError, match=r"go\.linear is the first.*fuse_epilogue"):
        graphopt.optimize(Net(), precision="fp32", example_inputs=(X,))


def test_wrong_code_is_told_from_a_wrong_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Specialization.run
    monkeypatch.setattr(
        Specialization, "run", lambda self, args, kwargs: run(self, args, kwargs) + 1
    )
    assert "generated code or a kernel is wrong" in refusal(torch.sin)


def test_wrong_dtype_and_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = dataclasses.replace(RULES["aten.relu"], lower=lambda b: b.permute(b.tensor(), (1, 0, 2)))
    monkeypatch.setitem(RULES, "aten.relu", wide)
    text = refusal(lambda x: torch.relu(x).contiguous())
    assert "float32[5, 2, 64]" in text and "float32[2, 5, 64]" in text


def test_nan_in_other_places(monkeypatch: pytest.MonkeyPatch) -> None:
    finite = dataclasses.replace(RULES["aten.log"], lower=RULES["aten.abs"].lower)
    monkeypatch.setitem(RULES, "aten.log", finite)
    text = refusal(torch.log)
    assert "result 0 is off by inf" in text


def test_random_model_is_named() -> None:
    import random

    class Moody(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * random.random()

    with pytest.raises(NondeterministicModelError, match="Moody"):
        graphopt.optimize(Moody().eval(), precision="fp32", example_inputs=(X,))


def test_amplified_rounding_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of one rounding in f32, which the sine of large numbers makes visible."""
    run = Specialization.run

    def rounded(self: Specialization, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return run(self, tuple(x * (1 + 2.0**-22) for x in args), kwargs)

    monkeypatch.setattr(Specialization, "run", rounded)
    model = Function(lambda x: torch.sin(x * 1e4))
    fast = graphopt.optimize(model, precision="fp32", example_inputs=(X,))
    assert "amplifies rounding" in fast.report().checks[0]


def test_what_is_left_of_a_sum_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rows are of equal numbers, less their mean; more in place of zeros is a fault."""

    def normal(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(x, (48,))

    def leave(part: float) -> None:
        rule = dataclasses.replace(
            RULES["aten.layer_norm"],
            lower=lambda b: b.apply(lambda v: v * part, b.tensor("input")),
            implied=frozenset(["normalized_shape", "cudnn_enable"]),
        )
        monkeypatch.setitem(RULES, "aten.layer_norm", rule)

    rows = torch.ones(2, 48)
    leave(1e-6)
    fast = graphopt.optimize(Function(normal), precision="fp32", example_inputs=(rows,))
    assert "off by 1e-06 from zeros; the model amplifies rounding" in fast.report().checks[0]
    leave(0.1)
    assert "result 0 is off by 0.1 from zeros" in refusal(normal, rows)


def test_other_decisions_of_narrower_numbers_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3,000 random classes the largest and the next are often nearer than a step of int8."""
    torch.manual_seed(0)
    linear, many = nn.Linear(64, 3000), torch.randn(2, 60, 64)

    def function(x: torch.Tensor, linear: nn.Module) -> torch.Tensor:
        return torch.argmax(linear(torch.relu(x)), -1)

    model = Function(function, linear=linear)
    fast = graphopt.optimize(model, precision="int8", example_inputs=(many,))
    assert not torch.equal(fast(many), model(many))
    assert "amplifies rounding" in fast.report().checks[0]
    monkeypatch.setitem(ROUNDINGS, "int8", ROUNDINGS["fp32"])  # too little to decide otherwise
    fast = graphopt.optimize(model, precision="int8", example_inputs=(many,))
    assert "decides as the model" in fast.report().checks[0]
    monkeypatch.undo()
    break_relu(monkeypatch)
    with pytest.raises(ExampleMismatchError, match=r"%relu"):
        graphopt.optimize(model, precision="int8", example_inputs=(many,))


def test_products_inside_a_recurrent_layer_err_too() -> None:
    layer, errors = nn.LSTM(64, 32).eval(), {}
    with torch.no_grad():
        exact, _ = layer(X)
        for precision in ("fp32", "int8"):
            with RoundingNoise(ROUNDINGS[precision], 0):
                errors[precision] = (layer(X)[0] - exact).abs().max()
    assert errors["int8"] > 100 * errors["fp32"] > 0
    assert torch.backends.mkldnn.enabled


def test_the_order_of_equal_elements_is_no_fault() -> None:
    def model(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ranks, places = torch.sort(x, descending=True)
        return ranks, places, x.argsort(), *torch.topk(x.float() / 2, 5)

    equals = torch.arange(3).repeat_interleave(400)[None] % 2  # too many for torch to keep in order
    fast = graphopt.optimize(Function(model), precision="fp32", example_inputs=(equals,))
    _, places, rising, _, most = fast(equals)
    assert torch.equal(places, torch.sort(equals, stable=True, descending=True).indices)
    assert torch.equal(rising, torch.argsort(equals, stable=True))
    assert most.tolist() == [[400, 401, 402, 403, 404]]


def test_a_result_that_cannot_be_compared_is_named() -> None:
    linear = nn.Linear(4, 4)
    for result in (torch.Tensor.numpy, lambda y: types.MappingProxyType({"y": y})):
        model = Whole(linear, result).eval()
        with pytest.raises(CaptureError, match=r"it is a (ndarray|mappingproxy); return the tens"):
            graphopt.optimize(model, precision="fp32", example_inputs=(torch.rand(2, 4),))


def test_example_and_model_stay_as_they_are() -> None:
    class Caching(nn.Module):
        def forward(self, x: torch.Tensor, cache: dict[str, torch.Tensor]) -> torch.Tensor:
            self.last = x
            cache["seen"] = cache["seen"] + x
            return x * 2

    model, cache = Caching().eval(), {"seen": torch.zeros_like(X)}
    graphopt.optimize(model, precision="fp32", example_inputs=(X, cache))
    assert not cache["seen"].any() and not hasattr(model, "last")


def test_torch_s_fast_path_is_not_what_the_modules_say() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
    hidden = torch.tensor([[False] * 5, [False] * 2 + [True] * 3, [True] * 5])
    model = Function(
        lambda x, m, e: e(x, src_key_padding_mask=m), e=nn.TransformerEncoder(layer, 1)
    )
    given, fast_path = (torch.randn(3, 5, 8), hidden), torch.backends.mha.get_fastpath_enabled()
    fast = graphopt.optimize(model, precision="fp32", example_inputs=given)
    assert torch.isfinite(fast(*given)).all()
    assert torch.backends.mha.get_fastpath_enabled() == fast_path


def test_a_model_that_refuses_its_example_is_named() -> None:
    linear = nn.Linear(4, 4).eval()
    with pytest.raises(CaptureError, match=r"Linear; the model itself fails .* same dtype"):
        graphopt.optimize(linear, precision="fp32", example_inputs=(torch.ones(2, 4).long(),))
