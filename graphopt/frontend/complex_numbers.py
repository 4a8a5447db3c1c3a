"""Complex tensors inside a model, captured as their real and imaginary parts side by side.

    torch.stft(x, 512, 128, window=w, return_complex=True).abs()

While it is traced, a complex tensor [...] is a stand-in for a tensor [..., 2], and what the model
does with it is done with that. A Fourier transform is a product with a matrix of cosines and sines,
which is a constant where its size is; the short-time one is a convolution, its inverse a transposed
one. What has no form in real numbers is left to torch, as complex as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

Tensor = torch.Tensor


class _Complex(torch.Tensor):
    """Stands for a complex tensor; `pair` holds its parts along a last axis of two."""

    pair: Tensor

    @staticmethod
    def of(pair: Tensor) -> _Complex:
        """The complex numbers whose parts lie along the last axis."""
        kind = {torch.float32: torch.complex64, torch.float64: torch.complex128}[pair.dtype]
        made: _Complex = torch.Tensor._make_wrapper_subclass(
            _Complex, pair.shape[:-1], dtype=kind, device=pair.device
        )
        made.pair = pair
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise NotImplementedError(f"{func} of complex numbers has no form in real ones")


class ComplexNumbers(TorchFunctionMode):
    """While it is active, complex tensors are stand-ins."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, _name(func)
        if name in _DESCRIBED:
            return func(*args, **kwargs)
        leaves = torch.utils._pytree.tree_leaves((args, kwargs))
        if name in _MADE or (name in _RULES and any(map(_is_complex, leaves))):
            result = _in_parts(name, args, kwargs)
            if result is not NotImplemented:
                return result
        return func(*whole(args), **whole(kwargs))


def _in_parts(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return _RULES[name](*args, **kwargs)
    except TypeError:  # an argument that the rule does not know
        return NotImplemented


def whole(tree: Any) -> Any:
    """Values in which complex tensors are those of torch."""
    return torch.utils._pytree.tree_map_only(
        _Complex, lambda z: torch.view_as_complex(z.pair), tree
    )


def _is_complex(leaf: Any) -> bool:
    return isinstance(leaf, complex) or (isinstance(leaf, Tensor) and leaf.is_complex())


def _name(func: Any) -> str:
    """`real` of `Tensor.real.__get__`, `mul` of `Tensor.__mul__`, `rfft` of `fft_rfft`."""
    name = str(getattr(func, "__name__", ""))
    if name == "__get__":
        name = str(getattr(func.__self__, "__name__", ""))
    return name.strip("_").removeprefix("fft_")


def _pair(x: Any) -> Tensor:
    """A tensor or a number as parts."""
    if isinstance(x, _Complex):
        return x.pair
    if isinstance(x, Tensor):
        if x.is_complex():
            return torch.view_as_real(x)
        return torch.stack((x, torch.zeros_like(x)), -1)
    return torch.tensor([complex(x).real, complex(x).imag])


def _scaled(z: Any, factor: Any) -> _Complex:
    return _Complex.of(_pair(z) * (factor.unsqueeze(-1) if isinstance(factor, Tensor) else factor))


def _mul(a: Any, b: Any) -> Any:
    if not _is_complex(b):
        return _scaled(a, b)
    if not _is_complex(a):
        return _scaled(b, a)
    (ar, ai), (br, bi) = (_pair(x).unbind(-1) for x in (a, b))
    return _Complex.of(torch.stack((ar * br - ai * bi, ar * bi + ai * br), -1))


def _div(a: Any, b: Any, *, rounding_mode: Any = None) -> Any:
    if _is_complex(b) or rounding_mode is not None:
        return NotImplemented
    factor = b.unsqueeze(-1) if isinstance(b, Tensor) else b
    return _Complex.of(_pair(a) / factor)


def _sum(sign: int, swap: bool = False) -> Callable[..., Any]:
    def rule(a: Any, b: Any, *, alpha: Any = 1) -> Any:
        left, right = _pair(a), _pair(b)
        if swap:
            left, right = right, left
        return _Complex.of(left + right * (sign * alpha))

    return rule


def _conj(z: Any) -> Any:
    real, imag = _pair(z).unbind(-1)
    return _Complex.of(torch.stack((real, -imag), -1))


def _abs(z: Any) -> Tensor:
    real, imag = _pair(z).unbind(-1)
    return torch.sqrt(real * real + imag * imag)


def _angle(z: Any) -> Any:
    real, imag = _pair(z).unbind(-1)
    return torch.atan2(imag, real)


def _of_parts(real: Tensor, imag: Tensor) -> Any:
    parts = torch.broadcast_tensors(real, imag)  # type: ignore[no-untyped-call]
    return _Complex.of(torch.stack(parts, -1))


def _axis(z: Any, axis: int) -> int:
    return axis if axis >= 0 else axis + z.dim()


def _sizes(sizes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sizes that are given one by one or together."""
    return tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes


def _getitem(z: Any, index: Any) -> Any:
    index = index if isinstance(index, tuple) else (index,)
    if any(isinstance(i, Tensor) for i in index):
        return NotImplemented
    behind = (slice(None),) if any(i is Ellipsis for i in index) else ()
    return _Complex.of(_pair(z)[(*index, *behind)])


def _together(function: Callable[..., Tensor]) -> Callable[..., Any]:
    def rule(tensors: Any, dim: int = 0) -> Any:
        extra = int(function is torch.stack)
        axis = dim if dim >= 0 else dim + tensors[0].dim() + extra
        return _Complex.of(function([_pair(t) for t in tensors], axis))

    return rule


def _turns(rows: Any, columns: Any, size: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines of 2 pi r c / size, for r < rows and c < columns."""
    static = isinstance(size, int)
    r, c = torch.arange(rows)[:, None], torch.arange(columns)[None, :]
    angle = ((r * c) % size).to(torch.float64 if static else torch.float32) * (2 * math.pi / size)
    return torch.cos(angle).to(dtype), torch.sin(angle).to(dtype)


def _scale(norm: str | None, size: Any, inverse: bool) -> Any:
    if norm == "ortho":
        return size**-0.5
    return 1 / size if inverse == (norm in (None, "backward")) else 1.0


def _fit(x: Tensor, size: Any, axis: int) -> Tensor:
    """Cut, or continued by zeros, to a size along an axis of a few."""
    have = x.shape[axis]
    if have == size:
        return x
    if have > size:
        return x.narrow(axis, 0, size)
    return F.pad(x, [0, 0] * (x.dim() - 1 - axis) + [0, size - have])


def _real_matrix(size: Any, bins: Any, dtype: torch.dtype) -> Tensor:
    """[size, 2 bins]: the parts of each bin side by side."""
    cos, sin = _turns(size, bins, size, dtype)
    return torch.stack((cos, -sin), -1).flatten(1)


def _inverse_matrix(size: Any, bins: int, dtype: torch.dtype) -> Tensor:
    """[2 bins, size]: of bins of which all but the ends stand for two."""
    cos, sin = _turns(bins, size, size, dtype)
    k = torch.arange(bins)[:, None]
    twice = (2 - ((k == 0) | (2 * k == size)).to(torch.int64)).to(dtype)
    return torch.stack((twice * cos, -twice * sin), 1).flatten(0, 1)


def _rfft(x: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
    if not isinstance(x, Tensor) or x.is_complex() or x.dtype not in (torch.float32, torch.float64):
        return NotImplemented
    axis = _axis(x, dim)
    size = x.shape[axis] if n is None else n
    rows = _fit(x, size, axis).movedim(axis, -1)
    bins = size // 2 + 1
    parts = rows @ (_real_matrix(size, bins, x.dtype) * _scale(norm, size, False))
    return _Complex.of(parts.unflatten(-1, (bins, 2)).movedim(-2, axis))


def _irfft(z: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
    axis = _axis(z, dim)
    size = 2 * (z.shape[axis] - 1) if n is None else n
    bins = size // 2 + 1
    rows = _fit(_pair(z), bins, axis).movedim(axis, -2).flatten(-2)
    matrix = _inverse_matrix(size, bins, rows.dtype) * _scale(norm, size, True)
    return (rows @ matrix).movedim(-1, axis)


def _fft(inverse: bool) -> Callable[..., Any]:
    def rule(z: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
        if not isinstance(z, Tensor) or not (z.is_complex() or z.dtype is torch.float32):
            return NotImplemented
        axis = _axis(z, dim)
        size = z.shape[axis] if n is None else n
        rows = _fit(_pair(z), size, axis).movedim(axis, -2).flatten(-2)
        cos, sin = _turns(size, size, size, rows.dtype)
        sin = sin if inverse else -sin
        of_real, of_imag = torch.stack((cos, sin), -1), torch.stack((-sin, cos), -1)
        matrix = torch.stack((of_real, of_imag), 1).flatten(2).flatten(0, 1)
        parts = rows @ (matrix * _scale(norm, size, inverse))
        return _Complex.of(parts.unflatten(-1, (size, 2)).movedim(-2, axis))

    return rule


def _windowed(window: Tensor | None, length: int, size: int, like: Tensor) -> Tensor:
    window = torch.ones(length, dtype=like.dtype) if window is None else window
    left = (size - length) // 2
    return F.pad(window, (left, size - length - left))


def _stft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Any:
    real = input.dtype is torch.float32 and not (window is not None and window.is_complex())
    if not real or onesided is False or align_to_window or input.dim() > 2:
        return NotImplemented
    hop = n_fft // 4 if hop_length is None else hop_length
    signal = input[None, None] if input.dim() == 1 else input[:, None]
    if center:
        signal = F.pad(signal, (n_fft // 2, n_fft // 2), mode=pad_mode)
    bins = n_fft // 2 + 1
    shape = _windowed(window, win_length or n_fft, n_fft, input)
    filters = (_real_matrix(n_fft, bins, input.dtype) * shape[:, None]).t()
    filters = filters * n_fft**-0.5 if normalized else filters
    parts = F.conv1d(signal, filters[:, None].contiguous(), stride=hop)
    pair = parts.unflatten(1, (bins, 2)).transpose(2, 3)  # type: ignore[no-untyped-call]
    pair = pair[0] if input.dim() == 1 else pair
    return _Complex.of(pair) if return_complex else pair


def _istft(
    input: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: Any = None,
    return_complex: bool = False,
) -> Any:
    pair = _pair(input)
    bins = n_fft // 2 + 1
    if return_complex or onesided is False or pair.dtype is not torch.float32:
        return NotImplemented
    hop = n_fft // 4 if hop_length is None else hop_length
    batched = pair if pair.dim() == 4 else pair[None]
    parts = batched.transpose(2, 3).flatten(1, 2)  # [B, 2 bins, frames]
    shape = _windowed(window, win_length or n_fft, n_fft, pair)
    filters = _inverse_matrix(n_fft, bins, pair.dtype) * shape / n_fft
    filters = filters * n_fft**0.5 if normalized else filters
    signal = F.conv_transpose1d(parts, filters[:, None], stride=hop)
    ones = torch.ones_like(parts[:1, :1])
    weight = F.conv_transpose1d(ones, (shape * shape)[None, None], stride=hop)
    start = n_fft // 2 if center else 0
    end = signal.shape[-1] - start if length is None else start + length
    if length is not None:
        whole = torch.sym_max(end, signal.shape[-1])  # type: ignore[no-untyped-call]
        signal, weight = (_fit(x, whole, 2) for x in (signal, weight))
    result = signal[:, 0, start:end] / weight[:, 0, start:end]
    return result if pair.dim() == 4 else result[0]


#: What makes complex numbers of real ones.
_MADE = {"view_as_complex", "complex", "polar", "stft", "rfft", "fft", "ifft"}
#: What stand-ins say of themselves.
_DESCRIBED = {
    *("shape", "size", "dim", "ndim", "ndimension", "dtype", "device", "is_complex", "numel"),
    *("layout", "is_floating_point", "requires_grad", "names"),
}
_RULES: dict[str, Callable[..., Any]] = {
    "view_as_complex": lambda x: _Complex.of(x),
    "view_as_real": lambda z: _pair(z),
    "complex": _of_parts,
    "polar": lambda size, angle: _of_parts(size * torch.cos(angle), size * torch.sin(angle)),
    "real": lambda z: _pair(z)[..., 0],
    "imag": lambda z: _pair(z)[..., 1],
    "abs": _abs,
    "angle": _angle,
    "conj": _conj,
    "conj_physical": _conj,
    "resolve_conj": lambda z: z,
    "neg": lambda z: _Complex.of(-_pair(z)),
    "mul": _mul,
    "rmul": _mul,
    "multiply": _mul,
    "div": _div,
    "truediv": _div,
    "add": _sum(1),
    "radd": _sum(1),
    "sub": _sum(-1),
    "rsub": _sum(-1, swap=True),
    "reshape": lambda z, *shape: _Complex.of(_pair(z).reshape(*_sizes(shape), 2)),
    "view": lambda z, *shape: _Complex.of(_pair(z).reshape(*_sizes(shape), 2)),
    "expand": lambda z, *shape: _Complex.of(_pair(z).expand(*_sizes(shape), 2)),
    "unsqueeze": lambda z, dim: _Complex.of(_pair(z).unsqueeze(dim if dim >= 0 else dim - 1)),
    "squeeze": lambda z, dim: _Complex.of(_pair(z).squeeze(_axis(z, dim))),
    "transpose": lambda z, a, b: _Complex.of(_pair(z).transpose(_axis(z, a), _axis(z, b))),
    "flatten": lambda z, start_dim=0, end_dim=-1: _Complex.of(
        _pair(z).flatten(_axis(z, start_dim), _axis(z, end_dim))
    ),
    "permute": lambda z, *dims: _Complex.of(
        _pair(z).permute(*(_axis(z, d) for d in _sizes(dims)), z.dim())
    ),
    "getitem": _getitem,
    "cat": _together(torch.cat),
    "stack": _together(torch.stack),
    "contiguous": lambda z: z,
    "detach": lambda z: z,
    "clone": lambda z: z,
    "rfft": _rfft,
    "irfft": _irfft,
    "fft": _fft(inverse=False),
    "ifft": _fft(inverse=True),
    "stft": _stft,
    "istft": _istft,
}
