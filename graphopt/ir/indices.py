"""Arithmetic on indices, which are i64 expressions, and what is known of them for all sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sympy

from graphopt.ir import Dim, DType, Shape, scalar
from graphopt.ir.scalar import Scalar
from graphopt.ir.symbolic import floor_div, is_non_negative, maximum, minimum, simplify

Place = Scalar | Dim


def place(value: Place) -> Scalar:
    """A number or size as an expression; expressions as they are."""
    if isinstance(value, Scalar):
        return value
    value = simplify(value)
    return scalar.const(value, DType.I64) if isinstance(value, int) else scalar.size(value)


def _size(value: Place) -> Dim | None:
    """What an expression is if it is a number or a size."""
    if not isinstance(value, Scalar):
        return value
    return value.value if value.op in ("const", "size") else None


def plus(a: Place, b: Place) -> Scalar:
    """A + b."""
    if (known := _both(a, b, lambda x, y: x + y)) is not None:
        return known
    if _size(a) == 0 or _size(b) == 0:
        return place(b if _size(a) == 0 else a)
    return scalar.apply("add", place(a), place(b))


def minus(a: Place, b: Place) -> Scalar:
    """A - b."""
    if (known := _both(a, b, lambda x, y: x - y)) is not None:
        return known
    return place(a) if _size(b) == 0 else scalar.apply("sub", place(a), place(b))


def times(a: Place, b: Place) -> Scalar:
    """A * b."""
    if (known := _both(a, b, lambda x, y: x * y)) is not None:
        return known
    for one, other in ((a, b), (b, a)):
        if _size(one) in (0, 1):
            return place(0 if _size(one) == 0 else other)
    return scalar.apply("mul", place(a), place(b))


def quotient(a: Place, b: Dim) -> Scalar:
    """A // b, rounded down, of a positive b."""
    if (known := _both(a, b, floor_div)) is not None:
        return known
    return place(a) if b == 1 else scalar.apply("floor_divide", place(a), place(b))


def remainder(a: Place, b: Dim) -> Scalar:
    """A modulo a positive b: 0 .. b - 1."""
    if (known := _both(a, b, lambda x, y: x - y * floor_div(x, y))) is not None:
        return known
    return place(0) if b == 1 else scalar.apply("remainder", place(a), place(b))


def larger(a: Place, b: Place) -> Scalar:
    """The larger of two."""
    known = _both(a, b, lambda x, y: maximum((x, y)))
    return known if known is not None else scalar.apply("max", place(a), place(b))


def smaller(a: Place, b: Place) -> Scalar:
    """The smaller of two."""
    known = _both(a, b, minimum)
    return known if known is not None else scalar.apply("min", place(a), place(b))


def clamped(a: Place, extent: Dim) -> Scalar:
    """The nearest to it of the indices of an axis."""
    return smaller(larger(a, 0), minus(extent, 1))


def inside(a: Scalar, extent: Dim) -> Scalar:
    """Whether it is an index of an axis."""
    return scalar.apply(
        "and", scalar.apply("ge", a, place(0)), scalar.apply("lt", a, place(extent))
    )


def every(conditions: list[Scalar]) -> Scalar:
    """Whether all of some conditions hold, at least one."""
    first, *others = conditions
    for other in others:
        first = scalar.apply("and", first, other)
    return first


def _both(a: Place, b: Place, of: Callable[[Any, Any], Any]) -> Scalar | None:
    """A function of two numbers or sizes, computed here."""
    x, y = _size(a), _size(b)
    return None if x is None or y is None else place(simplify(of(x, y)))


def bounds(expr: Scalar, shape: Shape) -> tuple[Dim, Dim] | None:
    """The smallest and largest that an index can be, as far as is known.

    Args:
        expr: an i64 expression.
        shape: of the result at whose indices it is computed.
    """
    if (size := _size(expr)) is not None:
        return size, size
    if expr.op == "index":
        return 0, simplify(shape[expr.value] - 1)  # type: ignore[index]
    if expr.op == "check":
        return 0, simplify(expr.value - 1)  # type: ignore[operator]
    args = [bounds(arg, shape) for arg in expr.args if arg.dtype is not DType.BOOL]
    if not args or any(arg is None for arg in args):
        return None
    return _BOUNDS[expr.op](expr, *args) if expr.op in _BOUNDS else None


_Bounds = tuple[Dim, Dim]


def _of_product(_: Scalar, a: _Bounds, b: _Bounds) -> _Bounds | None:
    for factor, other in ((a, b), (b, a)):
        if factor[0] == factor[1]:
            ends = [simplify(end * factor[0]) for end in other]
            if is_non_negative(factor[0]):
                return ends[0], ends[1]
            if is_non_negative(simplify(-factor[0])):
                return ends[1], ends[0]
    return None


def _of_quotient(_: Scalar, a: _Bounds, b: _Bounds) -> _Bounds:
    return floor_div(a[0], b[0]), floor_div(a[1], b[0])


def _of_remainder(_: Scalar, a: _Bounds, b: _Bounds) -> _Bounds:
    largest = simplify(b[0] - 1)
    if is_non_negative(a[0]) and is_non_negative(simplify(largest - a[1])):
        return a
    return 0, largest


def _of_wrap(expr: Scalar, a: _Bounds) -> _Bounds | None:
    extent: Dim = expr.value
    if is_non_negative(a[0]):
        return a
    if is_non_negative(simplify(-1 - a[1])):
        return simplify(a[0] + extent), simplify(a[1] + extent)
    return None


def _of_where(_: Scalar, a: _Bounds, b: _Bounds) -> _Bounds:
    return minimum(a[0], b[0]), maximum((a[1], b[1]))


#: Bounds of a function of what lies within bounds.
_BOUNDS: dict[str, Callable[..., _Bounds | None]] = {
    "add": lambda _, a, b: (simplify(a[0] + b[0]), simplify(a[1] + b[1])),
    "sub": lambda _, a, b: (simplify(a[0] - b[1]), simplify(a[1] - b[0])),
    "mul": _of_product,
    "floor_divide": _of_quotient,
    "remainder": _of_remainder,
    "max": lambda _, a, b: (maximum((a[0], b[0])), maximum((a[1], b[1]))),
    "min": lambda _, a, b: (minimum(a[0], b[0]), minimum(a[1], b[1])),
    "where": _of_where,
    "wrap": _of_wrap,
}


@dataclass(frozen=True)
class Affine:
    """`start + sum(steps[axis] * index of axis)`."""

    start: Dim
    steps: dict[int, Dim]


def affine(expr: Scalar) -> Affine | None:
    """An index as steps along axes, if it is that."""
    if (size := _size(expr)) is not None:
        return Affine(size, {})
    if expr.op == "index":
        return Affine(0, {expr.value: 1})  # type: ignore[dict-item]
    if expr.op not in ("add", "sub", "mul"):
        return None
    a, b = (affine(arg) for arg in expr.args)
    if a is None or b is None:
        return None
    if expr.op == "mul":
        if b.steps:
            a, b = b, a
        return None if b.steps else _scaled(a, b.start)
    if expr.op == "sub":
        b = _scaled(b, -1)
    steps = {axis: simplify(sympy.sympify(step)) for axis, step in a.steps.items()}
    for axis, step in b.steps.items():
        steps[axis] = simplify(steps.get(axis, 0) + step)
    return Affine(simplify(a.start + b.start), {k: v for k, v in steps.items() if v != 0})


def _scaled(a: Affine, factor: Dim) -> Affine:
    return Affine(simplify(a.start * factor), {k: simplify(v * factor) for k, v in a.steps.items()})
