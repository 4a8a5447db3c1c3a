"""Expressions of one element: what a `go.pointwise` node computes at every index.

An expression is a small tree of `Scalar`s. Leaves read an operand at the current (broadcast) index,
are constants, or are an index or size of the output. A `load` reads an operand at indices that are
expressions themselves; such an operand has any shape. Of a `where` only the side that is chosen is
looked at, so that it may guard loads. The same tree prints as C (`codegen`), runs in numpy
(`graphopt.ir.interpret`) and prints in dumps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sympy

from graphopt.dtype import truncate
from graphopt.ir import Dim, DType

#: Functions of floats alone that take many operations.
TRANSCENDENTAL = frozenset(
    [
        "exp",
        "exp2",
        "expm1",
        "log",
        "log2",
        "log10",
        "log1p",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "atan2",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "acosh",
        "atanh",
        "erf",
        "erfc",
        "sigmoid",
        "silu",
        "gelu_erf",
        "gelu_tanh",
        "sqrt",
        "rsqrt",
    ]
)
_OF_ANY_TYPE = frozenset(["cast", "where", "not", "and", "or", "load", "wrap", "check"])
COMPARISONS = frozenset(["lt", "le", "gt", "ge", "eq", "ne"])
#: What generated code has for every type that is no bool, for floats, for whole numbers,
#: for i64 alone, and of those for floats for f32 alone.
_OF_NUMBERS = frozenset(["add", "sub", "mul", "div", "neg", "max", "min", "rest", "pow"])
_OF_FLOATS = TRANSCENDENTAL | frozenset(
    ["abs", "floor", "ceil", "trunc", "round", "relu", "copysign"]
)
_OF_WHOLE = frozenset(
    ["quotient", "nonzero", "bit_and", "bit_or", "bit_xor", "bit_not", "shift_left", "shift_right"]
)
_OF_I64 = frozenset(["floor_divide", "remainder"])
_SLOW = TRANSCENDENTAL | {"pow", "rest"}
_OF_F32 = frozenset(["sin", "cos", "tan"])


@dataclass(frozen=True)
class Scalar:
    """One node of an element expression.

    Arithmetic and orders of Python make nodes; a number beside one has its type.

    Attributes:
        op: `operand`, `load`, `const`, `index`, `size`, `cast`, or the name of a function.
        args: sub-expressions; of a `load` an index for each axis of the operand.
        dtype: type of the result.
        value: operand number, constant, axis, or size, for leaves and loads; for `wrap` and `check`
            the extent of the axis that is indexed.
    """

    op: str
    dtype: DType
    args: tuple[Scalar, ...] = ()
    value: int | float | bool | Dim | None = None

    def __str__(self) -> str:
        if self.op == "operand":
            return f"x{self.value}"
        if self.op == "const" and self.dtype is DType.F32:
            return str(np.float32(self.value))
        if self.op in ("const", "size"):
            return str(self.value)
        if self.op == "index":
            return f"i{self.value}"
        args = ", ".join(map(str, self.args))
        if self.op == "load":
            return f"x{self.value}[{args}]"
        if self.op in ("wrap", "check"):
            return f"{self.op}({args}, {self.value})"
        return f"{self.dtype.value if self.op == 'cast' else self.op}({args})"

    def walk(self) -> Iterator[Scalar]:
        """This expression and all below it."""
        yield self
        for arg in self.args:
            yield from arg.walk()

    def _beside(self, other: Scalar | float) -> Scalar:
        return other if isinstance(other, Scalar) else const(other, self.dtype)

    def __add__(self, other: Scalar | float) -> Scalar:
        return apply("add", self, self._beside(other))

    def __sub__(self, other: Scalar | float) -> Scalar:
        return apply("sub", self, self._beside(other))

    def __rsub__(self, other: float) -> Scalar:
        return apply("sub", self._beside(other), self)

    def __mul__(self, other: Scalar | float) -> Scalar:
        return apply("mul", self, self._beside(other))

    def __truediv__(self, other: Scalar | float) -> Scalar:
        return apply("div", self, self._beside(other))

    def __rtruediv__(self, other: float) -> Scalar:
        return apply("div", self._beside(other), self)

    def __neg__(self) -> Scalar:
        return apply("neg", self)

    def __lt__(self, other: Scalar | float) -> Scalar:
        return apply("lt", self, self._beside(other))

    def __le__(self, other: Scalar | float) -> Scalar:
        return apply("le", self, self._beside(other))

    def __gt__(self, other: Scalar | float) -> Scalar:
        return apply("gt", self, self._beside(other))

    def __ge__(self, other: Scalar | float) -> Scalar:
        return apply("ge", self, self._beside(other))

    @property
    def cost(self) -> int:
        """Rough number of operations an element takes; 20 for each transcendental."""
        return sum(20 if s.op in _SLOW else 1 for s in self.walk() if s.args and s.op != "cast")


def operand(number: int, dtype: DType) -> Scalar:
    """Operand `number` at the current index."""
    return Scalar("operand", dtype, value=number)


def load(number: int, dtype: DType, indices: Sequence[Scalar]) -> Scalar:
    """An element of an operand.

    Args:
        number: of the operand.
        dtype: of the operand.
        indices: computed ones, i64, one for each of its axes and inside of it.
    """
    return Scalar("load", dtype, tuple(indices), number)


def wrap(position: Scalar, extent: Dim) -> Scalar:
    """An index that counts from the end where it is negative."""
    return Scalar("wrap", DType.I64, (position,), extent)


def check(position: Scalar, extent: Dim) -> Scalar:
    """An index that comes from data; one that is not in 0 .. extent - 1 fails the run."""
    return Scalar("check", DType.I64, (position,), extent)


def read_in_place(expr: Scalar) -> set[int]:
    """Numbers of the operands that are read at the current index: these broadcast to the result."""
    return {s.value for s in expr.walk() if s.op == "operand"}  # type: ignore[misc]


def const(value: int | float | bool, dtype: DType) -> Scalar:
    """A constant of the given type, to which the value is converted as torch does."""
    typed: int | float | bool
    if dtype is DType.BOOL:
        typed = bool(value)
    elif dtype is DType.F64:
        typed = float(value)
    elif dtype.is_float:
        with np.errstate(over="ignore"):
            typed = float(np.float32(value))
    elif isinstance(value, float):
        typed = int(truncate(np.float64(value), dtype))
    else:
        bits = 8 * dtype.itemsize
        low = 0 if dtype is DType.U8 else -(1 << bits - 1)
        typed = (int(value) - low) % (1 << bits) + low
    return Scalar("const", dtype, value=typed)


def index(axis: int) -> Scalar:
    """The output index along an axis, as i64."""
    return Scalar("index", DType.I64, value=axis)


def size(value: Dim) -> Scalar:
    """A symbolic size, as i64."""
    return Scalar("size", DType.I64, value=value)


def cast(arg: Scalar, dtype: DType) -> Scalar:
    """Converts as torch does; bool is `!= 0`. No-op if the type is already right."""
    if arg.dtype is dtype:
        return arg
    if arg.op == "const" and not dtype.is_half:
        return const(arg.value, dtype)  # type: ignore[arg-type]
    return Scalar("cast", dtype, (arg,))


def apply(op: str, *args: Scalar, dtype: DType | None = None) -> Scalar:
    """A function of sub-expressions.

    Args:
        op: its name.
        args: the sub-expressions.
        dtype: of the result; if None that of the last sub-expression, or bool of a comparison.
    """
    if dtype is None:
        dtype = DType.BOOL if op in COMPARISONS else args[-1].dtype
    return Scalar(op, dtype, tuple(args))


def activated(name: str, x: Scalar, slope: float = 0.0) -> Scalar:
    """What an activation is as an expression: a function of that name, or some steps.

    Args:
        name: of the activation.
        x: what it is applied to.
        slope: of `leaky_relu`.
    """

    def to_six(y: Scalar) -> Scalar:
        return apply("min", apply("max", y, const(0, x.dtype)), const(6, x.dtype))

    if name == "leaky_relu":
        return apply("where", x > 0, x, x * slope)
    if name == "relu6":
        return to_six(x)
    if name == "hardsigmoid":
        return to_six(x + 3) / 6
    if name == "hardswish":
        return x * to_six(x + 3) / 6
    return apply(name, x)


def has_code(s: Scalar) -> bool:
    """Whether generated code has the function of a node for its type."""
    if not s.args or s.op in _OF_ANY_TYPE or s.op in COMPARISONS:
        return True
    dtype = s.args[0].dtype
    if dtype is DType.BOOL or dtype.is_half:
        return False
    if dtype.is_float:
        return s.op in _OF_NUMBERS | _OF_FLOATS and (dtype is DType.F32 or s.op not in _OF_F32)
    return s.op in _OF_NUMBERS | _OF_WHOLE or (dtype is DType.I64 and s.op in _OF_I64)


def not_computable(expr: Scalar) -> str | None:
    """The first function that generated code does not have for its type, as text."""
    missing = (s for s in expr.walk() if not has_code(s))
    return next((f"{s.op} of {s.args[0].dtype.value}" for s in missing), None)


def renumbered(expr: Scalar, number: Callable[[int], int]) -> Scalar:
    """The expression with other numbers of its operands."""

    def leaf(s: Scalar) -> Scalar:
        if s.op not in ("operand", "load"):
            return s
        return replace(s, value=number(s.value))  # type: ignore[arg-type]

    return substitute(expr, leaf)


def substitute(expr: Scalar, leaf: Callable[[Scalar], Scalar]) -> Scalar:
    """Rebuilds the expression with every leaf, and every load of new indices, as `leaf(it)`."""
    return rebuild(expr, lambda s: leaf(s) if not s.args or s.op == "load" else s)


def rebuild(expr: Scalar, change: Callable[[Scalar], Scalar]) -> Scalar:
    """Rebuilds the expression from its leaves on, each part of new parts as `change(it)`."""
    args = tuple(rebuild(a, change) for a in expr.args)
    return change(Scalar(expr.op, expr.dtype, args, expr.value))


def symbols_in(thing: Any) -> set[sympy.Symbol]:
    """The dims in sizes, in expressions, and in nested lists and dicts of them."""
    if isinstance(thing, sympy.Basic):
        return {s for s in thing.free_symbols if isinstance(s, sympy.Symbol)}
    if isinstance(thing, Scalar):
        thing = [thing.value, *thing.args]
    if isinstance(thing, dict):
        thing = list(thing.values())
    return (
        {s for part in thing for s in symbols_in(part)}
        if isinstance(thing, list | tuple)
        else set()
    )
