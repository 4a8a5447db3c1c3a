"""Calls of tensors alone take a short way, on which nothing is different."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

import graphopt  # noqa: E402
from graphopt.errors import GraphoptError, InputCountError, InputDtypeError  # noqa: E402


class Apart(torch.nn.Module):
    """Tells its arguments apart."""

    def forward(self, a: Any, b: Any, *, c: Any = None, **rest: Any) -> dict[str, Any]:
        total = a - 2 * b
        for factor, one in enumerate([c, *rest.values()]):
            total = total if one is None else total + (3 + factor) * one
        return {"total": total, "pair": (a * b, "text")}


A, B, C, D = (torch.randn(3, 4, generator=torch.Generator().manual_seed(i)) for i in range(4))
CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((A, B), {}),
    ((B, A), {}),
    ((A, A), {}),
    ((A,), {"b": B}),
    ((), {"b": B, "a": A}),
    ((A, B), {"c": C}),
    ((A,), {"c": C, "b": B}),
    ((A, B), {"d": D, "c": C}),
]


@pytest.fixture(scope="module")
def compiled() -> Any:
    return graphopt.optimize(Apart().eval(), precision="fp32")


def equal(got: Any, expected: Any) -> bool:
    same = torch.allclose(got["total"], expected["total"], rtol=0, atol=1e-5)
    return same and torch.equal(got["pair"][0], expected["pair"][0]) and got["pair"][1] == "text"


def test_each_form_of_a_call(compiled: Any) -> None:
    """Captured, and on the short way; none hides another."""
    for args, kwargs in [*CALLS, *reversed(CALLS)]:
        assert equal(compiled(*args, **kwargs), Apart()(*args, **kwargs))


def test_what_does_not_fit_is_refused_as_ever(compiled: Any) -> None:
    compiled(A, B)
    for _ in range(2):
        with pytest.raises(InputDtypeError):
            compiled(A.double(), B)
        with pytest.raises(InputCountError):
            compiled(A)
        with pytest.raises(InputCountError):
            compiled(A, B, C)
        with pytest.raises(GraphoptError):
            compiled(A, torch.randn(5, 4))
        with pytest.raises(GraphoptError):
            compiled(A, B.to_sparse())


def test_torch_sees_calls_when_it_looks() -> None:
    linear = torch.nn.Linear(4, 5).eval()
    compiled = graphopt.optimize(linear, precision="fp32")
    x = torch.randn(2, 4)
    plain = compiled(x)
    with torch.profiler.profile() as profile:
        compiled(x)
    assert "graphopt::run" in {event.key for event in profile.key_averages()}
    assert compiled(x.clone().requires_grad_()).requires_grad and not plain.requires_grad
    with torch.no_grad():
        assert not compiled(x.clone().requires_grad_()).requires_grad
    with FakeTensorMode() as mode:
        assert compiled(mode.from_tensor(x)).shape == (2, 5)
    complex_view = torch.complex(torch.zeros(2, 4), x).conj().imag
    assert complex_view.is_neg()
    torch.testing.assert_close(compiled(complex_view), linear(-x))
    double = torch.compile(lambda given: 2 * compiled(given), fullgraph=True, backend="aot_eager")
    assert torch.equal(double(x), 2 * plain)
