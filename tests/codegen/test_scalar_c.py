"""Element expressions as C: literals read back, casts follow torch."""

import math

import numpy as np
import pytest
from graphs import BF16, BOOL, F32, I64, X, add, mul

from graphopt.codegen.scalar_c import expression, literal
from graphopt.ir import DType, scalar


def c(expr) -> str:
    return expression(expr, lambda s, at: f"x{s.value}" + "".join(f"[{i}]" for i in at), str)


@pytest.mark.parametrize(
    "value, dtype, text",
    [
        (0.1, F32, "0.100000001f"),
        (-2.0, F32, "(-2.0f)"),
        (1e30, F32, "1.00000002e+30f"),
        (0.1, DType.F64, "0.10000000000000001"),
        (math.inf, F32, "INFINITY"),
        (-math.inf, F32, "(-INFINITY)"),
        (math.nan, F32, "NAN"),
        (True, BOOL, "1"),
        (7, I64, "7"),
        (2**40, I64, "INT64_C(1099511627776)"),
        (-(2**63), I64, "INT64_MIN"),
    ],
)
def test_literals(value, dtype, text: str) -> None:
    assert literal(value, dtype) == text


def test_float_literals_read_back() -> None:
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 300, dtype=np.uint32)
    numbers = [float(x) for x in bits.view(np.float32) if np.isfinite(x)]
    numbers += [float(np.float32(1e-45)), float(np.finfo(np.float32).max), 0.0]
    for x in numbers:
        text = literal(x, F32)
        assert text.strip("()").endswith("f")
        assert np.float32(text.strip("()").removesuffix("f")) == np.float32(x)


def test_operators_and_functions() -> None:
    assert c(add(mul(X, 2.0), scalar.apply("exp", X))) == "((x0 * 2.0f) + go_expf(x0))"
    chosen = scalar.apply("where", scalar.apply("lt", X, scalar.const(0, F32)), X, X)
    assert c(chosen) == "((x0 < 0.0f) ? x0 : x0)"
    n = scalar.operand(0, I64)
    inside = scalar.check(scalar.wrap(n, 7), 7)
    assert c(scalar.load(1, F32, (inside, n))) == "x1[go_check_index(frame, go_wrap(x0, 7), 7)][x0]"
    assert c(scalar.apply("max", n, scalar.const(3, I64))) == "go_larger(x0, 3)"


def test_casts() -> None:
    narrow = scalar.operand(0, BF16)
    assert c(scalar.cast(narrow, F32)) == "go_f32_from_bf16(x0)"
    assert c(scalar.cast(narrow, I64)) == "go_i64_from_f32(go_f32_from_bf16(x0))"
    assert c(scalar.cast(X, DType.I8)) == "(int8_t)go_i32_from_f32(x0)"
    assert c(scalar.cast(X, BF16)) == "go_bf16_from_f32((float)x0)"
    assert c(scalar.cast(X, BOOL)) == "(x0 != 0)"
    assert c(scalar.cast(scalar.operand(0, BOOL), F32)) == "(float)x0"


def test_narrow_integers_wrap() -> None:
    byte = scalar.operand(0, DType.U8)
    assert c(add(byte, byte)) == "(uint8_t)(x0 + x0)"


def test_functions_that_f32_lacks_are_computed_in_f64() -> None:
    assert c(scalar.apply("expm1", X)) == "(float)go_expm1((double)x0)"
    wide = scalar.operand(0, DType.F64)
    assert c(scalar.apply("pow", wide, wide)) == "go_pow(x0, x0)"
    assert c(scalar.apply("pow", scalar.operand(0, DType.I8), scalar.const(2, DType.I8))) == (
        "(int8_t)go_power(x0, 2)"
    )


def test_functions_without_c_are_refused_at_both_ends() -> None:
    wide = scalar.apply("sin", scalar.operand(0, DType.F64))
    assert scalar.not_computable(wide) == "sin of f64"
    with pytest.raises(ValueError, match="no C for sin of f64"):
        c(wide)


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("op", ["add", "neg", "max", "abs", "exp", "floor", "pow", "bit_not"])
def test_whatever_is_computable_prints(op: str, dtype: DType) -> None:
    args = [scalar.operand(0, dtype)] * (2 if op in ("add", "max", "pow") else 1)
    expr = scalar.apply(op, *args)
    if dtype is not BF16 and scalar.not_computable(expr) is None:
        assert c(expr)
