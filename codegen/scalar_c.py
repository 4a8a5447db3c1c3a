"""Element expressions as C."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from graphopt.ir import DType
from graphopt.ir.scalar import Scalar, has_code

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
    "tan": "go_tanf",
    "copysign": "go_copysignf",
    "rest": "__builtin_fmodf",
    "rsqrt": "go_rsqrtf",
    "sqrt": "go_sqrtf",
    "abs": "go_fabsf",
    "floor": "__builtin_floorf",
    "ceil": "__builtin_ceilf",
    "trunc": "__builtin_truncf",
    "round": "__builtin_rintf",
    "relu": "go_reluf",
    "max": "go_maxf",
    "min": "go_minf",
}
#: Functions of f64 whose definition has another name than go_<function> of go_math64.h or
#: go_loop.h; functions of f32 that are not above are these, rounded.
_F64_CALLS = {
    "abs": "go_fabs",
    "floor": "__builtin_floor",
    "ceil": "__builtin_ceil",
    "trunc": "__builtin_trunc",
    "round": "__builtin_rint",
    "rest": "__builtin_fmod",
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
    "bit_and": "&",
    "bit_or": "|",
    "bit_xor": "^",
    "shift_right": ">>",
}
_PREFIXES = {"neg": "-", "bit_not": "~"}
#: Functions of whole numbers, of and as i64.
_INTEGER_CALLS = {
    "max": "go_larger",
    "min": "go_smaller",
    "pow": "go_power",
    "floor_divide": "go_floor_div",
    "remainder": "go_modulo",
    "quotient": "go_quotient",
    "rest": "go_rest",
    "nonzero": "go_nonzero",
    "shift_left": "go_shift_left",
}


def literal(value: object, dtype: DType) -> str:
    """A constant that reads back as the same number."""
    if dtype is DType.BOOL:
        return "1" if value else "0"
    if not dtype.is_float:
        if value == -(2**63):  # C has no literals below 0
            return "INT64_MIN"
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
    if expr.op in _PREFIXES:
        return _wrapped(expr.dtype, f"({_PREFIXES[expr.op]}{args[0]})")
    if expr.op in _OPERATORS:
        return _wrapped(expr.dtype, f"({args[0]} {_OPERATORS[expr.op]} {args[1]})")
    return _call(expr, args)


def _wrapped(dtype: DType, text: str) -> str:
    """C computes narrow integers as int; torch wraps every result."""
    return f"({dtype.c_type}){text}" if dtype in (DType.U8, DType.I8, DType.I16) else text


def _call(expr: Scalar, args: list[str]) -> str:
    name, dtype = expr.op, expr.args[0].dtype
    if not has_code(expr):
        raise ValueError(f"no C for {name} of {dtype.value}")
    if not dtype.is_float:
        given = ["frame", *args] if name == "nonzero" else args
        text = f"{_INTEGER_CALLS[name]}({', '.join(given)})"
        is_wide = dtype is DType.I64 or name in ("max", "min")
        return text if is_wide else f"({dtype.c_type}){text}"
    if dtype is DType.F32 and name in _F32_CALLS:
        return f"{_F32_CALLS[name]}({', '.join(args)})"
    call = _F64_CALLS.get(name, f"go_{name}")
    if dtype is DType.F64:
        return f"{call}({', '.join(args)})"
    return f"(float){call}({', '.join(f'(double){a}' for a in args)})"


def can_fail(expr: Scalar) -> bool:
    """Whether the C of an expression needs the frame of the run, for errors."""
    return any(s.op in ("nonzero", "check") for s in expr.walk())


def _cast(source: DType, target: DType, text: str) -> str:
    if source.is_half:
        widened = f"go_f32_from_{source.value}({text})"
        return widened if target is DType.F32 else _cast(DType.F32, target, widened)
    if target.is_half:
        return f"go_{target.value}_from_f32((float){text})"
    if target is DType.BOOL:
        return f"({text} != 0)"
    if source.is_float and not target.is_float:
        wide = DType.I64 if target in (DType.I64, DType.U8) else DType.I32
        whole = f"go_{wide.value}_from_{source.value}({text})"
        return whole if target is wide else f"({target.c_type}){whole}"
    return f"({target.c_type}){text}"
