"""Sorts in which equal elements keep their order, where torch leaves it open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class StableSorts(TorchFunctionMode):
    """While it is active, `sort`, `argsort` and `topk` give the first of equal elements first.

    Compiled code does so always. torch promises an order of equals for `stable=True` alone, and has
    another one for each dtype and length; two right results would be compared as if one were wrong.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _STABLE.get(func, func)(*args, **(kwargs or {}))


def _sort(
    input: Tensor, dim: int = -1, descending: bool = False, *, stable: Any = None, out: Any = None
) -> Any:
    return torch.sort(input, stable=True, dim=dim, descending=descending, out=out)


def _argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: Any = None) -> Any:
    return torch.argsort(input, dim=dim, descending=descending, stable=True)


def _topk(
    input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, **out: Any
) -> Any:
    if out or input.dim() == 0 or not 0 <= k <= input.shape[dim]:
        return torch.topk(input, k, dim, largest, sorted, **out)
    values, indices = torch.sort(input, stable=True, dim=dim, descending=largest)
    return torch.return_types.topk((values.narrow(dim, 0, k), indices.narrow(dim, 0, k)))


def _of_self(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with the names of an op's schema."""

    def call(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    return call


_STABLE: dict[Any, Callable[..., Any]] = {}
for _name, _function in (("sort", _sort), ("argsort", _argsort), ("topk", _topk)):
    _op = getattr(torch.ops.aten, _name).default
    _STABLE |= {getattr(torch, _name): _function, getattr(Tensor, _name): _of_self(_function)}
    _STABLE |= {_op: _of_self(_function)}
