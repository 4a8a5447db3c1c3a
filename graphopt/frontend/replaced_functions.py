"""Functions of libraries that loop over the elements of tensors, as functions of tensors.

A tracer cannot follow a list of a tensor's numbers, of which there are as many as the batch is
long. While a model is captured, what computes the same stands in for these functions, in every
module of their library that has imported them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def _make_pad_mask(lengths: Any, xs: Any = None, length_dim: int = -1, maxlen: Any = None) -> Any:
    """FunASR's mask of what lies behind the end of each item: bool [B, T], or as large as `xs`."""
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


#: By module and name.
_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("funasr.models.transformer.utils.nets_utils", "make_pad_mask"): _make_pad_mask,
}


@contextmanager
def replaced_functions() -> Iterator[None]:
    """Puts the functions in their places, and the library's own back."""
    changed: list[tuple[Any, str, Any]] = []
    for (module, name), stand_in in _STAND_INS.items():
        own = getattr(sys.modules.get(module), name, None)
        library = module.partition(".")[0]
        for place in [m for n, m in sys.modules.items() if n.partition(".")[0] == library]:
            if own is not None and vars(place).get(name) is own:
                changed.append((place, name, own))
                setattr(place, name, stand_in)
    try:
        yield
    finally:
        for place, name, own in changed:
            setattr(place, name, own)
