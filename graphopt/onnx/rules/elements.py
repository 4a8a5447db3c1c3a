"""Element-wise ops: arithmetic, comparisons, activations, casts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphopt.ir import DType, Value, constant, scalar
from graphopt.ir.scalar import Scalar, apply
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.known import Tensor
from graphopt.onnx.meanings import Later, Sums, product_of
from graphopt.onnx.rules.table import Rule, Table, merged, since
from graphopt.onnx.tensors import DTYPES, type_name
from graphopt.passes.lowering.builder import Unsupported
from graphopt.passes.lowering.functions import equal, is_nan, where

_UNSIGNED = frozenset({DType.U8})


def _unary(overload: str, dtype: DType | None = None) -> Rule:
    return lambda c: c.unary(overload, c.x(), dtype)


def _pair(c: Call) -> tuple[Value, Value]:
    """Two operands of one type."""
    x, y = c.x(0), c.x(1)
    if x.dtype is not y.dtype:
        raise Malformed(f"its operands are of {x.dtype.value} and {y.dtype.value}")
    return x, y


def _binary(overload: str, dtype: DType | None = None) -> Rule:
    return lambda c: c.binary(overload, *_pair(c), dtype)


def _times(c: Call) -> Tensor:
    """Of scales of quantized products by meaning."""
    x, y = c.tensor(0), c.tensor(1)
    shape = c.broadcast_shapes(x.shape, y.shape)
    return product_of(x, y, shape, lambda: c.binary("mul.Tensor", *_pair(c)))


def _quotient(c: Call) -> Value:
    """Of whole numbers it is cut off."""
    x, y = _pair(c)
    if x.dtype.is_float:
        return c.binary("div.Tensor", x, y)
    out = x.dtype, c.broadcast(x, y)
    given = {"self": x, "other": y, "rounding_mode": "trunc"}
    return c.aten("div.Tensor_mode", out, **given)[0]


def _power(c: Call) -> Value:
    """In the type of the base."""
    x, y = c.x(0), c.x(1)
    if x.dtype.is_float:
        if y.data is not None and y.data.size == 1 and not y.dtype.is_half:
            exponent = y.data.reshape(()).item()
            shape = c.broadcast(x, y)
            z = c.unary("pow.Tensor_Scalar", x, exponent=exponent)
            return c.b.expand(z, shape)
        wide = DType.F64 if y.dtype is DType.F64 else x.dtype
    else:
        wide = DType.F64 if y.dtype.is_float else x.dtype
    base, exponents = c.b.cast(x, wide), c.b.cast(y, wide)
    out = wide, c.broadcast(x, y)
    (z,) = c.aten("pow.Tensor_Tensor", out, self=base, exponent=exponents)
    return c.b.cast(z, x.dtype)


def _mod(c: Call) -> Value:
    x, y = _pair(c)
    if c.attr("fmod", 0):
        return c.binary("fmod.Tensor", x, y)
    if x.dtype.is_float:
        raise Malformed("a remainder of floats without fmod")
    return c.binary("remainder.Tensor", x, y)


def _many(overload: str) -> Rule:
    """Of all inputs, from the left."""

    def rule(c: Call) -> Value:
        first, *others = c.all()
        for other in others:
            first = c.binary(overload, first, other)
        return first

    return rule


def _mean(c: Call) -> Value:
    total = _many("add.Tensor")(c)
    assert isinstance(total, Value)
    count = float(c.count)
    return c.formula(lambda v: v / count, total)


def _where(c: Call) -> Value:
    condition, x, y = c.x(0), c.x(1), c.x(2)
    if x.dtype is not y.dtype:
        raise Malformed(f"its operands are of {x.dtype.value} and {y.dtype.value}")
    given = {"condition": condition, "self": x, "other": y}
    return c.aten("where.self", (x.dtype, c.broadcast(condition, x, y)), **given)[0]


def _clipped(c: Call, x: Value, low: Value | None, high: Value | None) -> Value:
    for overload, bound in (("maximum", low), ("minimum", high)):
        if bound is not None:
            x = c.binary(overload, x, bound)
    return x


def _clip_by_attributes(c: Call) -> Value:
    x = c.x()
    bounds = [c.attr(name) for name in ("min", "max")]
    low, high = (None if n is None else _like(c, n, x) for n in bounds)
    return _clipped(c, x, low, high)


def _like(c: Call, number: float, x: Value) -> Value:
    held = DType.F32 if x.dtype.is_half else x.dtype
    return c.b.cast(constant(np.array(number, held.numpy)), x.dtype)


def _clip(c: Call) -> Value:
    return _clipped(c, c.x(0), c.optional(1), c.optional(2))


def _cast(c: Call) -> Value | Tensor:
    element = c.required("to")
    dtype = DTYPES.get(element)
    if dtype is None:
        raise Unsupported(f"a cast to {type_name(element)}")
    c.harmless("saturate", "round_mode")  # of floats of 8 bits
    x = c.tensor()
    if isinstance(x.meaning, Sums) and dtype is DType.F32:
        return Later(dtype, x.shape, lambda: c.b.cast(c.x(), dtype), x.meaning)
    return c.b.cast(c.x(), dtype)


def _cast_like(c: Call) -> Value:
    c.harmless("saturate", "round_mode")
    return c.b.cast(c.x(0), c.tensor(1).dtype)


def _identity(c: Call) -> Tensor:
    return c.tensor()


def _dropout(c: Call) -> list[Any]:
    """Of inference: nothing is dropped."""
    x = c.tensor(0)
    c.harmless("seed", "ratio")
    c.given(1)
    if c.number(2, "training_mode"):
        raise Unsupported("dropout in training mode")
    results: list[Any] = [x]
    if c.wants(1):
        kept = constant(np.array(True))
        results.append(c.b.expand(kept, x.shape))
    return results


def _formula(of: Callable[..., Scalar], **numbers: float) -> Rule:
    """An expression of one element and of attributes that are numbers.

    Args:
        of: makes it.
        numbers: attributes with their defaults.
    """

    def rule(c: Call) -> Value:
        given = {name: float(c.attr(name, default)) for name, default in numbers.items()}
        return c.formula(lambda v: of(v, **given), c.x())

    return rule


def _elu(x: Scalar, alpha: float) -> Scalar:
    return where(x < 0, apply("expm1", x) * alpha, x)


def _selu(x: Scalar, alpha: float, gamma: float) -> Scalar:
    return where(x > 0, x, apply("expm1", x) * alpha) * gamma


def _celu(x: Scalar, alpha: float) -> Scalar:
    zero = scalar.const(0, x.dtype)
    return apply("max", x, zero) + apply("min", apply("expm1", x / alpha) * alpha, zero)


def _leaky(x: Scalar, alpha: float) -> Scalar:
    return where(x < 0, x * alpha, x)


def _hard_sigmoid(x: Scalar, alpha: float, beta: float) -> Scalar:
    one, zero = scalar.const(1, x.dtype), scalar.const(0, x.dtype)
    return apply("max", apply("min", x * alpha + beta, one), zero)


def _hard_sigmoid_rule(c: Call) -> Value:
    alpha, beta = c.attr("alpha", 0.2), c.attr("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return c.unary("hardsigmoid", c.x())
    return c.formula(lambda v: _hard_sigmoid(v, alpha, beta), c.x())


def _thresholded(x: Scalar, alpha: float) -> Scalar:
    return where(x > alpha, x, 0.0)


def _shrink(x: Scalar, lambd: float, bias: float) -> Scalar:
    return where(x < -lambd, x + bias, where(x > lambd, x - bias, scalar.const(0, x.dtype)))


def _softsign(x: Scalar) -> Scalar:
    return x / (apply("abs", x) + 1)


def _swish(x: Scalar, alpha: float) -> Scalar:
    return x * apply("sigmoid", x * alpha)


def _prelu(c: Call) -> Value:
    x, slope = _pair(c)
    return c.formula(lambda v, s: where(v < 0, v * s, v), x, slope)


def _gelu(c: Call) -> Value:
    return c.unary("gelu", c.x(), approximate=c.attr("approximate", "none"))


def _fast_gelu(c: Call) -> Value:
    x, bias = c.x(0), c.optional(1)
    return c.unary(
        "gelu", x if bias is None else c.binary("add.Tensor", x, bias), approximate="tanh"
    )


def _bias_gelu(c: Call) -> Value:
    return c.unary("gelu", c.binary("add.Tensor", *_pair(c)), approximate="none")


def _sign(x: Scalar) -> Scalar:
    return scalar.cast(x > 0, x.dtype) - scalar.cast(x < 0, x.dtype)


def _is_inf(c: Call) -> Value:
    signs = [s for s, name in ((1, "detect_positive"), (-1, "detect_negative")) if c.attr(name, 1)]
    x = c.x()
    wide = c.b.cast(x, DType.F32) if x.dtype.is_half else x
    if not signs:
        return c.b.expand(constant(np.array(False)), x.shape)

    def found(v: Scalar) -> Scalar:
        tests = [equal(v, s * math.inf) for s in signs]
        return tests[0] if len(tests) == 1 else apply("or", *tests)

    return c.b.apply(found, wide)


def _is_nan(c: Call) -> Value:
    x = c.x()
    return c.b.apply(is_nan, c.b.cast(x, DType.F32) if x.dtype.is_half else x)


def _shift(c: Call) -> Value:
    x, y = _pair(c)
    direction = c.required("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise Malformed(f"the direction {direction}")
    if x.dtype not in _UNSIGNED:
        raise Unsupported(f"shifts of {x.dtype.value}")
    wide = (c.b.cast(v, DType.I64) for v in (x, y))
    op = "shift_left" if direction == "LEFT" else "shift_right"
    return c.b.cast(c.formula(lambda v, w: apply(op, v, w), *wide), x.dtype)


_UNARY = {
    "Abs": "abs",
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atanh": "atanh",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "HardSwish": "hardswish",
    "Log": "log",
    "Mish": "mish",
    "Neg": "neg",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Softplus": "softplus",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
    "BitwiseNot": "bitwise_not",
}
_BINARY = {
    "Add": "add.Tensor",
    "Sub": "sub.Tensor",
    "BitwiseAnd": "bitwise_and.Tensor",
    "BitwiseOr": "bitwise_or.Tensor",
    "BitwiseXor": "bitwise_xor.Tensor",
}
_TESTS = {
    "Equal": "eq.Tensor",
    "Greater": "gt.Tensor",
    "GreaterOrEqual": "ge.Tensor",
    "Less": "lt.Tensor",
    "LessOrEqual": "le.Tensor",
    "And": "logical_and",
    "Or": "logical_or",
    "Xor": "logical_xor",
}

RULES: Table = merged(
    since(6, **{op: _unary(name) for op, name in _UNARY.items()}),
    since(6, Not=_unary("logical_not", DType.BOOL)),
    since(7, **{op: _binary(name) for op, name in _BINARY.items()}),
    since(7, **{op: _binary(name, DType.BOOL) for op, name in _TESTS.items()}),
    since(7, Mul=_times, Div=_quotient, Pow=_power),
    since(10, Mod=_mod),
    since(8, Min=_many("minimum"), Max=_many("maximum"), Sum=_many("add.Tensor"), Mean=_mean),
    since(9, Where=_where),
    since(6, Clip=_clip_by_attributes),
    since(11, Clip=_clip),
    since(6, Cast=_cast),
    since(15, CastLike=_cast_like),
    since(1, Identity=_identity),
    since(7, Dropout=_dropout),
    since(6, Elu=_formula(_elu, alpha=1.0)),
    since(
        6, Selu=_formula(_selu, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875)
    ),
    since(12, Celu=_formula(_celu, alpha=1.0)),
    since(6, LeakyRelu=_formula(_leaky, alpha=0.01)),
    since(6, HardSigmoid=_hard_sigmoid_rule),
    since(10, ThresholdedRelu=_formula(_thresholded, alpha=1.0)),
    since(9, Shrink=_formula(_shrink, lambd=0.5, bias=0.0)),
    since(1, Softsign=_formula(_softsign)),
    since(24, Swish=_formula(_swish, alpha=1.0)),
    since(7, PRelu=_prelu),
    since(20, Gelu=_gelu),
    since(10, IsInf=_is_inf),
    since(9, IsNaN=_is_nan),
    since(11, BitShift=_shift),
    since(1, "com.microsoft", Gelu=_gelu, FastGelu=_fast_gelu, BiasGelu=_bias_gelu),
    since(1, "com.microsoft", QuickGelu=_formula(_swish, alpha=1.702)),
)
