"""What the sizes of a call must satisfy so that a module computes the right sizes from them.

C counts in 64 bits and divides whole numbers; sizes know no limit. So a module asks, before it
computes a size: does all that it adds and multiplies on the way there fit, is no divisor zero, and
is every quotient whole that has to be?
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import chain
from typing import TypeAlias

import sympy

from graphopt.codegen.size_c import c_condition
from graphopt.ir import Dim, DimInfo
from graphopt.ir.symbolic import THREADS, ratio, sides

Monomial: TypeAlias = tuple[str, ...]
"""Dims, sorted, each as often as its power says."""

Polynomial: TypeAlias = Mapping[Monomial, int]
"""The factor, above zero, of each monomial; dims are at least 1."""

_NOTHING: Polynomial = {}
_LIMIT = 62
_MOST_THREADS = 2**15


@dataclass(frozen=True)
class SizeCheck:
    """What must hold of sizes.

    Attributes:
        condition: as C.
        text: as text.
        computed: names of the dims in it that the graph computes: it has to wait for these.
    """

    condition: str
    text: str
    computed: frozenset[str] = frozenset()


def size_checks(
    extents: Iterable[Dim],
    sizes: Iterable[Dim],
    slots: Sequence[Sequence[Dim]],
    conditions: Sequence[sympy.Basic],
    dims: Mapping[str, DimInfo],
) -> list[SizeCheck]:
    """Conditions in the order in which to check them.

    Args:
        extents: of all values: none may be negative.
        sizes: what else the module computes.
        slots: the sizes of each slot of the arena, which it adds up.
        conditions: those of the graph; what they need comes in front of them.
        dims: of the graph.
    """
    relations = (r for c in conditions for r in c.atoms(sympy.core.relational.Relational))
    compared = [side for relation in relations for side in sides(relation)]
    bounds = {name: info.bound for name, info in dims.items() if info.bound is not None}
    extents = list(dict.fromkeys(extents))
    every = list(dict.fromkeys([*extents, *sizes, *chain(*slots), *compared, *bounds.values()]))
    arena = reduce(_sum, (reduce(_larger, map(_bound, slot)) for slot in slots), _NOTHING)
    largest = reduce(_larger, map(_bound, every), arena)
    for name, limit in bounds.items():
        largest = _replaced(largest, name, _bound(limit))
    checks = []
    if any(largest):
        text = " + ".join("*".join([str(f), *monomial]) for monomial, f in largest.items())
        c = " + ".join(" * ".join([f"{f}.0", *monomial]) for monomial, f in largest.items())
        checks.append(SizeCheck(f"{c} < 0x1p{_LIMIT}", f"{text} < 2**{_LIMIT}"))
    needs = [
        *(r for size in every for r in _requirements(size)),
        *(sympy.Ge(size, 0) for size in extents),
    ]
    for condition in dict.fromkeys([*needs, *conditions]):
        if condition != sympy.true:
            computed = frozenset(map(str, condition.free_symbols)) & set(bounds)
            checks.append(SizeCheck(c_condition(condition), str(condition), computed))
    return checks


def _requirements(size: Dim) -> Iterator[sympy.Basic]:
    """What must hold for a size to be computed, in the order in which it is."""
    if isinstance(size, int):
        return
    numerator, denominator = ratio(size)
    for part in (numerator, denominator):
        yield from _divisors(part)
    if denominator != 1:
        yield sympy.Ne(denominator, 0)
        yield sympy.Eq(sympy.Mod(numerator, denominator), 0)


def _divisors(expr: sympy.Expr) -> Iterator[sympy.Basic]:
    """That divisors inside an expression are not zero, inner ones first."""
    if isinstance(expr, sympy.floor | sympy.ceiling):
        parts = ratio(expr.args[0])
        for part in parts:
            yield from _divisors(part)
        yield sympy.Ne(parts[1], 0)
        return
    for arg in expr.args:
        yield from _divisors(arg)
    if isinstance(expr, sympy.Mod):
        yield sympy.Ne(expr.args[1], 0)


@lru_cache(maxsize=65536)
def _bound(size: Dim) -> Polynomial:
    """Not below the magnitude of a size and of everything computed on the way to it."""
    if isinstance(size, int) or size.is_Integer:
        return {(): abs(int(size))} if size else {}
    if size == THREADS:
        return {(): _MOST_THREADS}
    if size.is_Symbol:
        return {(str(size),): 1}
    if isinstance(size, sympy.floor | sympy.ceiling):
        return reduce(_sum, map(_bound, ratio(size.args[0])), {(): 1})
    if (parts := ratio(size))[1] != 1:
        return reduce(_sum, map(_bound, parts))
    if isinstance(size, sympy.Pow):
        return reduce(_product, [_bound(size.base)] * int(size.exp))
    joined = {sympy.Mul: _product, sympy.Max: _larger, sympy.Min: _larger}
    return reduce(joined.get(size.func, _sum), map(_bound, size.args))


def _sum(a: Polynomial, b: Polynomial) -> Polynomial:
    return {m: a.get(m, 0) + b.get(m, 0) for m in {**a, **b}}


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    terms = ({tuple(sorted((*m, *n))): f * g} for m, f in a.items() for n, g in b.items())
    return reduce(_sum, terms, _NOTHING)


def _larger(a: Polynomial, b: Polynomial) -> Polynomial:
    return {m: max(a.get(m, 0), b.get(m, 0)) for m in {**a, **b}}


def _replaced(polynomial: Polynomial, dim: str, bound: Polynomial) -> Polynomial:
    result = _NOTHING
    for monomial, factor in polynomial.items():
        rest = tuple(name for name in monomial if name != dim)
        powers = [bound] * (len(monomial) - len(rest))
        result = _sum(result, reduce(_product, powers, {rest: factor}))
    return result
