"""Sizes: arithmetic in Python and in C gives the same."""

import pytest
import sympy

from graphopt import symbolic as s

B, T = s.symbol("B"), s.symbol("T")


def test_arithmetic_keeps_integers() -> None:
    assert s.product([]) == 1 and s.product([2, 3]) == 6 and s.product([B, 2]) == 2 * B
    assert s.simplify(T - T + 3) == 3 and isinstance(s.simplify(T - T + 3), int)
    assert s.floor_div(7, 2) == 3 and s.ceil_div(7, 2) == 4
    assert s.maximum([T, T]) == T and s.maximum([3, 5]) == 5
    assert s.contiguous_strides((B, T, 8)) == (8 * T, 8, 1)
    assert s.is_static((1, 2)) and not s.is_static((1, T))


def test_evaluate_names_what_is_missing() -> None:
    assert s.evaluate(2 * B + T, {B: 3, T: 4}) == 10
    with pytest.raises(KeyError, match="no size for T"):
        s.evaluate(B + T, {B: 3})


SIZES = [
    5,
    B * T * 8,
    s.floor_div(T, 2),
    s.ceil_div(B * T, 16) * 4,
    s.ceil_div(T + 3, 8) * 8,
    s.maximum([B, T, 7]),
    sympy.Min(T, 5) + B,
    s.maximum([0, T - sympy.Min(4, T)]),
    s.floor_div(T - 3, 2) + 1,
    sympy.Mod(T, 3) + T**2,
    sympy.floor(sympy.floor(T / 2) / 3) + B,
    sympy.ceiling(T / 4) * 4,
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_c_says_the_same(size) -> None:
    text = s.c_size(s.simplify(size))
    for b, t in ((1, 3), (2, 4), (3, 17), (7, 100)):
        python = text.replace(
            "/", "//"
        )  # C divides toward zero: the same where nothing is negative
        functions = {"go_larger": max, "go_smaller": min}
        assert eval(python, {"B": b, "T": t, **functions}) == s.evaluate(
            s.simplify(size), {B: b, T: t}
        )


def test_what_is_no_integer_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot contain"):
        s.c_size(2 ** (-T) + T)
