"""Arithmetic on sizes: integers mixed with sympy expressions over named dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

import sympy
from sympy.printing.c import C99CodePrinter

from graphopt.ir import Dim, Shape

THREADS = sympy.Symbol("threads", integer=True, positive=True)
"""The number of threads of a run, for scratch memory that each thread needs."""


def symbol(name: str) -> sympy.Symbol:
    """The symbol of a dimension: a positive integer."""
    return sympy.Symbol(name, integer=True, positive=True)


def simplify(value: Any) -> Dim:
    """An int where the size is known, else the expression."""
    if isinstance(value, int):
        return value
    expr = cast(sympy.Expr, sympy.sympify(value))
    return int(expr) if expr.is_Integer else expr


def product(sizes: Iterable[Dim]) -> Dim:
    """The product of sizes; 1 for none."""
    result: Any = 1
    for size in sizes:
        result = result * size
    return simplify(result)


def floor_div(a: Dim, b: Dim) -> Dim:
    """A // b for non-negative sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    return simplify(sympy.floor(sympy.sympify(a) / b))


def ceil_div(a: Dim, b: Dim) -> Dim:
    """Smallest integer not below a / b, for non-negative sizes."""
    return floor_div(simplify(a + b - 1), b)


def maximum(sizes: Iterable[Dim]) -> Dim:
    """The largest of at least one size."""
    distinct = list(dict.fromkeys(sizes))
    return distinct[0] if len(distinct) == 1 else simplify(sympy.Max(*distinct))


def minimum(*sizes: Dim) -> Dim:
    """The smallest of at least one size."""
    return simplify(sympy.Min(*sizes))


def evaluate(size: Dim, sizes: Mapping[sympy.Symbol, int]) -> int:
    """The size for given dims; raises KeyError if a symbol is missing."""
    if isinstance(size, int):
        return size
    missing = size.free_symbols - set(sizes)
    if missing:
        raise KeyError(f"no size for {', '.join(sorted(map(str, missing)))} in {size}")
    return int(size.subs(dict(sizes)))


def contiguous_strides(shape: Shape) -> Shape:
    """Row-major strides in elements."""
    strides: list[Dim] = []
    step: Dim = 1
    for size in reversed(shape):
        strides.append(step)
        step = simplify(step * size)
    return tuple(reversed(strides))


def is_static(shape: Shape) -> bool:
    """True if every extent is a known integer."""
    return all(isinstance(size, int) for size in shape)


class _SizePrinter(C99CodePrinter):  # type: ignore[misc]
    """Prints sizes as C expressions over `int64_t` variables; floor is C division."""

    def _print_floor(self, expr: sympy.floor) -> str:
        numerator, denominator = sympy.fraction(sympy.together(expr.args[0]))
        return f"(({self._print(numerator)}) / ({self._print(denominator)}))"

    def _print_ceiling(self, expr: sympy.ceiling) -> str:
        numerator, denominator = sympy.fraction(sympy.together(expr.args[0]))
        below = self._print(denominator)
        return f"(({self._print(numerator)} + {below} - 1) / ({below}))"

    def _print_Mod(self, expr: sympy.Mod) -> str:
        return f"(({self._print(expr.args[0])}) % ({self._print(expr.args[1])}))"

    def _fold(self, function: str, expr: sympy.Expr) -> str:
        text: str = self._print(expr.args[0])
        for arg in expr.args[1:]:
            text = f"{function}({text}, {self._print(arg)})"
        return text

    def _print_Max(self, expr: sympy.Max) -> str:
        return self._fold("go_larger", expr)

    def _print_Min(self, expr: sympy.Min) -> str:
        return self._fold("go_smaller", expr)

    def _print_Pow(self, expr: sympy.Pow) -> str:
        base, exponent = expr.args
        if not (exponent.is_Integer and exponent > 0):
            raise ValueError(f"a size cannot contain {expr}")
        return "(" + " * ".join([self._print(base)] * int(exponent)) + ")"

    def _print_Rational(self, expr: sympy.Rational) -> str:
        raise ValueError(f"a size cannot contain the fraction {expr}")


@lru_cache(maxsize=65536)
def c_size(size: Dim) -> str:
    """The size as a C expression of type int64_t."""
    if isinstance(size, int):
        return str(size)
    expr = sympy.sympify(size)
    numerator, denominator = sympy.fraction(sympy.together(expr))
    if denominator != 1 and denominator.is_Integer:
        return f"(({c_size(simplify(numerator))}) / {int(denominator)})"
    return str(_SizePrinter().doprint(expr))


_RELATIONS = {
    sympy.Eq: "==",
    sympy.Ne: "!=",
    sympy.StrictLessThan: "<",
    sympy.LessThan: "<=",
    sympy.StrictGreaterThan: ">",
    sympy.GreaterThan: ">=",
}


def c_condition(condition: sympy.Basic) -> str:
    """A condition on sizes as a C expression; raises ValueError for what C cannot say."""
    if isinstance(condition, sympy.logic.boolalg.BooleanAtom):
        return str(int(bool(condition)))
    if isinstance(condition, sympy.And | sympy.Or):
        joint = " && " if isinstance(condition, sympy.And) else " || "
        return "(" + joint.join(c_condition(arg) for arg in condition.args) + ")"
    if isinstance(condition, sympy.Not):
        return f"!({c_condition(condition.args[0])})"
    relation = _RELATIONS.get(type(condition))
    if relation is None:
        raise ValueError(f"a condition on sizes cannot be {condition}")
    left, right = (simplify(side) for side in condition.args)
    return f"{c_size(left)} {relation} {c_size(right)}"
