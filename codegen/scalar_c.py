"""Element expressions as C."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from graphopt.ir import DType
from graphopt.ir.scalar import Scalar

#: Functions of f32 whose definition is in go_math.h or go_loop.h.
_F32_CALLS = {
    "exp": "go_expf",
    "log": "go_logf",
    "sin": "go_sinf",
    "cos": "go_cosf",
    "tanh": "go_tanhf",
    "erf": "go_erff",
    "sigmoid": "go_sigmoidf",
    "silu": "go_siluf",
    "gelu_erf": "go_gelu_erff",
    "gelu_tanh": "go_gelu_tanhf",
    "rsqrt": "go_rsqrtf",
    "sqrt": "go_sqrtf",
    "abs": "go_fabsf",
    "floor": "__builtin_floorf",
    "ceil": "__builtin_ceilf",
    "trunc": "__builtin_truncf",
    "relu": "go_reluf",
    "max": "go_maxf",
    "min": "go_minf",
}
_OPERATORS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "and": "&&",
    "or": "||",
}
_INTEGER_CALLS = {
    "max": "go_larger",
    "min": "go_smaller",
    "floor_divide": "go_floor_div",
    "remainder": "go_modulo",
}


def literal(value: object, dtype: DType) -> str:
    """A constant that reads back as the same number."""
    if dtype is DType.BOOL:
        return "1" if value else "0"
    if not dtype.is_float:
        return f"INT64_C({value})" if abs(int(value)) > 2**31 - 1 else str(value)  # type: ignore[call-overload]
    number = float(value) if dtype is DType.F64 else float(np.float32(value))  # type: ignore[arg-type]
    if math.isnan(number):
        return "NAN"
    if math.isinf(number):
        return "INFINITY" if number > 0 else "(-INFINITY)"
    text = f"{number:.17g}" if dtype is DType.F64 else f"{number:.9g}"
    if not set(text) & set(".en"):
        text += ".0"
    text += "" if dtype is DType.F64 else "f"
    return f"({text})" if number < 0 else text


def expression(
    expr: Scalar, read: Callable[[Scalar, list[str]], str], size: Callable[..., str]
) -> str:
    """C for one element; bf16 appears only in operands, loads, and as the outermost cast.

    Args:
        expr: the expression; where it has a `check`, the run's `frame` is in scope.
        read: C for an `operand` or `index` leaf, and for a `load` and C for its indices.
        size: C for a symbolic size.
    """
    if expr.op == "const":
        return literal(expr.value, expr.dtype)
    if expr.op == "size":
        return f"({size(expr.value)})"
    args = [expression(a, read, size) for a in expr.args]
    if expr.op in ("operand", "index", "load"):
        return read(expr, args)
    if expr.op == "wrap":
        return f"go_wrap({args[0]}, {size(expr.value)})"
    if expr.op == "check":
        return f"go_check_index(frame, {args[0]}, {size(expr.value)})"
    if expr.op == "cast":
        return _cast(expr.args[0].dtype, expr.dtype, args[0])
    if expr.op == "where":
        return f"({args[0]} ? {args[1]} : {args[2]})"
    if expr.op == "not":
        return f"(!{args[0]})"
    if expr.op == "neg":
        return _wrapped(expr.dtype, f"(-{args[0]})")
    if expr.op in _OPERATORS:
        return _wrapped(expr.dtype, f"({args[0]} {_OPERATORS[expr.op]} {args[1]})")
    return f"{_function(expr)}({', '.join(args)})"


def _wrapped(dtype: DType, text: str) -> str:
    """C computes narrow integers as int; torch wraps every result."""
    return f"({dtype.c_type}){text}" if dtype in (DType.U8, DType.I8, DType.I16) else text


def _function(expr: Scalar) -> str:
    dtype = expr.args[0].dtype
    if dtype is DType.F32:
        return _F32_CALLS[expr.op]
    if dtype is DType.F64 and expr.op == "sqrt":
        return "go_sqrt"
    if not dtype.is_float and expr.op in _INTEGER_CALLS:
        return _INTEGER_CALLS[expr.op]
    raise ValueError(f"no C for {expr.op} of {dtype.value}")


def _cast(source: DType, target: DType, text: str) -> str:
    if source is DType.BF16:
        widened = f"go_f32_from_bf16({text})"
        return widened if target is DType.F32 else _cast(DType.F32, target, widened)
    if target is DType.BF16:
        return f"go_bf16_from_f32((float){text})"
    if target is DType.BOOL:
        return f"({text} != 0)"
    if source.is_float and not target.is_float:
        wide = DType.I64 if target in (DType.I64, DType.U8) else DType.I32
        whole = f"go_{wide.value}_from_{source.value}({text})"
        return whole if target is wide else f"({target.c_type}){whole}"
    return f"({target.c_type}){text}"
