"""Arithmetic on sizes: integers mixed with sympy expressions over named dimensions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, reduce
from typing import Any, cast

import sympy

from graphopt.errors import SizeError
from graphopt.ir import Dim, Shape

THREADS = sympy.Symbol("threads", integer=True, positive=True)
"""The number of threads of a run, for scratch memory that each thread needs."""

RELATIONS = (
    sympy.Eq,
    sympy.Ne,
    sympy.StrictLessThan,
    sympy.LessThan,
    sympy.StrictGreaterThan,
    sympy.GreaterThan,
)
"""What conditions on sizes are made of."""

_OPERATIONS: dict[type, Callable[[Any, Any], Any]] = {
    sympy.Add: operator.add,
    sympy.Mul: operator.mul,
    sympy.Pow: operator.pow,
    sympy.Mod: operator.mod,
}


def symbol(name: str) -> sympy.Symbol:
    """The symbol of a dimension: a positive integer."""
    return sympy.Symbol(name, integer=True, positive=True)


def found_symbol(name: str) -> sympy.Symbol:
    """The symbol of a dimension whose size data decide: it may be 0."""
    return sympy.Symbol(name, integer=True, nonnegative=True)


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
    """A // b, as Python rounds."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    return simplify(sympy.floor(_without_floors(sympy.sympify(a), b) / b))


def _without_floors(a: sympy.Expr, b: Dim) -> sympy.Expr:
    """A sum over whole numbers and a floor, without that floor where a // b stays what it is.

    The floor of (floor(x) + n) / b is that of (x + n) / b: two windows of stride 2 one behind the
    other have as many positions as torch says of both.
    """
    terms = sympy.Add.make_args(a)
    floors = [term for term in terms if isinstance(term, sympy.floor)]
    if len(floors) != 1 or not (isinstance(b, int) and b > 0):
        return a
    rest = sympy.Add(*(term for term in terms if term is not floors[0]))
    return a - floors[0] + floors[0].args[0] if rest.is_integer else a


def ceil_div(a: Dim, b: Dim) -> Dim:
    """Smallest integer not below a / b."""
    return floor_div(simplify(a + b - 1), b)


def maximum(sizes: Iterable[Dim]) -> Dim:
    """The largest of at least one size."""
    distinct = list(dict.fromkeys(sizes))
    return distinct[0] if len(distinct) == 1 else simplify(sympy.Max(*distinct))


def minimum(*sizes: Dim) -> Dim:
    """The smallest of at least one size."""
    return simplify(sympy.Min(*sizes))


def is_non_negative(size: Dim) -> bool:
    """Whether a size is never negative, as far as sympy sees for what dims may be."""
    expr = sympy.sympify(size)
    beyond = {
        s: int(bool(s.is_positive)) + sympy.Dummy(integer=True, nonnegative=True)
        for s in expr.free_symbols
    }
    return bool(sympy.expand(expr.xreplace(beyond)).is_nonnegative)


def most(size: Dim, bounds: Mapping[sympy.Symbol, Dim]) -> Dim:
    """The largest that a size can be where dims are anything from 0 to their bounds.

    Args:
        size: such as `T - N`, which is T.
        bounds: over other dims.

    Raises:
        SizeError: if it divides by one of those dims.
    """
    if isinstance(size, int) or not size.free_symbols & set(bounds):
        return size
    return simplify(_range(size, bounds)[1])


def _range(expr: sympy.Expr, bounds: Mapping[sympy.Symbol, Dim]) -> tuple[Any, Any]:
    """The smallest and the largest that a part of a size can be; see `most`."""
    if not expr.free_symbols & set(bounds):
        return expr, expr
    if expr.is_Symbol:
        return sympy.Integer(0), sympy.sympify(bounds[expr])
    if isinstance(expr, sympy.Pow) and expr.exp.is_Integer and expr.exp > 0:
        return reduce(_times, [_range(expr.base, bounds)] * int(expr.exp))
    ranges = [_range(arg, bounds) for arg in expr.args]
    if isinstance(expr, sympy.Mul):
        return reduce(_times, ranges)
    if isinstance(expr, sympy.Mod):
        return sympy.Integer(0), ranges[1][1]
    if isinstance(expr, sympy.Add | sympy.Max | sympy.Min | sympy.floor | sympy.ceiling):
        least, largest = zip(*ranges, strict=True)
        return expr.func(*least), expr.func(*largest)
    raise SizeError(expr, "its largest value is not known before the model runs")


def _times(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    if a[0].is_nonnegative and b[0].is_nonnegative:
        return a[0] * b[0], a[1] * b[1]
    ends = [x * y for x in a for y in b]
    return sympy.Min(*ends), sympy.Max(*ends)


def evaluate(size: Dim, sizes: Mapping[sympy.Symbol, int]) -> int:
    """The size for given dims.

    Raises:
        KeyError: if a symbol is missing.
        SizeError: if it is not a whole number, or divides by zero.
    """
    if isinstance(size, int):
        return size
    missing = size.free_symbols - set(sizes)
    if missing:
        raise KeyError(f"no size for {', '.join(sorted(map(str, missing)))} in {size}")
    numerator, denominator = ratio(size)
    try:
        whole, rest = divmod(compute(numerator, sizes), compute(denominator, sizes))
    except ZeroDivisionError:
        raise SizeError(size, "it divides by zero") from None
    if rest:
        raise SizeError(size, f"it is {size.subs(dict(sizes))}, which is not a whole number")
    return int(whole)


def compute(
    expr: sympy.Expr,
    sizes: Mapping[sympy.Symbol, Any],
    largest: Callable[..., Any] = max,
    smallest: Callable[..., Any] = min,
) -> Any:
    """What a whole number is for dims that may be other than `int`.

    Args:
        expr: has no fraction but inside of a floor or ceiling (`ratio`).
        sizes: of the dims; arithmetic is theirs.
        largest: of some numbers.
        smallest: of some numbers.

    Raises:
        SizeError: for what `not_computable` names.
    """

    def of(part: sympy.Expr) -> Any:
        if part.is_Symbol:
            return sizes[part]
        if part.is_Integer:
            return int(part)
        if isinstance(part, sympy.floor | sympy.ceiling):
            numerator, denominator = map(of, ratio(part.args[0]))
            below = isinstance(part, sympy.floor)
            return numerator // denominator if below else -(-numerator // denominator)
        operation = operations.get(part.func)
        if operation is None:
            raise SizeError(expr, not_computable(expr) or f"a fraction {part}")
        return reduce(operation, map(of, part.args))

    operations = {**_OPERATIONS, sympy.Max: largest, sympy.Min: smallest}
    return of(expr)


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


@lru_cache(maxsize=65536)
def ratio(expr: sympy.Expr) -> tuple[sympy.Expr, sympy.Expr]:
    """Numerator and denominator, both whole numbers; the denominator positive where that is known.

    Floors and the like are whole, whatever is inside.
    """
    if not _has_fraction(expr):
        return expr, sympy.Integer(1)
    numerator, denominator = sympy.fraction(sympy.together(expr))
    sign = -1 if denominator.is_negative else 1
    return sympy.expand_mul(sign * numerator), sign * denominator


def sides(relation: sympy.Basic) -> tuple[Dim, Dim]:
    """The sizes that a relation compares, as whole numbers.

    Raises:
        SizeError: if it is no relation of numbers, or its sides have no common divisor above zero.
    """
    if type(relation) not in RELATIONS:
        raise SizeError(relation, f"there is no code for {type(relation).__name__}")
    (a, below_a), (b, below_b) = (ratio(side) for side in relation.args)
    if not (below_a.is_positive and below_b.is_positive):
        raise SizeError(relation, "it divides by what may be negative")
    return simplify(a * below_b), simplify(b * below_a)


def _has_fraction(expr: sympy.Basic) -> bool:
    if isinstance(expr, sympy.Pow):
        return bool(expr.exp.is_negative) or _has_fraction(expr.base)
    if isinstance(expr, sympy.Add | sympy.Mul):
        return any(map(_has_fraction, expr.args))
    return bool(expr.is_Rational and not expr.is_Integer)


_MOST_FACTORS = 64


def not_computable(size: sympy.Basic) -> str | None:
    """The first part of a size that generated code cannot compute, as text; None for none."""
    if size.is_Symbol:
        return None
    if size.is_Rational:
        return None if max(abs(size.p), size.q) < 2**63 else f"the number {size}"
    if isinstance(size, sympy.Pow):
        base, exponent = size.args
        if not exponent.is_Integer or abs(exponent) > _MOST_FACTORS:
            return f"the power {size}"
        return not_computable(base)
    if isinstance(size, sympy.Mod | sympy.Max | sympy.Min):
        for arg in size.args:
            if ratio(arg)[1] != 1:
                return f"the fraction {arg} in {size}"
    elif not isinstance(size, sympy.Add | sympy.Mul | sympy.floor | sympy.ceiling):
        return f"{type(size).__name__} in {size}"
    return next((why for why in map(not_computable, size.args) if why is not None), None)
