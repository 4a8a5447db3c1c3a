"""Torch's expressions over sizes in sympy's functions, as exact arithmetic on whole numbers.

Torch computes quotients such as `x.shape[1] / 3` in doubles. Ours are exact: the same where a
quotient of two sizes is rounded or compared at once, or divided by a power of two. A number that
stays a `float`, such as `x.shape[1] ** -0.5`, is an expression over doubles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import reduce
from typing import Any

import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean

from graphopt.errors import SizeError
from graphopt.ir import DType, scalar
from graphopt.ir.scalar import Scalar
from graphopt.ir.symbolic import not_computable, sides, simplify

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "FloorDiv": lambda a, b: sympy.floor(a / b),
    "CleanDiv": lambda a, b: sympy.floor(a / b),
    "CeilDiv": lambda a, b: sympy.ceiling(a / b),
    "ModularIndexing": lambda a, b, c: sympy.Mod(sympy.floor(a / b), c),
    "Mod": sympy.Mod,
    "PythonMod": sympy.Mod,
    "LShift": lambda a, b: a * 2**b,
    "RShift": lambda a, b: sympy.floor(a / 2**b),
    "PowByNatural": sympy.Pow,
    "Abs": lambda a: sympy.Max(a, -a),
    "Max": sympy.Max,
    "Min": sympy.Min,
    "Identity": lambda a: a,
    "ToFloat": lambda a: a,
}
_QUOTIENTS = {"IntTrueDiv", "FloatTrueDiv"}
_ROUNDING: dict[str, Callable[[Any], Any]] = {
    "FloorToInt": sympy.floor,
    "CeilToInt": sympy.ceiling,
    "TruncToInt": lambda a: sympy.Max(sympy.floor(a), 0) + sympy.Min(sympy.ceiling(a), 0),
}
_SHORT = 2**10  # numbers of so few bits times a size are exact in a double


def translate(expr: sympy.Basic, symbols: Mapping[sympy.Symbol, sympy.Symbol]) -> sympy.Basic:
    """A size, or a condition on sizes, of torch in ours.

    Args:
        expr: as torch has it.
        symbols: ours for those of torch.

    Raises:
        SizeError: for what has no exact form, or no code.
    """
    ours = _exact(expr, symbols)
    parts = (
        [s for r in ours.atoms(Relational) for s in sides(r)]
        if isinstance(ours, Boolean)
        else [ours]
    )
    for part in parts:
        why = not_computable(sympy.sympify(part))
        if why is not None:
            raise SizeError(expr, why)
    return ours


def _exact(expr: sympy.Basic, symbols: Mapping[sympy.Symbol, sympy.Symbol]) -> Any:
    def of(part: sympy.Basic, may_round: bool = False) -> Any:
        name = type(part).__name__
        if part.is_Symbol:
            return symbols.get(part, part)
        if name in _QUOTIENTS:
            a, b = (of(arg) for arg in part.args)
            if may_round or (b.is_Integer and b & (b - 1) == 0):
                return a / b
            raise SizeError(expr, f"{part} is rounded to a double")
        if part.is_Float:
            number = sympy.Rational(float(part))
            if max(abs(number.p), number.q) <= _SHORT:
                return number
            raise SizeError(expr, f"a product with {part} is rounded to a double")
        if name in _ROUNDING:
            return _ROUNDING[name](of(part.args[0], may_round=True))
        args = [of(arg, isinstance(part, Relational)) for arg in part.args]
        if name in _FUNCTIONS:
            return _FUNCTIONS[name](*args)
        if type(part).__module__.startswith("torch"):
            raise SizeError(expr, f"{name} is a function of doubles or bits")
        return part.func(*args) if args else part

    return of(expr)


_MOST_ROOTS = 8
_MOST_FACTORS = 64


def translate_float(expr: sympy.Basic, symbols: Mapping[sympy.Symbol, sympy.Symbol]) -> Scalar:
    """A `float` that torch computes from sizes, as an expression over them in f64.

    Args:
        expr: as torch has it.
        symbols: ours for those of torch.

    Raises:
        SizeError: for other functions than sums, products, quotients, the larger and the smaller
            of two, and powers with an exponent that is a whole number of eighths.
    """

    def of(part: sympy.Basic) -> Scalar:
        name = type(part).__name__
        if part.is_number and not part.args:
            return scalar.const(float(part), DType.F64)
        if name in _QUOTIENTS:
            return scalar.apply("div", *map(of, part.args))
        if name in ("ToFloat", "Identity"):
            return of(part.args[0])
        if name == "OpaqueUnaryFn_sqrt":
            return scalar.apply("sqrt", of(part.args[0]))
        if part.is_integer:
            return scalar.cast(scalar.size(simplify(translate(part, symbols))), DType.F64)
        if name in ("FloatPow", "Pow") and part.args[1].is_number:
            return _power(expr, of(part.args[0]), Fraction(float(part.args[1])))
        if name in _COMBINED:
            return reduce(_COMBINED[name], map(of, part.args))
        raise SizeError(expr, f"{name} is a function of doubles")

    return of(expr)


_COMBINED: dict[str, Callable[[Scalar, Scalar], Scalar]] = {
    "Add": lambda a, b: scalar.apply("add", a, b),
    "Mul": lambda a, b: scalar.apply("mul", a, b),
    "Max": lambda a, b: scalar.apply("where", scalar.apply("lt", a, b), b, a),
    "Min": lambda a, b: scalar.apply("where", scalar.apply("lt", b, a), b, a),
}


def _power(expr: sympy.Basic, base: Scalar, exponent: Fraction) -> Scalar:
    """A power, by square roots and multiplications."""
    roots, factors = exponent.denominator, abs(exponent.numerator)
    if roots > _MOST_ROOTS or not 0 < factors <= _MOST_FACTORS:
        raise SizeError(expr, f"the exponent {float(exponent)} is not a whole number of eighths")
    while roots > 1:
        base, roots = scalar.apply("sqrt", base), roots // 2
    power = reduce(_COMBINED["Mul"], [base] * factors)
    return power if exponent > 0 else scalar.apply("div", scalar.const(1, DType.F64), power)
