"""Sizes that a model computes are exact, or refused with the function that is not."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
from torch import nn
from torch.utils._sympy.functions import FloatTrueDiv, FloorToInt, IntTrueDiv, ToFloat, TruncToInt

import graphopt
from graphopt.errors import CaptureError, InputValueError, SizeError
from graphopt.frontend.capture import capture
from graphopt.frontend.torch_sizes import translate
from graphopt.ir import symbolic
from graphopt.testing import FP32_RELATIVE

T = symbolic.symbol("T")
S = sympy.Symbol("s0", integer=True, positive=True)

COMPUTED: list[Callable[[Any], Any]] = [
    lambda t: t**2 + (t**2 - t) // 2,
    lambda t: (3 - t) // 2 + t,
    lambda t: (3 - t) % 7 + 1,
    lambda t: t % 7 + 1,
    lambda t: math.ceil(t / 4),
    lambda t: math.floor(t / 3),
    lambda t: math.trunc((3 - t) / 2) + t,
    lambda t: math.floor(t * 0.5 + 1.25),
    lambda t: t >> 1,
    lambda t: t << 2,
    lambda t: max(t, 11) - min(t, 6),
    lambda t: abs(3 - t),
]


class Sizes(nn.Module):
    """Gives tensors of the sizes."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(x.new_zeros(size(x.shape[1])) for size in COMPUTED)


def test_computed_sizes() -> None:
    graph = capture(Sizes().eval(), (torch.zeros(2, 9, 3),), {}, None).graph
    for t in (2, 5, 7, 12, 100):
        sizes = graph.sizes([(3, t, 3)])
        found = [symbolic.evaluate(value.shape[0], sizes) for value in graph.outputs]
        assert found == [size(t) for size in COMPUTED], t


@pytest.mark.parametrize(
    "size, why",
    [
        (lambda t: round(t / 3), "RoundToInt"),
        (lambda t: t & 6, "bitwise_and"),
        (lambda t: math.floor(t / 3 * 3), "rounded to a double"),
        (lambda t: math.floor(t * 0.1), "a product with 0.1"),
        (lambda t: 2**t, "the power 2**T"),
    ],
)
def test_inexact_sizes_are_refused(size: Callable[[Any], Any], why: str) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_zeros(size(x.shape[1]))

    with pytest.raises(CaptureError, match="size") as caught:
        capture(Model().eval(), (torch.zeros(2, 9, 3),), {}, None)
    assert why in str(caught.value)


def test_quotients_are_those_of_doubles() -> None:
    third = IntTrueDiv(S, 3)
    assert translate(FloorToInt(third), {S: T}) == sympy.floor(T / 3)
    assert symbolic.evaluate(translate(TruncToInt(IntTrueDiv(2 - S, 3)), {S: T}), {T: 7}) == -1
    assert translate(FloorToInt(ToFloat(S) * 0.75), {S: T}) == sympy.floor(T * 3 / 4)
    assert translate(sympy.Gt(third, 2), {S: T}) == sympy.Gt(T / 3, 2)
    for size in (FloorToInt(third * 3), third, FloorToInt(FloatTrueDiv(third, 7.0))):
        with pytest.raises(SizeError, match="rounded to a double"):
            translate(size, {S: T})


FLOATS: list[Callable[[Any], Any]] = [
    lambda t: 1 / t,
    lambda t: t / 2.5 - 1,
    lambda t: t**0.5,
    lambda t: 1 / (t // 2 + t % 3) ** 0.5,
    lambda t: (2 * t + 1) ** -1.5,
    lambda t: t**0.25 * t**-2.0,
    lambda t: max(t / 3, 2.5) + min(t / 3, 2.5) * 100,
    lambda t: torch.sym_sqrt(t),
]


class Floats(nn.Module):
    """Multiplies by what Python computes in doubles."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        t = x.shape[1]
        products = [y * size(t) for y in (x, x.double()) for size in FLOATS]
        made = [torch.full((2,), 1 / t), torch.tensor(t / 3), x.int() * (t / 2)]
        in_torch = torch.special.zeta(x.abs() + 2, t / 20 + 1)
        return [*products, *made, in_torch, x > 1 / t, torch.arange(4) < t / 4, x + x * (t / 4)]


def test_floats_made_of_sizes() -> None:
    model = Floats().eval()
    fast = graphopt.optimize(model, precision="fp32", example_inputs=(torch.randn(2, 9),))
    assert [row.op for row in fast.report() if not row.compiled] == ["aten.special_zeta"]
    for x in (torch.randn(2, 9), torch.randn(3, 7)):
        for got, wanted in zip(fast(x), model(x), strict=True):
            bound = 1e-15 if wanted.dtype is torch.float64 else FP32_RELATIVE
            torch.testing.assert_close(got, wanted, rtol=bound, atol=0)


def test_a_float_that_torch_fixes_fixes_its_sizes() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.layer_norm(x, (4,), eps=1 / x.shape[1])

    graph = capture(Model().eval(), (torch.zeros(2, 9, 4),), {}, None).graph
    assert graph.conditions == [sympy.Eq(T, 9)]


@pytest.mark.parametrize(
    "size, why",
    [(lambda t: t ** (1 / 3), "whole number of eighths"), (lambda t: 2.0**t, "FloatPow")],
)
def test_other_floats_are_refused(size: Callable[[Any], Any], why: str) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * size(x.shape[1])

    with pytest.raises(CaptureError, match="fix that axis with dynamic_shapes") as caught:
        capture(Model().eval(), (torch.zeros(2, 9),), {}, None)
    assert why in str(caught.value)


class Masked(nn.Module):
    """The attention mask of wav2vec 2.0, whose strides have a power, and negative numbers."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        keep = mask[:, 1:]
        bias = torch.where(keep[:, None, :, None] & keep[:, None, None, :], 0.0, -1.0)
        t = x.shape[1]
        pairs = torch.zeros(x.shape[0], (t**2 + t) // 2, 2) + t % 3
        return bias, x[:, t // 2 :] * ((3 - t) // 2), pairs + (1 - t) % 4


def test_a_model_with_powers_and_negative_numbers() -> None:
    model = Masked().eval()
    given = torch.randn(2, 7, 3), torch.rand(2, 7) > 0.3
    fast = graphopt.optimize(model, precision="fp32", example_inputs=given, strict=True)
    for batch, t in ((2, 7), (1, 8), (3, 12), (2, 5)):
        given = torch.randn(batch, t, 3), torch.rand(batch, t) > 0.3
        for got, wanted in zip(fast(*given), model(*given), strict=True):
            torch.testing.assert_close(got, wanted, rtol=FP32_RELATIVE, atol=0)


class Parts(nn.Module):
    """Parts of an axis that begin or end where a size says, some of them in torch."""

    def forward(self, x: torch.Tensor, rows: torch.Tensor) -> list[torch.Tensor]:
        t = x.shape[1]
        filled = x * 1
        filled[:, t - 2 :] = 7
        parts = [x[:, : t - 3] * 2, x[:, t - 3 :], x[:, 4 - t :], x[:, t - 5 :: 2], x[:, t - 3]]
        return [*parts, filled, torch.special.i0e(torch.full((1,), t)), x[rows]]


def test_parts_from_and_to_a_size() -> None:
    model = Parts().eval()
    given = torch.randn(2, 7), torch.tensor([1, 0])
    fast = graphopt.optimize(model, precision="fp32", example_inputs=given)
    for t in (7, 4, 2, 9):  # with other signs of t - 3, 4 - t and t - 5
        given = torch.randn(3, t), torch.tensor([2, 0])
        for got, wanted in zip(fast(*given), model(*given), strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    with pytest.raises(InputValueError, match="outside"):
        fast(torch.randn(3, 4), torch.tensor([5, 0]))


class Unflattened(nn.Module):
    """A mask whose length follows from its view, that of the frames once they are compared."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        mask = mask.view(x.shape[0], -1)
        if mask.shape[1] != x.shape[1]:
            raise ValueError("a mask of another length")
        return x * mask[:, : x.shape[1]]


def test_a_size_that_is_an_expression_of_others() -> None:
    fast = graphopt.optimize(Unflattened().eval(), precision="fp32", check=False)
    for shape in ((2, 7), (3, 5)):
        given = torch.randn(shape), torch.rand(shape)
        wanted = Unflattened()(*given)
        torch.testing.assert_close(fast.interpret(*given), wanted, rtol=0, atol=0)
    assert len(fast.report().checks) == 1  # one capture
