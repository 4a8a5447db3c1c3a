"""FunASR's mask of padding, whose own code loops over a list of lengths."""

from __future__ import annotations

from typing import Any

import torch


def make_pad_mask(lengths: Any, xs: Any = None, length_dim: int = -1, maxlen: Any = None) -> Any:
    """What lies behind the end of each item: bool[B, T], or as large as `xs`.

    Args:
        lengths: of the items, a list or i64[B].
        xs: a tensor of which the mask gets the shape.
        length_dim: its axis of time.
        maxlen: T; the largest of the lengths, or what `xs` has, if None.
    """
    if length_dim == 0:
        raise ValueError("length_dim cannot be 0")
    lengths = torch.as_tensor(lengths)
    if maxlen is None:
        maxlen = lengths.max().item() if xs is None else xs.size(length_dim)
    mask = torch.arange(maxlen, dtype=torch.int64).unsqueeze(0) >= lengths.unsqueeze(-1)
    if xs is None:
        return mask
    shape = [1] * xs.dim()
    shape[0], shape[length_dim] = mask.shape
    return mask.view(shape).expand_as(xs)
