"""How much rounding may change a result: float64 runs in which every op errs a little.

A bound on the error of a compiled model has to say how its rounding errors grow on the way. Here
that is measured: the same model runs in float64 while every result, and every operand of a product,
is off by about what the precision loses there. What such runs differ by is the deviation; results
that differ by much more are wrong, and a model in which they differ by too much says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: Ops that only move, choose or make numbers; what they return is not rounded.
_EXACT = frozenset(
    [
        "alias",
        "as_strided",
        "arange",
        "cat",
        "clone",
        "constant_pad_nd",
        "copy",
        "copy_",
        "detach",
        "embedding",
        "empty",
        "empty_like",
        "expand",
        "eye",
        "fill",
        "fill_",
        "flip",
        "full",
        "full_like",
        "gather",
        "index",
        "index_put",
        "index_put_",
        "index_select",
        "lift_fresh",
        "masked_fill",
        "masked_fill_",
        "max",
        "maximum",
        "min",
        "minimum",
        "neg",
        "new_empty",
        "new_full",
        "new_ones",
        "new_zeros",
        "ones",
        "ones_like",
        "permute",
        "relu",
        "relu_",
        "repeat",
        "roll",
        "scalar_tensor",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "stack",
        "t",
        "transpose",
        "tril",
        "triu",
        "unbind",
        "unfold",
        "unsqueeze",
        "view",
        "where",
        "zero_",
        "zeros",
        "zeros_like",
        "abs",
        "amax",
        "amin",
        "clamp",
        "clamp_min",
        "clamp_max",
        "hardtanh",
        "sort",
        "topk",
        "argmax",
        "_to_copy",
        "ceil",
        "floor",
        "trunc",
        "round",
        "sign",
        "_unsafe_view",
        "slice_scatter",
        "select_scatter",
        "scatter",
    ]
)
_PRODUCTS = frozenset(
    ["addmm", "mm", "bmm", "baddbmm", "convolution", "mv", "dot", "addmv", "linear"]
)


@dataclass(frozen=True)
class Rounding:
    """What a precision loses, with the largest error of a rounding at least.

    Attributes:
        result: of every result, relative to each element.
        left: of the first factor of a product, relative to its largest element.
        right: of the second factor.
    """

    result: float
    left: float
    right: float


#: f32 keeps 24 bits and elementary functions err by a few units: 2**-22. bf16 keeps 8 bits. Rows in
#: int8 have 255 steps over their range, weights 254; in int4 15. The second factor of a product is
#: the one with weights.
ROUNDINGS = {
    "fp32": Rounding(2.0**-22, 2.0**-22, 2.0**-22),
    "bf16": Rounding(2.0**-8, 2.0**-8, 2.0**-8),
    "int8": Rounding(2.0**-22, 2.0**-8, 2.0**-8),
    "int8+bf16": Rounding(2.0**-8, 2.0**-7, 2.0**-7),
    "int4": Rounding(2.0**-22, 2.0**-8, 2.0**-4),
}


class _Noise(TorchDispatchMode):
    """Runs ops with errors of the given sizes."""

    def __init__(self, rounding: Rounding, seed: int) -> None:
        super().__init__()
        self.rounding = rounding
        self.random = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, func._schema.name.partition("::")[2]
        if name in _PRODUCTS:
            tensors = [i for i, a in enumerate(args) if isinstance(a, torch.Tensor)]
            factors = tensors[:2] if name == "convolution" else tensors[-2:]
            sizes = (self.rounding.left, self.rounding.right)
            args = tuple(
                self._whole(a, sizes[factors.index(i)]) if i in factors else a
                for i, a in enumerate(args)
            )
        result = func(*args, **kwargs)
        if name in _EXACT:
            return result
        if func._schema.is_mutable:
            written = args[0]
            if isinstance(written, torch.Tensor) and written.is_floating_point():
                written.copy_(self._each(written))
            return result
        if any(r.alias_info is not None for r in func._schema.returns):
            return result
        return torch.utils._pytree.tree_map_only(torch.Tensor, self._each, result)

    def _each(self, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        size = 2.0**-8 if tensor.dtype is torch.bfloat16 else self.rounding.result
        return tensor * (1 + size * self._unit(tensor))

    def _whole(self, tensor: torch.Tensor, size: float) -> torch.Tensor:
        if not tensor.is_floating_point() or tensor.numel() == 0:
            return tensor
        return tensor + size * tensor.abs().max() * self._unit(tensor)

    def _unit(self, tensor: torch.Tensor) -> torch.Tensor:
        return (torch.rand(tensor.shape, generator=self.random) * 2 - 1).to(tensor.dtype)


@contextmanager
def wide(rounding: Rounding | None = None, seed: int = 0) -> Iterator[None]:
    """Torch with float64 by default, and with errors if a rounding is given."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            if rounding is None:
                yield
            else:
                with _Noise(rounding, seed):
                    yield
    finally:
        torch.set_default_dtype(before)


def deviation(function: Callable[[], list[torch.Tensor]], precision: str) -> list[float]:
    """By how much the results of a function differ under the roundings of a precision.

    Returns:
        For each result the largest absolute difference; infinite where integers, bools or the
        places of NaN and infinity differ, which is where rounding decides.
    """
    with wide():
        exact = function()
    largest = [0.0] * len(exact)
    for seed in range(3):
        with wide(ROUNDINGS[precision], seed):
            noisy = function()
        for i, (a, b) in enumerate(zip(exact, noisy, strict=True)):
            largest[i] = max(largest[i], difference(b, a))
    return largest


def difference(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest absolute difference; infinite if exact or special values differ."""
    if got.shape != wanted.shape:
        return float("inf")
    if not wanted.is_floating_point():
        return 0.0 if torch.equal(got, wanted) else float("inf")
    a, b = got.double(), wanted.double()
    finite = torch.isfinite(b)
    if not torch.equal(finite, torch.isfinite(a)):
        return float("inf")
    special = ~finite
    if not torch.equal(torch.nan_to_num(a[special]), torch.nan_to_num(b[special])):
        return float("inf")
    return float((a - b)[finite].abs().max()) if bool(finite.any()) else 0.0
