"""Complex tensors inside a model, captured as their real and imaginary parts side by side.

    torch.stft(x, 512, 128, window=w, return_complex=True).abs()

While it is traced, a complex tensor [...] is a stand-in for a tensor [..., 2], and what the model
does with it is done with that (`complex_parts.py`); a Fourier transform is a product with a matrix
(`fourier.py`). What has no form in real numbers is left to torch, as complex as it was.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from graphopt.frontend import complex_parts, fourier
from graphopt.frontend.complex_parts import REAL, Complex, is_complex

#: What stand-ins say of themselves.
_DESCRIBED = {
    *("shape", "size", "dim", "ndim", "ndimension", "dtype", "device", "is_complex", "numel"),
    *("layout", "is_floating_point", "requires_grad", "names"),
}
_MADE = {**complex_parts.MADE, **fourier.MADE}
_RULES = {**complex_parts.RULES, **fourier.RULES, **_MADE}
_IN_PLACE = {f"{name}_": name for name in ("add", "sub", "mul", "div")}
_IN_PLACE |= {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div"}


class ComplexNumbers(TorchFunctionMode):
    """While it is active, complex tensors are stand-ins."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, _name(func)
        if name in _DESCRIBED:
            return func(*args, **kwargs)
        result = _in_parts(name, args, kwargs)
        if result is not NotImplemented:
            return result
        return func(*whole(args), **whole(kwargs))


def _in_parts(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a function gives, in parts; NotImplemented where it has no such form."""
    if name in complex_parts.FILLED and kwargs.get("dtype") in REAL:
        rule = complex_parts.FILLED[name]
    elif name in _MADE or (
        (name in _RULES or name in _IN_PLACE)
        and any(map(is_complex, torch.utils._pytree.tree_leaves((args, kwargs))))
    ):
        rule = _RULES[_IN_PLACE.get(name, name)]
    else:
        return NotImplemented
    try:
        made = rule(*args, **kwargs)
    except TypeError:  # an argument that the rule does not know
        return NotImplemented
    if name not in _IN_PLACE or made is NotImplemented:
        return made
    if not isinstance(args[0], Complex):
        return NotImplemented
    args[0].pair.copy_(made.pair)
    return args[0]


def whole(tree: Any) -> Any:
    """Values in which complex tensors are those of torch."""
    return torch.utils._pytree.tree_map_only(Complex, lambda z: torch.view_as_complex(z.pair), tree)


def _name(func: Any) -> str:
    """`real` of `Tensor.real.__get__`, `mul` of `Tensor.__mul__`, `rfft` of `fft_rfft`."""
    name = str(getattr(func, "__name__", ""))
    if name == "__get__":
        name = str(getattr(func.__self__, "__name__", ""))
    if name.startswith("__"):
        name = name.strip("_")
    return name.removeprefix("fft_")
