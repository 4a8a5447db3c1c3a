"""Operands of element-wise rules, converted as torch converts them."""

from __future__ import annotations

import math

import sympy

from graphopt.ir import DType, Value, scalar
from graphopt.ir.scalar import Scalar
from graphopt.passes.lowering.builder import Builder, Unsupported


class Operands:
    """Turns arguments into leaves of an expression and collects the tensors among them."""

    def __init__(self, b: Builder) -> None:
        self.b = b
        self.out = b.node.outputs[0]
        self.values: list[Value] = []

    def read(self, argument: object) -> Scalar:
        """The argument in the type in which torch computes the result.

        A result of 16 bits is computed in f32: of numbers as they are, of tensors rounded to it.
        """
        out = self.out.dtype
        if not out.is_half:
            return self.leaf(argument, out)
        is_tensor = isinstance(argument, Value) and argument.rank > 0
        return self.leaf(argument, out if is_tensor else DType.F32)

    def leaf(self, argument: object, dtype: DType) -> Scalar:
        """The argument, a tensor or a number, converted to `dtype`; 16 bits are held as f32."""
        x = self._leaf(argument)
        if x.op == "const" and not dtype.is_half:
            value = x.value
            if isinstance(value, float) and not math.isfinite(value) and not dtype.is_float:
                raise Unsupported(f"{value} as {dtype.value}")
        x = scalar.cast(x, dtype)
        return scalar.cast(x, DType.F32) if dtype.is_half else x

    def _leaf(self, argument: object) -> Scalar:
        if isinstance(argument, Value):
            data = argument.data
            if data is not None and data.size == 1 and not argument.dtype.is_half:
                return scalar.const(data.reshape(()).item(), argument.dtype)
            self.values.append(argument)
            return scalar.operand(len(self.values) - 1, argument.dtype)
        if isinstance(argument, bool):
            return scalar.const(argument, DType.BOOL)
        if isinstance(argument, int):
            if not -(2**63) <= argument < 2**63:
                raise Unsupported(f"the number {argument}, which i64 cannot hold")
            return scalar.const(argument, DType.I64)
        if isinstance(argument, float):
            return scalar.const(argument, DType.F64)
        if isinstance(argument, sympy.Expr):
            return scalar.size(argument)
        if isinstance(argument, Scalar):  # a float made of sizes
            return argument
        raise Unsupported(f"the operand {argument}")

    def emit(self, expr: Scalar) -> Value:
        """The node that computes the expression; raises Unsupported for functions without C."""
        if (function := scalar.not_computable(expr)) is not None:
            raise Unsupported(function)
        expr = scalar.cast(expr, self.out.dtype)
        read = {s.value for s in expr.walk() if s.op in ("operand", "load")}
        used = [i for i in range(len(self.values)) if i in read]
        expr = scalar.renumbered(expr, used.index)
        return self.b.pointwise(expr, [self.values[i] for i in used], self.out.shape)


def compute_type(b: Builder) -> DType:
    """The type that torch computes in: that of the result, f32 for 16 bits."""
    dtype = b.node.outputs[0].dtype
    return DType.F32 if dtype.is_half else dtype
