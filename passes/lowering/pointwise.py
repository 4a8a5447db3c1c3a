"""Element-wise ops, casts, and tensors made from nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from graphopt import scalar
from graphopt.ir import DType, Value
from graphopt.passes.lowering.builder import Builder, Unsupported, filled
from graphopt.passes.lowering.views import Rule
from graphopt.scalar import Scalar


class _Operands:
    """Turns arguments into leaves of an expression and collects the tensors among them."""

    def __init__(self, b: Builder) -> None:
        self.b = b
        self.values: list[Value] = []

    def leaf(self, argument: object, dtype: DType) -> Scalar:
        """The argument, a tensor or a number, converted to `dtype`."""
        if isinstance(argument, Value):
            data = argument.data
            if data is not None and data.size == 1 and argument.dtype is not DType.BF16:
                return scalar.const(data.reshape(()).item(), dtype)
            self.values.append(argument)
            return scalar.cast(scalar.operand(len(self.values) - 1, argument.dtype), dtype)
        if isinstance(argument, bool | int | float):
            return scalar.const(argument, dtype)
        if argument is None:
            raise Unsupported("a missing operand")
        return scalar.cast(scalar.size(argument), dtype)

    def emit(self, expr: Scalar) -> Value:
        """The node that computes the expression; raises Unsupported for functions without C."""
        if (function := scalar.not_computable(expr)) is not None:
            raise Unsupported(function)
        out = self.b.node.output
        return self.b.pointwise(scalar.cast(expr, out.dtype), self.values, out.shape)


def _compute_type(b: Builder) -> DType:
    """The type that torch computes in: that of the result, f32 for bf16."""
    dtype = b.node.output.dtype
    return DType.F32 if dtype is DType.BF16 else dtype


def _promoted(*arguments: object) -> DType:
    """The common type of a comparison's operands."""
    tensors = [a for a in arguments if isinstance(a, Value)]
    dtype = np.result_type(
        *[DType.F32.numpy if t.dtype is DType.BF16 else t.dtype.numpy for t in tensors]
    )
    if any(isinstance(a, float) for a in arguments) and dtype.kind != "f":
        return DType.F32
    return DType.of(np.empty(0, dtype))


def _unary(op: str) -> Callable[[Builder], Value]:
    def rule(b: Builder) -> Value:
        operands = _Operands(b)
        return operands.emit(scalar.apply(op, operands.leaf(b.tensor(), _compute_type(b))))

    return rule


def _binary(op: str, swap: bool = False) -> Rule:
    def rule(b: Builder) -> Value:
        operands, dtype = _Operands(b), _compute_type(b)
        left = operands.leaf(b.arg("self"), dtype)
        right = operands.leaf(b.arg("other"), dtype)
        alpha = b.arg("alpha", 1)
        if alpha != 1:
            if swap:
                left = scalar.apply("mul", left, scalar.const(alpha, dtype))
            else:
                right = scalar.apply("mul", right, scalar.const(alpha, dtype))
        if swap:
            left, right = right, left
        return operands.emit(scalar.apply(op, left, right))

    return rule


def _divide(b: Builder) -> Value:
    operands, dtype = _Operands(b), _compute_type(b)
    mode = b.arg("rounding_mode")
    quotient = scalar.apply(
        "div", operands.leaf(b.arg("self"), dtype), operands.leaf(b.arg("other"), dtype)
    )
    if mode is None:
        return operands.emit(quotient)
    if not dtype.is_float:
        raise Unsupported(f"integer division with rounding mode {mode}")
    return operands.emit(scalar.apply(mode, quotient))


def _comparison(op: str) -> Rule:
    def rule(b: Builder) -> Value:
        operands = _Operands(b)
        left, right = b.arg("self"), b.arg("other")
        dtype = _promoted(left, right)
        return operands.emit(
            scalar.apply(op, operands.leaf(left, dtype), operands.leaf(right, dtype))
        )

    return rule


def _logical(op: str) -> Callable[[Builder], Value]:
    def rule(b: Builder) -> Value:
        operands = _Operands(b)
        args = [operands.leaf(b.tensor(), DType.BOOL)]
        if op != "not":
            args.append(operands.leaf(b.arg("other"), DType.BOOL))
        return operands.emit(scalar.apply(op, *args))

    return rule


def _bitwise(op: str) -> Rule:
    def rule(b: Builder) -> Value:
        if b.tensor().dtype is not DType.BOOL:
            raise Unsupported("bitwise operations on integers")
        return _logical(op)(b)

    return rule


def _where(b: Builder) -> Value:
    operands, dtype = _Operands(b), _compute_type(b)
    condition = operands.leaf(b.arg("condition"), DType.BOOL)
    chosen = [operands.leaf(b.arg(name), dtype) for name in ("self", "other")]
    return operands.emit(scalar.apply("where", condition, *chosen))


def _masked_fill(b: Builder) -> Value:
    operands, dtype = _Operands(b), _compute_type(b)
    x = operands.leaf(b.tensor(), dtype)
    mask = operands.leaf(b.tensor("mask"), DType.BOOL)
    return operands.emit(scalar.apply("where", mask, operands.leaf(b.arg("value"), dtype), x))


def _clamp(b: Builder) -> Value:
    operands, dtype = _Operands(b), _compute_type(b)
    x = operands.leaf(b.tensor(), dtype)
    low, high = b.arg("min", b.arg("min_val")), b.arg("max", b.arg("max_val"))
    if low is not None:
        x = scalar.apply("max", x, operands.leaf(low, dtype))
    if high is not None:
        x = scalar.apply("min", x, operands.leaf(high, dtype))
    return operands.emit(x)


def _pow(b: Builder) -> Value:
    operands, dtype = _Operands(b), _compute_type(b)
    exponent = b.arg("exponent")
    x = operands.leaf(b.arg("self"), dtype)
    if exponent in (2, 3) and not isinstance(exponent, Value):
        square = scalar.apply("mul", x, x)
        return operands.emit(square if exponent == 2 else scalar.apply("mul", square, x))
    if exponent == 0.5:
        return operands.emit(scalar.apply("sqrt", x))
    if exponent == -0.5:
        return operands.emit(scalar.apply("rsqrt", x))
    raise Unsupported(f"a power with exponent {exponent}")


def _gelu(b: Builder) -> Value:
    op = "gelu_tanh" if b.arg("approximate") == "tanh" else "gelu_erf"
    return _unary(op)(b)


def _glu(b: Builder) -> Value:
    x, out = b.tensor(), b.node.output
    axis = b.arg("dim", -1) % x.rank
    half = out.shape[axis]
    parts = [b.slice(x, axis, start, half) for start in (0, half)]
    operands, dtype = _Operands(b), _compute_type(b)
    value, gate = (operands.leaf(p, dtype) for p in parts)
    return operands.emit(scalar.apply("mul", value, scalar.apply("sigmoid", gate)))


def _leaky_relu(b: Builder) -> Value:
    operands, dtype = _Operands(b), _compute_type(b)
    x = operands.leaf(b.tensor(), dtype)
    scaled = scalar.apply("mul", x, scalar.const(b.arg("negative_slope", 0.01), dtype))
    positive = scalar.apply("gt", x, scalar.const(0, dtype))
    return operands.emit(scalar.apply("where", positive, x, scaled))


def _hardsigmoid(b: Builder, times_x: bool = False) -> Value:
    operands, dtype = _Operands(b), _compute_type(b)
    x = operands.leaf(b.tensor(), dtype)
    shifted = scalar.apply("add", x, scalar.const(3, dtype))
    bounded = scalar.apply("max", shifted, scalar.const(0, dtype))
    bounded = scalar.apply("min", bounded, scalar.const(6, dtype))
    if times_x:
        bounded = scalar.apply("mul", x, bounded)
    return operands.emit(scalar.apply("div", bounded, scalar.const(6, dtype)))


def _batch_norm(b: Builder) -> Value:
    if b.arg("training"):
        raise Unsupported("batch norm in training mode")
    x = b.tensor("input")
    parts = {k: b.arg(k) for k in ("weight", "bias", "running_mean", "running_var")}
    shape = (x.shape[1], *[1] * (x.rank - 2))
    operands = _Operands(b)
    leaf = {
        k: operands.leaf(b.reshape(v, shape), DType.F32) for k, v in parts.items() if v is not None
    }
    y = scalar.apply("sub", operands.leaf(x, DType.F32), leaf["running_mean"])
    spread = scalar.apply("add", leaf["running_var"], scalar.const(b.arg("eps"), DType.F32))
    y = scalar.apply("mul", y, scalar.apply("rsqrt", spread))
    if "weight" in leaf:
        y = scalar.apply("mul", y, leaf["weight"])
    if "bias" in leaf:
        y = scalar.apply("add", y, leaf["bias"])
    return operands.emit(y)


def _cast(b: Builder) -> Value:
    return b.cast(b.tensor(), b.node.output.dtype)


def _arange(b: Builder) -> Value:
    out = b.node.output
    start, step = b.arg("start", 0), b.arg("step", 1)
    wide = DType.F64 if out.dtype.is_float else DType.I64
    operands = _Operands(b)
    value = scalar.cast(scalar.index(0), wide)
    if step != 1:
        value = scalar.apply("mul", value, operands.leaf(step, wide))
    if start != 0:
        value = scalar.apply("add", value, operands.leaf(start, wide))
    return operands.emit(value)


def _fill(value: float | None) -> Rule:
    def rule(b: Builder) -> Value:
        out = b.node.output
        number = b.arg("fill_value", b.arg("value")) if value is None else value
        if not isinstance(number, int | float | bool):
            raise Unsupported("a fill value that is not a number")
        return filled(out.shape, number, out.dtype, b)

    return rule


def _isinf(b: Builder) -> Value:
    operands = _Operands(b)
    x = scalar.apply("abs", operands.leaf(b.tensor(), DType.F32))
    return operands.emit(scalar.apply("eq", x, scalar.const(math.inf, DType.F32)))


RULES: dict[str, Rule] = {
    **{
        f"aten.{op}": _unary(op)
        for op in [
            "neg",
            "abs",
            "exp",
            "log",
            "sin",
            "cos",
            "sqrt",
            "rsqrt",
            "tanh",
            "erf",
            "sigmoid",
            "silu",
            "relu",
            "floor",
            "ceil",
        ]
    },
    **{f"aten.{op}": _binary(op) for op in ("add", "sub", "mul")},
    **{f"aten.{op}": _comparison(op) for op in sorted(scalar.COMPARISONS)},
    **{f"aten.{a}": _comparison(op) for a, op in (("greater", "gt"), ("less", "lt"))},
    **{f"aten.logical_{op}": _logical(op) for op in ("and", "or", "not")},
    **{f"aten.bitwise_{op}": _bitwise(op) for op in ("and", "or", "not")},
    "aten.__and__": _bitwise("and"),
    "aten.__or__": _bitwise("or"),
    "aten.rsub": _binary("sub", swap=True),
    "aten.maximum": _binary("max"),
    "aten.minimum": _binary("min"),
    "aten.div": _divide,
    "aten.true_divide": _divide,
    "aten.where": _where,
    "aten.masked_fill": _masked_fill,
    "aten.clamp": _clamp,
    "aten.clamp_min": _clamp,
    "aten.clamp_max": _clamp,
    "aten.hardtanh": _clamp,
    "aten.relu6": lambda b: _relu6(b),
    "aten.pow": _pow,
    "aten.square": lambda b: _square(b),
    "aten.gelu": _gelu,
    "aten.glu": _glu,
    "aten.leaky_relu": _leaky_relu,
    "aten.hardsigmoid": _hardsigmoid,
    "aten.hardswish": lambda b: _hardsigmoid(b, times_x=True),
    "aten.batch_norm": _batch_norm,
    "aten.to": _cast,
    "aten._to_copy": _cast,
    "aten.type_as": _cast,
    "aten.arange": _arange,
    "aten.full": _fill(None),
    "aten.full_like": _fill(None),
    "aten.fill": _fill(None),
    "aten.zeros": _fill(0),
    "aten.zeros_like": _fill(0),
    "aten.new_zeros": _fill(0),
    "aten.ones": _fill(1),
    "aten.ones_like": _fill(1),
    "aten.new_ones": _fill(1),
    "aten.scalar_tensor": lambda b: filled((), b.arg("s"), b.node.output.dtype, b),
    "aten.isinf": _isinf,
}


def _relu6(b: Builder) -> Value:
    operands, dtype = _Operands(b), _compute_type(b)
    x = scalar.apply("max", operands.leaf(b.tensor(), dtype), scalar.const(0, dtype))
    return operands.emit(scalar.apply("min", x, scalar.const(6, dtype)))


def _square(b: Builder) -> Value:
    operands = _Operands(b)
    x = operands.leaf(b.tensor(), _compute_type(b))
    return operands.emit(scalar.apply("mul", x, x))
