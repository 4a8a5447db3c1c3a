"""Functions of torch that no rule lowers, written out in others while a model is captured.

    F.embedding_bag(x, weight, offsets)    ->    torch.zeros(..).index_add(0, bags, weight[x])

What a form does not say (a change in place, a check of arguments) is left to torch's own function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

Tensor = torch.Tensor


class WrittenOut(TorchFunctionMode):
    """While it is active, functions of `_FORMS` are computed by their forms."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if form := _FORMS.get(func):
            result = form(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)


def _embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """Rows of a table, folded by bag: those of a matrix of indices, or between offsets."""
    if max_norm is not None or input.dim() != (2 if offsets is None else 1):
        return NotImplemented
    rows = F.embedding(input, weight)
    wide = rows.float() if rows.dtype.itemsize == 2 else rows
    if per_sample_weights is not None:
        wide = wide * per_sample_weights.unsqueeze(-1)
    counts = torch.ones_like(input)
    if padding_idx is not None:
        is_padding = input == padding_idx % weight.shape[0]
        neutral = -math.inf if mode == "max" else 0.0
        wide = wide.masked_fill(is_padding.unsqueeze(-1), neutral)
        counts = counts.masked_fill(is_padding, 0)
    if offsets is None:
        folded = wide.amax(1) if mode == "max" else wide.sum(1)
        counts = counts.sum(1)
    else:
        folded, counts = _between(offsets, wide, counts, mode)
        if include_last_offset:
            folded, counts = folded[:-1], counts[:-1]
    if mode == "mean":
        folded = folded / counts.clamp(min=1).unsqueeze(-1)
    elif mode == "max":
        folded = folded.masked_fill((counts == 0).unsqueeze(-1), 0)
    return folded.to(rows.dtype)


def _between(offsets: Tensor, rows: Tensor, counts: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """Folds what lies between offsets.

    Args:
        offsets: i[B], where bags begin.
        rows: [N, D].
        counts: i[N], which are added.
        mode: sum, mean or max.

    Returns:
        [B, D] and i[B].
    """
    begun = torch.zeros(rows.shape[0] + 1, dtype=torch.int64)
    begun = begun.index_add(0, offsets, torch.ones_like(offsets, dtype=torch.int64))
    bags = begun.cumsum(0)[:-1] - 1
    shape = (offsets.shape[0], rows.shape[1])
    if mode == "max":
        at = bags.unsqueeze(1).expand(-1, rows.shape[1])
        least = torch.full(shape, -math.inf, dtype=rows.dtype)
        folded = least.scatter_reduce(0, at, rows, "amax")
    else:
        folded = torch.zeros(shape, dtype=rows.dtype).index_add(0, bags, rows)
    return folded, torch.zeros_like(offsets, dtype=counts.dtype).index_add(0, bags, counts)


def _squeeze(input: Tensor, dim: Any = None) -> Any:
    """Without axes whose size is 1: where that varies, it is a condition."""
    if dim is None or input.dim() == 0:
        return NotImplemented
    dims = {d % input.dim() for d in ([dim] if isinstance(dim, int) else dim)}
    sizes = {d: input.shape[d] for d in dims}
    if not any(isinstance(size, torch.SymInt) for size in sizes.values()):
        return NotImplemented
    for d in sorted(dims, reverse=True):
        if bool(sizes[d] == 1):
            input = input.select(d, 0)
    return input


_FORMS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.embedding_bag: _embedding_bag,
    torch.squeeze: _squeeze,
    Tensor.squeeze: _squeeze,
}
