"""Sizes: arithmetic in Python and in C gives the same."""

import pytest
import sympy

from graphopt.errors import SizeError
from graphopt.ir import symbolic as s

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


def test_quotients_round_as_python_does() -> None:
    for b, t in ((7, 2), (2, 7), (1, 1)):
        sizes = {B: b, T: t}
        assert s.evaluate(s.floor_div(B - T, 3), sizes) == (b - t) // 3
        assert s.evaluate(s.ceil_div(B - T, 3), sizes) == -((t - b) // 3)
        assert s.evaluate(sympy.Mod(B - T, 3), sizes) == (b - t) % 3


def test_quotients_of_quotients_have_one_form() -> None:
    """Windows of stride 2 behind each other, and what torch says of both at once."""
    half = s.floor_div(T - 1, 2) + 1
    twice = s.floor_div(half - 1, 2) + 1
    assert twice == s.floor_div(T - 1, 4) + 1
    for t in range(1, 20):
        assert s.evaluate(twice, {T: t}) == ((t - 1) // 2) // 2 + 1
        odd = s.floor_div(s.floor_div(T, 3) + s.floor_div(T, 2), 2)
        assert s.evaluate(odd, {T: t}) == (t // 3 + t // 2) // 2


def test_a_size_is_a_whole_number() -> None:
    assert s.evaluate(T * (T + 1) / 2, {T: 4}) == 10
    with pytest.raises(SizeError, match=r"T/2.* 5/2, which is not a whole number"):
        s.evaluate(T / 2, {T: 5})


def test_ratio() -> None:
    assert s.ratio(T * B + B) == (T * B + B, 1)
    assert s.ratio((T - 3) / 2 + sympy.Rational(1, 3)) == (3 * T - 7, 6)
    assert s.ratio(B / -T) == (-B, T)
    assert s.ratio(sympy.floor(T / 2)) == (sympy.floor(T / 2), 1)


@pytest.mark.parametrize(
    "size, why",
    [
        (2**T, "the power 2**T"),
        (T**0.5, "the power"),
        (T * 0.25, "Float"),
        (sympy.floor(sympy.sqrt(T)), "the power sqrt(T)"),
        (sympy.floor(sympy.Max(T / 2, 3)), "the fraction T/2"),
        (sympy.Mod(T / 2, 3), "the fraction T/2"),
        (sympy.floor(sympy.log(T)), "log"),
        (T + 2**63, "the number 9223372036854775808"),
        (sympy.floor(T * sympy.pi), "Pi"),
        (T**65, "the power"),
    ],
    ids=str,
)
def test_what_no_code_computes_is_named(size, why: str) -> None:
    assert why in s.not_computable(size)


def test_what_code_computes() -> None:
    for size in (T, T**-2 * B, sympy.floor(T / B), sympy.Mod(T, B) / 2, s.maximum([T - 3, B, 7])):
        assert s.not_computable(size) is None
