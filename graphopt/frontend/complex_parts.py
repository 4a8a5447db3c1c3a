"""Stand-ins for complex tensors, and what models do with them, in real numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

Tensor = torch.Tensor
Rule = Callable[..., Any]
#: The dtype of the parts, by that of complex numbers.
REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


class Complex(torch.Tensor):
    """Stands for a complex tensor; `pair` holds its parts along a last axis of two."""

    pair: Tensor

    @staticmethod
    def of(pair: Tensor) -> Complex:
        """The complex numbers whose parts lie along the last axis."""
        kind = next(wide for wide, real in REAL.items() if real is pair.dtype)
        made: Complex = torch.Tensor._make_wrapper_subclass(
            Complex, pair.shape[:-1], dtype=kind, device=pair.device
        )
        made.pair = pair
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise NotImplementedError(f"{func} of complex numbers has no form in real ones")


def is_complex(leaf: Any) -> bool:
    """Whether it is a complex tensor or number, or a stand-in."""
    return isinstance(leaf, complex) or (isinstance(leaf, Tensor) and leaf.is_complex())


def pair_of(x: Any) -> Tensor:
    """A tensor or a number as parts."""
    if isinstance(x, Complex):
        return x.pair
    if isinstance(x, Tensor):
        if x.is_complex():
            return torch.view_as_real(x)
        return torch.stack((x, torch.zeros_like(x)), -1)
    return torch.tensor([complex(x).real, complex(x).imag])


def _scaled(z: Any, factor: Any) -> Complex:
    return Complex.of(pair_of(z) * (factor.unsqueeze(-1) if isinstance(factor, Tensor) else factor))


def _mul(a: Any, b: Any) -> Any:
    if not is_complex(b):
        return _scaled(a, b)
    if not is_complex(a):
        return _scaled(b, a)
    (ar, ai), (br, bi) = (pair_of(x).unbind(-1) for x in (a, b))
    return Complex.of(torch.stack((ar * br - ai * bi, ar * bi + ai * br), -1))


def _div(a: Any, b: Any, *, rounding_mode: Any = None) -> Any:
    if rounding_mode is not None:
        return NotImplemented
    if is_complex(b):
        return _mul(a, _reciprocal(b))
    factor = b.unsqueeze(-1) if isinstance(b, Tensor) else b
    return Complex.of(pair_of(a) / factor)


def _reciprocal(z: Any) -> Complex:
    real, imag = pair_of(z).unbind(-1)
    square = real * real + imag * imag
    return of_parts(real / square, -imag / square)


def _pow(z: Any, exponent: Any) -> Any:
    if is_complex(exponent):
        return NotImplemented
    if isinstance(exponent, int) and 1 <= exponent <= 4:
        made = z
        for _ in range(exponent - 1):
            made = _mul(made, z)
        return made
    return polar(_abs(z) ** exponent, _angle(z) * exponent)


def polar(size: Tensor, angle: Tensor) -> Complex:
    """The complex numbers of sizes and angles."""
    return of_parts(size * torch.cos(angle), size * torch.sin(angle))


def _exp(z: Any) -> Complex:
    real, imag = pair_of(z).unbind(-1)
    return polar(torch.exp(real), imag)


def _sgn(z: Any) -> Complex:
    size = _abs(z)
    return _scaled(z, torch.where(size == 0, size, 1 / size))


def _sum(sign: int, swap: bool = False) -> Rule:
    def rule(a: Any, b: Any, *, alpha: Any = 1) -> Any:
        left, right = pair_of(a), pair_of(b)
        if swap:
            left, right = right, left
        return Complex.of(left + right * (sign * alpha))

    return rule


def _conj(z: Any) -> Any:
    real, imag = pair_of(z).unbind(-1)
    return Complex.of(torch.stack((real, -imag), -1))


def _abs(z: Any) -> Tensor:
    real, imag = pair_of(z).unbind(-1)
    return torch.sqrt(real * real + imag * imag)


def _angle(z: Any) -> Any:
    real, imag = pair_of(z).unbind(-1)
    return torch.atan2(imag, real)


def of_parts(real: Tensor, imag: Tensor) -> Complex:
    """The complex numbers of two tensors, which broadcast."""
    parts = torch.broadcast_tensors(real, imag)  # type: ignore[no-untyped-call]
    return Complex.of(torch.stack(parts, -1))


def axis_of(z: Any, axis: int) -> int:
    """An axis of a complex tensor, counted from the front."""
    return axis if axis >= 0 else axis + z.dim()


def _sizes(sizes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sizes that are given one by one or together."""
    return tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes


def _index(z: Any, index: Any) -> tuple[Any, ...]:
    """The index of parts: after `...`, both of them."""
    given = index if isinstance(index, tuple) else (index,)
    return (*given, slice(None)) if any(i is Ellipsis for i in given) else given


def _setitem(z: Any, index: Any, value: Any) -> Any:
    if not isinstance(z, Complex):
        return NotImplemented
    z.pair[_index(z, index)] = pair_of(value)
    return None


def _together(function: Callable[..., Tensor]) -> Callable[..., Any]:
    def rule(tensors: Any, dim: int = 0) -> Any:
        extra = int(function is torch.stack)
        axis = dim if dim >= 0 else dim + tensors[0].dim() + extra
        return Complex.of(function([pair_of(t) for t in tensors], axis))

    return rule


def _apart(function: Callable[..., Sequence[Tensor]]) -> Rule:
    def rule(z: Any, *args: Any, dim: int = 0, **kwargs: Any) -> tuple[Complex, ...]:
        made = function(pair_of(z), *args, dim=axis_of(z, dim), **kwargs)
        return tuple(map(Complex.of, made))

    return rule


def _unbind(z: Any, dim: int = 0) -> tuple[Complex, ...]:
    return tuple(map(Complex.of, pair_of(z).unbind(axis_of(z, dim))))


def axes_of(z: Any, given: Any = None) -> list[int]:
    """Axes counted from the front: all for None."""
    if given is None:
        return list(range(z.dim()))
    return [axis_of(z, a) for a in ([given] if isinstance(given, int) else given)]


def _folded(function: Callable[..., Tensor]) -> Rule:
    def rule(z: Any, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
        if kwargs:
            return NotImplemented
        return Complex.of(function(pair_of(z), dim=axes_of(z, dim), keepdim=keepdim))

    return rule


def _movedim(z: Any, source: Any, destination: Any) -> Complex:
    return Complex.of(pair_of(z).movedim(axes_of(z, source), axes_of(z, destination)))


def _roll(z: Any, shifts: Any, dims: Any = None) -> Any:
    if dims is None:
        return Complex.of(pair_of(z).flatten(0, -2).roll(shifts, 0).reshape(pair_of(z).shape))
    return Complex.of(pair_of(z).roll(shifts, axes_of(z, dims)))


def _squeeze(z: Any, dim: Any = None) -> Complex:
    axes = [a for a in axes_of(z) if z.shape[a] == 1] if dim is None else axes_of(z, dim)
    return Complex.of(pair_of(z).squeeze(axes))


def _where(condition: Tensor, one: Any, other: Any) -> Complex:
    return Complex.of(torch.where(condition.unsqueeze(-1), pair_of(one), pair_of(other)))


def _product(function: Callable[..., Tensor]) -> Rule:
    """A function that is linear in each of two."""

    def rule(a: Any, b: Any) -> Complex:
        if not is_complex(a):
            return of_parts(*(function(a, part) for part in pair_of(b).unbind(-1)))
        if not is_complex(b):
            return of_parts(*(function(part, b) for part in pair_of(a).unbind(-1)))
        (ar, ai), (br, bi) = (pair_of(x).unbind(-1) for x in (a, b))
        return of_parts(function(ar, br) - function(ai, bi), function(ar, bi) + function(ai, br))

    return rule


def _einsum(equation: str, *operands: Any) -> Any:
    given = operands[0] if isinstance(operands[0], list | tuple) else operands
    if len(given) != 2:
        return NotImplemented
    return _product(lambda a, b: torch.einsum(equation, a, b))(*given)


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    made = _product(torch.nn.functional.linear)(x, weight)
    return made if bias is None else _sum(1)(made, bias)


def _to(z: Any, *args: Any, **kwargs: Any) -> Any:
    """A conversion that leaves it complex; the device is the processor."""
    _, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
    if dtype is None or dtype is z.dtype:
        return z
    return Complex.of(pair_of(z).to(REAL[dtype])) if dtype in REAL else NotImplemented


def _filled(value: complex | None) -> Rule:
    """A tensor of equal elements, with a complex dtype; None for that which is given."""

    def rule(*sizes: Any, dtype: Any = None, size: Any = None, **kwargs: Any) -> Any:
        if dtype not in REAL:
            return NotImplemented
        given = (size,) if size is not None else sizes
        fill, given = (given[1], given[:1]) if value is None and len(given) == 2 else (value, given)
        fill = kwargs.pop("fill_value", fill)
        zeros = torch.zeros(*_sizes(given), 2, dtype=REAL[dtype])
        return Complex.of(zeros if fill == 0 else zeros + pair_of(fill).to(REAL[dtype]))

    return rule


def _filled_like(value: complex) -> Rule:
    def rule(z: Any, **kwargs: Any) -> Complex:
        return Complex.of(torch.zeros_like(pair_of(z)) + pair_of(value))

    return rule


#: Functions that make complex tensors if they are given such a dtype.
FILLED: dict[str, Rule] = {
    "zeros": _filled(0),
    "empty": _filled(0),
    "ones": _filled(1),
    "full": _filled(None),
}
#: Functions that make complex tensors of real ones.
MADE: dict[str, Rule] = {
    "view_as_complex": lambda x: Complex.of(x),
    "complex": of_parts,
    "polar": polar,
}
#: Functions of complex tensors.
RULES: dict[str, Rule] = {
    "view_as_real": lambda z: pair_of(z),
    "real": lambda z: pair_of(z)[..., 0],
    "imag": lambda z: pair_of(z)[..., 1],
    "abs": _abs,
    "absolute": _abs,
    "angle": _angle,
    "conj": _conj,
    "conj_physical": _conj,
    "resolve_conj": lambda z: z,
    "neg": lambda z: Complex.of(-pair_of(z)),
    "mul": _mul,
    "rmul": _mul,
    "multiply": _mul,
    "div": _div,
    "divide": _div,
    "truediv": _div,
    "rtruediv": lambda z, x: _div(x, z),
    "rdiv": lambda z, x: _div(x, z),
    "reciprocal": _reciprocal,
    "add": _sum(1),
    "radd": _sum(1),
    "sub": _sum(-1),
    "subtract": _sum(-1),
    "rsub": _sum(-1, swap=True),
    "pow": _pow,
    "square": lambda z: _mul(z, z),
    "exp": _exp,
    "log": lambda z: of_parts(torch.log(_abs(z)), _angle(z)),
    "sqrt": lambda z: polar(torch.sqrt(_abs(z)), _angle(z) / 2),
    "sgn": _sgn,
    "matmul": _product(torch.matmul),
    "rmatmul": lambda b, a: _product(torch.matmul)(a, b),
    "mm": _product(torch.mm),
    "bmm": _product(torch.bmm),
    "einsum": _einsum,
    "linear": _linear,
    "sum": _folded(torch.sum),
    "mean": _folded(torch.mean),
    "where": _where,
    "reshape": lambda z, *shape: Complex.of(pair_of(z).reshape(*_sizes(shape), 2)),
    "view": lambda z, *shape: Complex.of(pair_of(z).reshape(*_sizes(shape), 2)),
    "expand": lambda z, *shape: Complex.of(pair_of(z).expand(*_sizes(shape), 2)),
    "repeat": lambda z, *counts: Complex.of(pair_of(z).repeat(*_sizes(counts), 1)),
    "unsqueeze": lambda z, dim: Complex.of(pair_of(z).unsqueeze(dim if dim >= 0 else dim - 1)),
    "squeeze": _squeeze,
    "transpose": lambda z, a, b: Complex.of(pair_of(z).transpose(axis_of(z, a), axis_of(z, b))),
    "swapaxes": lambda z, a, b: Complex.of(pair_of(z).transpose(axis_of(z, a), axis_of(z, b))),
    "t": lambda z: Complex.of(pair_of(z).transpose(0, 1)),
    "T": lambda z: Complex.of(pair_of(z).permute(*reversed(range(z.dim())), z.dim())),
    "mH": lambda z: _conj(Complex.of(pair_of(z).transpose(-3, -2))),
    "mT": lambda z: Complex.of(pair_of(z).transpose(-3, -2)),
    "flatten": lambda z, start_dim=0, end_dim=-1: Complex.of(
        pair_of(z).flatten(axis_of(z, start_dim), axis_of(z, end_dim))
    ),
    "permute": lambda z, *dims: Complex.of(
        pair_of(z).permute(*(axis_of(z, d) for d in _sizes(dims)), z.dim())
    ),
    "movedim": _movedim,
    "moveaxis": _movedim,
    "roll": _roll,
    "flip": lambda z, *dims: Complex.of(pair_of(z).flip(axes_of(z, _sizes(dims)))),
    "split": _apart(torch.split),
    "chunk": _apart(torch.chunk),
    "unbind": _unbind,
    "select": lambda z, dim, index: Complex.of(pair_of(z).select(axis_of(z, dim), index)),
    "narrow": lambda z, dim, start, length: Complex.of(
        pair_of(z).narrow(axis_of(z, dim), start, length)
    ),
    "index_select": lambda z, dim, index: Complex.of(
        pair_of(z).index_select(axis_of(z, dim), index)
    ),
    "getitem": lambda z, index: Complex.of(pair_of(z)[_index(z, index)]),
    "setitem": _setitem,
    "cat": _together(torch.cat),
    "concat": _together(torch.cat),
    "stack": _together(torch.stack),
    "contiguous": lambda z, **_: z,
    "detach": lambda z: z,
    "cpu": lambda z: z,
    "clone": lambda z, **_: Complex.of(pair_of(z).clone()),
    "to": _to,
    "zeros_like": _filled_like(0),
    "empty_like": _filled_like(0),
    "ones_like": _filled_like(1),
}
