"""Whole numbers that a model computes from sizes in small tensors, and reads back.

    steps = torch.div(torch.tensor(x.shape[1]), 2, rounding_mode="floor")
    y = x[:, :steps]

torch.export would take what is read for a number that data decide. While this mode is active, what
small tensors hold is known beside them, as expressions of sizes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch._subclasses import FakeTensor
from torch.overrides import TorchFunctionMode

Tensor = torch.Tensor
Numbers = np.ndarray[Any, np.dtype[np.object_]]

_ALIASES: Callable[[Tensor, Tensor], bool] = vars(torch._C)["_is_alias_of"]
_LARGEST = 16  # elements
_EXACT = 1 << 22
"""Up to here what f32 makes of a quotient in four steps has the floor and ceiling of the exact."""
_FRACTION = 1 << 10  # what floats are multiples of one over
_WHOLE = {torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool}
_FLOAT = {torch.float32, torch.float64}
_NUMBER = (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)


class ChangedNumberError(Exception):
    """A buffer whose numbers the model reads, and changes.

    Args:
        name: of the buffer.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def numbers_of_buffers(model: torch.nn.Module, changing: Container[str]) -> dict[str, Numbers]:
    """What small buffers of whole numbers hold, by name.

    Args:
        model: not yet traced.
        changing: names of buffers that it writes to.
    """
    return {
        name: np.array(buffer.tolist(), dtype=object)
        for name, buffer in model.named_buffers()
        if name not in changing and buffer.dtype in _WHOLE and buffer.numel() <= _LARGEST
    }


class SizeTensors(TorchFunctionMode):
    """While it is active, small tensors that are made of sizes alone are read as these.

    Args:
        model: as it is traced.
        buffers: what its small buffers hold.
    """

    def __init__(self, model: torch.nn.Module, buffers: dict[str, Numbers]) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, Numbers]] = {}
        named = dict(model.named_buffers())
        self._model = model
        self._buffers = {name: named[name] for name in buffers if name in named}
        self._names = {id(buffer): name for name, buffer in self._buffers.items()}
        for name, buffer in self._buffers.items():
            self._known[id(buffer)] = buffer, buffers[name]

    def refuse_changed(self) -> None:
        """Raises ChangedNumberError if the model holds another tensor for a buffer by now."""
        now = dict(self._model.named_buffers())
        for name, buffer in self._buffers.items():
            if now.get(name) is not buffer:
                raise ChangedNumberError(name)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, str(getattr(func, "__name__", ""))
        if _writes(name, kwargs):
            self._forget(args[0] if args else None)
            return func(*args, **kwargs)
        plain = name.strip("_")
        held = self._of(args[0]) if name in _READS else None
        if held is not None and (read := _READS[name](held)) is not NotImplemented:
            return read
        if plain == "getitem":
            args = (args[0], self._with_bounds(args[1]))
        elif plain in _BOUNDED:
            args, kwargs = (*args[:1], *self._with_sizes(args[1:])), self._with_sizes(kwargs)
        elif plain in _TAKES_SIZES:
            args, kwargs = self._with_sizes(args), self._with_sizes(kwargs)
        result = _made_of_sizes(*args, **kwargs) if name in _MAKES else NotImplemented
        if result is NotImplemented:
            result = func(*args, **kwargs)
        if plain in _FUNCTIONS and isinstance(result, Tensor):
            self._learn(plain, args, kwargs, result)
        return result

    def _forget(self, written: Any) -> None:
        """Of what lies in the memory that is written to nothing is known any more."""
        if not isinstance(written, Tensor):
            return
        for key, (tensor, _) in list(self._known.items()):
            if tensor is written or _ALIASES(tensor, written):
                if name := self._names.get(key):
                    raise ChangedNumberError(name)
                del self._known[key]

    def _of(self, given: Any) -> Numbers | None:
        """Numbers that are known of a tensor, a number or a list of them."""
        if isinstance(given, Tensor):
            if id(given) in self._known:
                return self._known[id(given)][1]
            return _constant(given)
        if isinstance(given, _NUMBER):
            return _array(given)
        if isinstance(given, list | tuple) and given and len(given) <= _LARGEST:
            parts = [self._of(part) for part in given]
            if all(part is not None and part.shape == () for part in parts):
                return _array([part.item() for part in parts if part is not None])
        return None

    def _with_bounds(self, index: Any) -> Any:
        """An index whose slices begin and end at numbers."""
        if isinstance(index, tuple):
            return tuple(map(self._with_bounds, index))
        if isinstance(index, slice):
            return slice(*self._with_sizes((index.start, index.stop, index.step)))
        return index

    def _with_sizes(self, given: Any) -> Any:
        """Arguments in which numbers of sizes are in the place of tensors that hold them."""
        if isinstance(given, list | tuple) and not isinstance(given, torch.Size):
            return type(given)(map(self._with_sizes, given))
        if isinstance(given, dict):
            return {name: self._with_sizes(part) for name, part in given.items()}
        if isinstance(given, Tensor) and given.dim() == 0 and given.dtype in _WHOLE - {torch.bool}:
            held = self._known.get(id(given))
            return given if held is None else held[1].item()
        return given

    def _learn(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor
    ) -> None:
        if not _is_small(result) or result.dtype not in _WHOLE | _FLOAT:
            return
        function, count = _FUNCTIONS[name]
        operands = [self._of(arg) for arg in args[:count]]
        if not operands or any(operand is None for operand in operands):
            return
        try:
            made = function(*operands, *args[count:], **kwargs)
            if made is NotImplemented:
                return
            if result.dtype is torch.float32:
                _require_exact(operands)
            numbers = _converted(_array(made), result.dtype)
        except (TypeError, ValueError, ZeroDivisionError, NotImplementedError):
            return  # what is not a function of numbers
        if numbers.shape == tuple(result.shape):
            self._known[id(result)] = result, numbers


def _made_of_sizes(data: Any, dtype: torch.dtype | None = None, device: Any = None) -> Any:
    """A tensor of numbers of which some are sizes, which torch would fix; else NotImplemented."""
    numbers = data if isinstance(data, list | tuple) else [data]
    if not numbers or not all(isinstance(n, int | torch.SymInt) for n in numbers):
        return NotImplemented
    if not any(isinstance(n, torch.SymInt) for n in numbers):
        return NotImplemented
    made = [torch.scalar_tensor(n, dtype=dtype or torch.int64) for n in numbers]
    return torch.stack(made) if numbers is data else made[0]


def _writes(name: str, kwargs: dict[str, Any]) -> bool:
    in_place = name.endswith("_") and not name.endswith("__")
    assigned = name.startswith("__i") and name.endswith("__") and name not in _NOT_ASSIGNED
    return in_place or assigned or name == "__setitem__" or kwargs.get("out") is not None


_NOT_ASSIGNED = {"__int__", "__index__", "__invert__"}


def _is_small(tensor: Tensor) -> bool:
    sizes = tensor.shape
    return all(type(size) is int for size in sizes) and math.prod(sizes) <= _LARGEST


def _constant(tensor: Tensor) -> Numbers | None:
    """What a tensor holds that no tracer has made; None for others."""
    if type(tensor) is not Tensor or isinstance(tensor, FakeTensor):
        return None
    if tensor.dtype not in _WHOLE or not _is_small(tensor) or tensor._is_view():
        return None
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor) or torch._is_functional_tensor(
        tensor
    ):
        return None
    with torch.utils._python_dispatch._disable_current_modes():
        return _array(tensor.tolist())


def _array(given: Any) -> Numbers:
    made = np.empty(np.shape(given) if isinstance(given, np.ndarray | list) else (), dtype=object)
    made[...] = given
    return made


@dataclass(frozen=True)
class Ratio:
    """An exact quotient of whole numbers.

    Attributes:
        over: the numerator.
        under: the denominator, which is positive.
    """

    over: Any
    under: Any

    @staticmethod
    def of(number: Any) -> Ratio:
        """A whole number, or a float that is short, as a quotient; raises TypeError for others."""
        if isinstance(number, Ratio):
            return number
        if isinstance(number, float) and (number * _FRACTION).is_integer():
            return Ratio(*number.as_integer_ratio())
        if isinstance(number, int | torch.SymInt):
            return Ratio(number, 1)
        raise TypeError(number)

    def __add__(self, other: Any) -> Ratio:
        y = Ratio.of(other)
        return Ratio(self.over * y.under + y.over * self.under, self.under * y.under)

    def __mul__(self, other: Any) -> Ratio:
        x, y = self, Ratio.of(other)
        if x.under != 1 and not (isinstance(y.over, int) and y.over.bit_count() == 1):
            x, y = y, x
        if x.under != 1 and not (isinstance(y.over, int) and y.over.bit_count() == 1):
            raise TypeError("a rounded quotient times a number")
        return Ratio(x.over * y.over, x.under * y.under)

    def __truediv__(self, other: Any) -> Ratio:
        y = Ratio.of(other)
        if self.under != 1 or y.under != 1:
            raise TypeError("a quotient that is divided")
        return Ratio(-self.over, -y.over) if y.over < 0 else Ratio(self.over, y.over)

    def __neg__(self) -> Ratio:
        return Ratio(-self.over, self.under)

    def __sub__(self, other: Any) -> Ratio:
        return self + -Ratio.of(other)

    def __rsub__(self, other: Any) -> Ratio:
        return Ratio.of(other) - self

    __radd__, __rmul__ = __add__, __mul__

    def __floor__(self) -> Any:
        return self.over // self.under

    def __ceil__(self) -> Any:
        return -(-self.over // self.under)

    def __trunc__(self) -> Any:
        return math.floor(self) if self.over >= 0 else math.ceil(self)


def _require_exact(operands: list[Numbers | None]) -> None:
    """Makes a condition of what f32 takes: larger whole numbers are not exact in it."""
    for operand in operands:
        for number in () if operand is None else operand.flat:
            if isinstance(number, torch.SymInt):
                torch._check(number <= _EXACT)
                torch._check(number >= -_EXACT)


def _converted(numbers: Numbers, dtype: torch.dtype) -> Numbers:
    if dtype is torch.bool:
        return numbers
    to = Ratio.of if dtype in _FLOAT else _whole
    return _array(np.frompyfunc(to, 1, 1)(numbers))


def _whole(number: Any) -> Any:
    return number if isinstance(number, int | torch.SymInt) else math.trunc(number)


def _each(function: Callable[..., Any], operands: int = 1) -> tuple[Callable[..., Any], int]:
    """A function of numbers, for every element of arrays that broadcast."""
    return np.frompyfunc(function, operands, 1), operands


def _divided(x: Numbers, y: Numbers, rounding_mode: str | None = None) -> Any:
    return np.frompyfunc(_QUOTIENTS[rounding_mode], 2, 1)(x, y)


def _truncated(x: Any, y: Any) -> Any:
    return x // y if (x >= 0) == (y > 0) else -(-x // y)


_QUOTIENTS: dict[str | None, Callable[[Any, Any], Any]] = {
    None: lambda x, y: Ratio.of(x) / Ratio.of(y),
    "floor": operator.floordiv,
    "trunc": _truncated,
}


def _most(x: Any, y: Any) -> Any:
    return torch.sym_max(x, y)  # type: ignore[no-untyped-call]


def _least(x: Any, y: Any) -> Any:
    return torch.sym_min(x, y)  # type: ignore[no-untyped-call]


def _clamped(x: Numbers, min: Any = None, max: Any = None) -> Any:
    for bound, choose in ((min, _most), (max, _least)):
        if bound is not None and not isinstance(bound, _NUMBER):
            return NotImplemented
        if bound is not None:
            x = _array(np.frompyfunc(choose, 2, 1)(x, _array(bound)))
    return x


def _picked(x: Numbers, index: Any) -> Any:
    return x[index] if isinstance(index, int | slice) else NotImplemented


def _folded(function: Callable[[Numbers], Any]) -> tuple[Callable[..., Any], int]:
    """A function of all elements together."""

    def of_all(x: Numbers, **options: Any) -> Any:
        return NotImplemented if options else function(x)

    return of_all, 1


def _same(x: Numbers, *_: Any, **__: Any) -> Numbers:
    return x


_TWO: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "radd": operator.add,
    "sub": operator.sub,
    "rsub": lambda x, y: y - x,
    "mul": operator.mul,
    "rmul": operator.mul,
    "floordiv": operator.floordiv,
    "rfloordiv": lambda x, y: y // x,
    "floor_divide": operator.floordiv,
    "truediv": lambda x, y: Ratio.of(x) / Ratio.of(y),
    "rtruediv": lambda x, y: Ratio.of(y) / Ratio.of(x),
    "true_divide": lambda x, y: Ratio.of(x) / Ratio.of(y),
    "remainder": operator.mod,
    "mod": operator.mod,
    "maximum": _most,
    "minimum": _least,
    **{name: getattr(operator, name) for name in ("gt", "ge", "lt", "le", "eq", "ne")},
}
_ONE: dict[str, Callable[[Any], Any]] = {
    "neg": operator.neg,
    "ceil": math.ceil,
    "floor": math.floor,
    "abs": lambda x: _most(x, -x),
}
_MAKES = ("tensor", "as_tensor")
#: What a function makes of numbers, and how many of its arguments are such.
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int]] = {
    **{name: _each(function, 2) for name, function in _TWO.items()},
    **{name: _each(function) for name, function in _ONE.items()},
    **dict.fromkeys(("div", "divide"), (_divided, 2)),
    **dict.fromkeys(("tensor", "as_tensor", "scalar_tensor"), (_same, 1)),
    **dict.fromkeys(("to", "long", "int", "float", "double", "clone", "detach", "cpu"), (_same, 1)),
    **dict.fromkeys(("clamp", "clip"), (_clamped, 1)),
    "max": _folded(lambda x: reduce(_most, x.flat)),
    "min": _folded(lambda x: reduce(_least, x.flat)),
    "sum": _folded(np.sum),
    "prod": _folded(np.prod),
    "getitem": (_picked, 1),
    "stack": (_same, 1),
}


def _item(held: Numbers) -> Any:
    return NotImplemented if held.size != 1 or _inexact(held) else held.item()


def _listed(held: Numbers) -> Any:
    return NotImplemented if _inexact(held) else held.tolist()


def _inexact(held: Numbers) -> bool:
    """Whether one is a quotient, which torch rounds."""
    return any(isinstance(number, Ratio) for number in held.flat)


def _truth(held: Numbers) -> Any:
    return NotImplemented if held.size != 1 or _inexact(held) else bool(held.item())


def _plain(kind: type) -> Callable[[Numbers], Any]:
    """What Python must have as a number of its own; sizes are left to torch."""

    def read(held: Numbers) -> Any:
        number = _item(held)
        return kind(number) if isinstance(number, int | float) else NotImplemented

    return read


#: Functions that read a tensor.
_READS: dict[str, Callable[[Numbers], Any]] = {
    "item": _item,
    "tolist": _listed,
    "__bool__": _truth,
    "__int__": _plain(int),
    "__index__": _plain(int),
    "__float__": _plain(float),
}
#: Functions that take numbers behind a tensor.
_BOUNDED = {"clamp", "clip", "clamp_min", "clamp_max"}
#: Functions that read tensors among their sizes.
_TAKES_SIZES = {
    *("view", "reshape", "expand", "repeat", "unflatten", "narrow", "split", "chunk"),
    *(
        "tensor",
        "as_tensor",
        "arange",
        "zeros",
        "ones",
        "empty",
        "full",
        "pad",
        "interpolate",
        "roll",
        "new_zeros",
    ),
}
