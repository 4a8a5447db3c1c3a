"""What few models hold, compiled: empty parts, nine axes, odd types, rows that see nothing."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from captured import Function  # noqa: E402

import graphopt  # noqa: E402
from graphopt.errors import CaptureError, InputValueError  # noqa: E402
from graphopt.testing import FP32_RELATIVE  # noqa: E402

_random = torch.Generator().manual_seed(0)
X = torch.randn(2, 3, 4, generator=_random)
WHOLE = torch.arange(-6, 18).reshape(2, 3, 4) * 100
AUTO, STATIC = torch.export.Dim.AUTO, torch.export.Dim.STATIC
TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
EXTREMES = torch.tensor([1e10, -1e10, -1.0, 300.7, torch.nan, torch.inf, -torch.inf, 1e30])
NARROW = torch.tensor([256.0, 0.1, -3.0], dtype=torch.bfloat16)
SEEN = torch.ones(2, 1, 3, 3, dtype=torch.bool).tril(-1)  # the first query sees nothing


def same(got: Any, wanted: Any) -> None:
    for x, y in zip(got, wanted, strict=True):
        assert x.dtype == y.dtype
        torch.testing.assert_close(x, y, rtol=FP32_RELATIVE, atol=FP32_RELATIVE, equal_nan=True)


def model(x: Any, n: Any, extremes: Any, narrow: Any, seen: Any) -> Any:
    empty = x[:, :0]
    q = (x.unsqueeze(1) * X[:, None]).repeat_interleave(2, 1)
    wide = extremes.double() * 0.1
    return (
        n.argmax(-1),
        torch.max(n, x),
        torch.min(n, n - 1),
        torch.cat([x, empty], 1) * 2,
        torch.stack([x, x.double()]),
        x.mean().mean(-1),
        x * torch.scalar_tensor(x.shape[1]),
        F.pad(empty, (0, 0, 1, 1), value=2.0),
        *(empty.sum(1), empty.mean(1), (empty > 0).any(1), (empty > 0).all(1)),
        empty.transpose(1, 2) @ empty,
        *((empty * 2).transpose(1, 2), empty.sum(-1), empty.argmax(-1), torch.zeros(0, 3)),
        *(extremes.to(t) for t in TYPES),
        *(wide.to(t) for t in TYPES),
        *(extremes.nan_to_num(7.0, 5.0, -5.0).to(torch.bfloat16).to(t) for t in TYPES),
        *(narrow == 0.1, narrow - n[0, 0, :3], narrow < n[0, 0, :3]),
        torch.sin(extremes * 1e3),
        F.scaled_dot_product_attention(q, q, q, seen),
        ((q @ q.transpose(-1, -2)).masked_fill(~seen, -torch.inf).softmax(-1) @ q),
        F.scaled_dot_product_attention(q[:, :, :2], q, q, is_causal=True),
        (x.reshape(2, 1, 1, 1, 1, 1, 1, 3, 4) + 1).sum(7),
    )


def test_compiled_as_torch() -> None:
    tensors = (X, WHOLE, EXTREMES, NARROW, SEEN)
    compiled = graphopt.optimize(
        Function(model),
        example_inputs=tensors,
        dynamic_shapes=tuple(dict.fromkeys(range(t.dim()), STATIC) for t in tensors),
        precision="fp32",
    )
    assert {row.op for row in compiled.report().in_torch} <= {
        *("aten.reshape", "aten.add", "aten.sum", "aten.repeat_interleave", "aten.nan_to_num"),
    }
    same(compiled(*tensors), model(*tensors))


def test_more_axes_than_compiled_code_takes() -> None:
    nine = torch.randn(1, 2, 1, 2, 1, 2, 1, 2, 3)
    functions = (lambda x: x, lambda x: x.shape[-1] * torch.ones(x.shape[1]))
    for function in functions:
        with pytest.raises(CaptureError, match="has 9 axes and compiled code takes 8"):
            graphopt.optimize(Function(function), example_inputs=(nine,))


def test_the_largest_of_nothing_is_an_error() -> None:
    compiled = graphopt.optimize(
        Function(lambda x: x[:, 2:].argmax(1)),
        example_inputs=(torch.randn(2, 5, 4),),
        dynamic_shapes=({0: AUTO, 1: AUTO, 2: STATIC},),
    )
    same([compiled(X)], [X[:, 2:].argmax(1)])
    with pytest.raises(InputValueError, match="the largest of no elements"):
        compiled(X[:, :2])
