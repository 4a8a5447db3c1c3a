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
    gone = [d for d in sorted(dims, reverse=True) if bool(sizes[d] == 1)]
    if kept := sorted(dims.difference(gone)):
        input = torch.squeeze(input, kept)  # which stays in the graph, and says that they are kept
    for d in gone:
        input = input.select(d, 0)
    return input


def _bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Any:
    if not isinstance(input, Tensor):
        return NotImplemented
    return _searchsorted(boundaries, input, out_int32=out_int32, right=right)


def _searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Any:
    """How many elements of a sorted line are below each number, or, from the right, not above."""
    if not isinstance(input, Tensor):
        return NotImplemented
    line = sorted_sequence if sorter is None else sorted_sequence.gather(-1, sorter)
    line = line if line.dim() == 1 else line.unsqueeze(-2)
    above = line > input.unsqueeze(-1) if right or side == "right" else line >= input.unsqueeze(-1)
    return (~above).sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def _linspace(start: Any, end: Any, steps: Any, *, dtype: Any = None, **options: Any) -> Any:
    """Numbers at equal distances, counted from the nearer end; their number is a size."""
    numbers = all(isinstance(given, int | float) for given in (start, end))
    if not isinstance(steps, torch.SymInt) or not numbers or options.get("out") is not None:
        return NotImplemented
    count: Any = steps
    place = torch.arange(count)
    step = (end - start) / torch.sym_max(count - 1, 1)  # type: ignore[no-untyped-call]
    behind = (count - 1 - place) * step
    half = torch.sym_max(count // 2, 1)  # type: ignore[no-untyped-call]  # one is the start
    made = torch.where(place < half, start + place * step, end - behind)
    return made.to(dtype or torch.get_default_dtype())


def _isin(
    elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False
) -> Any:
    """Whether each element is among some."""
    if not isinstance(elements, Tensor) or not isinstance(test_elements, Tensor):
        return NotImplemented
    found = (elements.unsqueeze(-1) == test_elements.flatten()).any(-1)
    return ~found if invert else found


def _index_reduce(
    input: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> Any:
    """Slices along an axis, folded into those that an index says."""
    if input.dim() == 0:
        return NotImplemented
    shape = [1] * input.dim()
    shape[dim] = -1
    at = index.reshape(shape).expand(source.shape)
    return input.scatter_reduce(dim, at, source, reduce, include_self=include_self)


def _std_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    **given: Any,
) -> Any:
    """By a correction, where torch's own tracing of `unbiased` raises a TypeError."""
    if unbiased is None or given:
        return NotImplemented
    return torch.std_mean(input, dim, correction=int(unbiased), keepdim=keepdim)


_FORMS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.embedding_bag: _embedding_bag,
    torch.bucketize: _bucketize,
    torch.searchsorted: _searchsorted,
    torch.isin: _isin,
    torch.linspace: _linspace,
    torch.index_reduce: _index_reduce,
    Tensor.index_reduce: _index_reduce,
    torch.squeeze: _squeeze,
    Tensor.squeeze: _squeeze,
    torch.std_mean: _std_mean,
}
