"""Sizes as C expressions over `int64_t` variables."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import sympy

from graphopt.errors import SizeError
from graphopt.ir import Dim
from graphopt.ir.symbolic import not_computable, ratio, sides

#: How tightly C binds: what is looser than its place asks for gets parentheses.
_SUM, _PRODUCT, _FACTOR = range(3)

_RELATIONS = {
    sympy.Eq: "==",
    sympy.Ne: "!=",
    sympy.StrictLessThan: "<",
    sympy.LessThan: "<=",
    sympy.StrictGreaterThan: ">",
    sympy.GreaterThan: ">=",
}

_Printed = tuple[str, int]


@lru_cache(maxsize=65536)
def c_size(size: Dim) -> str:
    """The size as a C expression of type int64_t, which binds as tightly as a sum.

    Quotients and remainders are those of Python, also of negative numbers. It is right for sizes
    that pass `graphopt.codegen.size_checks`.

    Raises:
        SizeError: for what C cannot say.
    """
    if isinstance(size, int):
        return str(size)
    if (why := not_computable(size)) is not None:
        raise SizeError(size, why)
    return _quotient("go_floor_div", *ratio(size))[0]


def c_condition(condition: sympy.Basic) -> str:
    """A condition on sizes as a C expression.

    Raises:
        SizeError: for what C cannot say.
    """
    if isinstance(condition, sympy.logic.boolalg.BooleanAtom):
        return str(int(bool(condition)))
    if isinstance(condition, sympy.And | sympy.Or):
        joint = " && " if isinstance(condition, sympy.And) else " || "
        return "(" + joint.join(c_condition(arg) for arg in condition.args) + ")"
    if isinstance(condition, sympy.Not):
        return f"!({c_condition(condition.args[0])})"
    left, right = sides(condition)
    return f"{c_size(left)} {_RELATIONS[type(condition)]} {c_size(right)}"


def _text(expr: sympy.Expr, place: int) -> str:
    """C for a whole number where `place` says how tightly it must bind."""
    text, binds = _whole(expr)
    return text if binds >= place else f"({text})"


def _whole(expr: sympy.Expr) -> _Printed:
    printer = _PRINTERS.get(expr.func)
    if printer is not None:
        return printer(expr)
    return str(expr), _SUM if expr.is_negative else _FACTOR


def _sum(expr: sympy.Expr) -> _Printed:
    first, *others = expr.as_ordered_terms()
    text = _text(first, _SUM)
    for term in others:
        negative = term.as_coeff_Mul()[0] < 0
        text += f" {'-' if negative else '+'} {_text(-term if negative else term, _PRODUCT)}"
    return text, _SUM


def _product(expr: sympy.Expr) -> _Printed:
    if expr.as_coeff_Mul()[0] < 0:
        return f"-{_text(-expr, _PRODUCT)}", _SUM
    return "*".join(_text(factor, _FACTOR) for factor in expr.as_ordered_factors()), _PRODUCT


def _power(expr: sympy.Expr) -> _Printed:
    base, exponent = expr.args
    return "*".join([_text(base, _FACTOR)] * int(exponent)), _PRODUCT


def _quotient(function: str, numerator: sympy.Expr, denominator: sympy.Expr) -> _Printed:
    if denominator == 1:
        return _whole(numerator)
    if function == "go_floor_div" and numerator.is_nonnegative and denominator.is_positive:
        return f"({_text(numerator, _PRODUCT)} / {_text(denominator, _FACTOR)})", _FACTOR
    return _call(function, numerator, denominator)


def _remainder(expr: sympy.Expr) -> _Printed:
    a, b = expr.args
    if a.is_nonnegative and b.is_positive:
        return f"({_text(a, _PRODUCT)} % {_text(b, _FACTOR)})", _FACTOR
    return _call("go_modulo", a, b)


def _call(function: str, *args: sympy.Expr) -> _Printed:
    """Calls of a function of two arguments, one in the other."""
    text, *others = (_text(arg, _SUM) for arg in args)
    for other in others:
        text = f"{function}({text}, {other})"
    return text, _FACTOR


_PRINTERS: dict[type, Callable[[sympy.Expr], _Printed]] = {
    sympy.Add: _sum,
    sympy.Mul: _product,
    sympy.Pow: _power,
    sympy.floor: lambda e: _quotient("go_floor_div", *ratio(e.args[0])),
    sympy.ceiling: lambda e: _quotient("go_ceil_div", *ratio(e.args[0])),
    sympy.Mod: _remainder,
    sympy.Max: lambda e: _call("go_larger", *e.args),
    sympy.Min: lambda e: _call("go_smaller", *e.args),
}
