"""How much rounding may change a result: ops of torch that err as those of a precision do.

A bound on the error of a compiled model has to say how its rounding errors grow on the way. That
can be measured: the model runs in torch while every result, and every operand of a product or sum,
is off by about what the precision loses there. What such runs differ by is no fault of a compiler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from graphopt.kernels.formats import BF16, F32, formats_of
from graphopt.target import PRECISIONS

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
#: Ops that add up their first operand, of which less may be left than was rounded on the way.
_SUMS = frozenset(
    [
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_functional",
        "cumsum",
        "logcumsumexp",
        "logsumexp",
        "mean",
        "nansum",
        "native_batch_norm",
        "native_group_norm",
        "native_layer_norm",
        "std",
        "std_mean",
        "sum",
        "var",
        "var_mean",
    ]
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


#: Of what is added up, in f32: of some hundred equal numbers all roundings go the same way.
_OF_SUMS = 4 * F32.error

#: Of a row: bf16 keeps 8 bits, int8 has 255 steps over its range.
_OF_ROWS = {"": F32.error, "bf16": 2.0**-8, "qa8r": 2.0**-8}


def _rounding(precision: str) -> Rounding:
    """The second factor of a product is the one with weights."""
    formats = {format.name: format for format in formats_of(precision)}.values()
    return Rounding(
        BF16.error if BF16 in formats else F32.error,
        sum(_OF_ROWS[format.rows] for format in formats),
        sum(format.error for format in formats),
    )


ROUNDINGS = {precision: _rounding(precision) for precision in PRECISIONS}


def rounding_of(precision: str) -> Rounding:
    """What a precision, or several with commas between them, lose at most."""
    parts = [ROUNDINGS[one] for one in precision.split(",")]
    return Rounding(
        max(part.result for part in parts),
        max(part.left for part in parts),
        max(part.right for part in parts),
    )


_OF_TYPES = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


class RoundingNoise(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is active, torch's ops err by up to the given sizes.

    Args:
        rounding: the sizes.
        seed: of the errors.
    """

    def __init__(self, rounding: Rounding, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rounding = rounding
        self.random = torch.Generator().manual_seed(seed)

    def __enter__(self) -> RoundingNoise:
        # An op of oneDNN's is a whole recurrent layer, with all products inside.
        self._onednn = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        torch._C._set_mkldnn_enabled(self._onednn)

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
        if name in _SUMS:
            args = (self._off(args[0], _OF_SUMS), *args[1:])
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
        return self._off(tensor, max(self.rounding.result, _OF_TYPES.get(tensor.dtype, 0.0)))

    def _off(self, tensor: torch.Tensor, size: float) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        return tensor * (1 + size * self._unit(tensor))

    def _whole(self, tensor: torch.Tensor, size: float) -> torch.Tensor:
        if not tensor.is_floating_point() or tensor.numel() == 0:
            return tensor
        return tensor + size * tensor.abs().max() * self._unit(tensor)

    def _unit(self, tensor: torch.Tensor) -> torch.Tensor:
        return (torch.rand(tensor.shape, generator=self.random) * 2 - 1).to(tensor.dtype)
