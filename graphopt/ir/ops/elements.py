"""Ops that generated loops run: arithmetic, reductions, lookups, checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.dtype import DType
from graphopt.errors import InputValueError
from graphopt.ir.graph import Dim, Node, Shape, Value
from graphopt.ir.numbers import QUANTIZED, narrow, quantize_rows, widen
from graphopt.ir.op import F32_OR_BF16, HIDDEN, Array, Op, Operand, Operands, Sizes, Strides
from graphopt.ir.ops.views import sized
from graphopt.ir.scalar import Scalar, read_in_place
from graphopt.ir.symbolic import evaluate
from graphopt.kernels.formats import Format

if TYPE_CHECKING:
    from graphopt.ir.cost import Call

#: What a run says of an index that is not one of the axis.
OUTSIDE = "an index is outside the table"

_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _power(base: Array, exponent: Array) -> Array:
    """Powers; of whole numbers 0 where the exact one, with a negative exponent, is no whole one."""
    if np.result_type(base).kind == "f":
        return np.asarray(np.power(base, exponent))
    power = np.power(base, np.maximum(exponent, 0))
    inverse = np.where(np.abs(base) == 1, np.power(base, exponent & 1), 0)
    return np.where(exponent < 0, inverse.astype(power.dtype), power)


def _quotient(left: Array, right: Array) -> Array:
    """Of whole numbers, towards zero."""
    down = np.floor_divide(left, right)
    return np.asarray(down + ((down < 0) & (np.multiply(down, right) != left)).astype(down.dtype))


def _nonzero(divisor: Array) -> Array:
    if not np.all(divisor):
        raise InputValueError("a whole number is divided by 0", 1, 0)
    return divisor


#: What the functions of a `Scalar` are in numpy.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "neg": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "tanh": np.tanh,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": lambda x: _erf(x).astype(x.dtype),
    "erfc": lambda x: _erfc(x).astype(x.dtype),
    "pow": _power,
    "copysign": np.copysign,
    "round": np.rint,
    "rest": np.fmod,
    "quotient": _quotient,
    "nonzero": _nonzero,
    "bit_and": np.bitwise_and,
    "bit_or": np.bitwise_or,
    "bit_xor": np.bitwise_xor,
    "bit_not": np.bitwise_not,
    "shift_left": np.left_shift,
    "shift_right": np.right_shift,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu_erf": lambda x: (0.5 * x * (1 + _erf(x / math.sqrt(2)))).astype(x.dtype),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "max": np.maximum,
    "min": np.minimum,
    "floor_divide": np.floor_divide,
    "remainder": np.mod,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
}


def evaluate_scalar(
    expr: Scalar,
    operands: list[Array],
    shape: tuple[int, ...],
    sizes: Sizes,
    looked_at: Any = True,
) -> Any:
    """An element expression over whole (widened) operands.

    Args:
        expr: the expression.
        operands: by number.
        shape: of the result.
        sizes: of the dims that it names.
        looked_at: where the result matters; elsewhere no index is checked.

    Raises:
        InputValueError: for an index outside of what it indexes.
    """
    if expr.op == "operand":
        return operands[expr.value]  # type: ignore[index]
    if expr.op == "const":
        return np.asarray(expr.value, np.float32 if expr.dtype.is_half else expr.dtype.numpy)
    if expr.op == "size":
        return np.int64(evaluate(expr.value, sizes))
    if expr.op == "index":
        axis: int = expr.value  # type: ignore[assignment]
        return np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    if expr.op == "where":
        condition = evaluate_scalar(expr.args[0], operands, shape, sizes, looked_at)
        sides = (looked_at & condition, looked_at & ~condition)
        chosen = [
            evaluate_scalar(a, operands, shape, sizes, side)
            for a, side in zip(expr.args[1:], sides, strict=True)
        ]
        return np.where(condition, *chosen)
    args = [evaluate_scalar(a, operands, shape, sizes, looked_at) for a in expr.args]
    if expr.op == "load":
        array: Array = operands[expr.value]  # type: ignore[index]
        indices = [_inside(a, n, looked_at) for a, n in zip(args, array.shape, strict=True)]
        return array[tuple(np.broadcast_arrays(*indices))] if array.size else array.dtype.type(0)
    if expr.op == "wrap":
        return np.where(args[0] < 0, args[0] + evaluate(expr.value, sizes), args[0])
    if expr.op == "check":
        return _inside(args[0], evaluate(expr.value, sizes), looked_at)
    if expr.op == "cast":
        return widen(narrow(args[0], expr.dtype), expr.dtype)
    with np.errstate(all="ignore"):
        return FUNCTIONS[expr.op](*args)


def _inside(indices: Any, extent: int, looked_at: Any) -> Array:
    """Indices of an axis, 0 where nobody looks and they are outside of it."""
    outside = (indices < 0) | (indices >= extent)
    wrong = outside & looked_at
    if np.any(wrong):
        got = int(np.broadcast_to(indices, wrong.shape)[wrong][0])
        raise InputValueError(OUTSIDE, extent, got)
    return np.where(outside, 0, indices)


@dataclass
class Pointwise(Op):
    """An expression of one element, at every index of a shape.

    Operands that are read at the current index broadcast to it; those that are only loaded from
    have any shape.

    If the result is packed, a kernel quantizes its rows as the loop computes them.
    """

    expr: Scalar
    shape: Shape = field(metadata=HIDDEN)

    NAME = "go.pointwise"
    REST = Operand("", bf16=True)
    PACKS = frozenset({QUANTIZED})

    def results(self, given: Operands) -> list[Value]:
        return [Value(self.expr.dtype, self.shape)]

    def problem(self, node: Node) -> str | None:
        inputs = node.inputs
        for leaf in self.expr.walk():
            if leaf.op in ("operand", "load"):
                if not isinstance(leaf.value, int) or leaf.value >= len(inputs):
                    return f"the expression names operand {leaf.value}"
                if inputs[leaf.value].dtype is not leaf.dtype:
                    return f"operand {leaf.value} is not {leaf.dtype.value}"
                if leaf.op == "load" and (
                    len(leaf.args) != inputs[leaf.value].rank
                    or any(a.dtype is not DType.I64 for a in leaf.args)
                ):
                    return f"operand {leaf.value} is loaded by other indices than its own, i64"
            elif leaf.op == "index" and not (
                isinstance(leaf.value, int) and leaf.value < len(self.shape)
            ):
                return f"the expression names axis {leaf.value}"
        return None

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        shape = sized(self.shape, sizes)
        value = evaluate_scalar(self.expr, list(given.values()), shape, sizes)
        result = np.broadcast_to(value, shape)
        return [quantize_rows(result) if node.output.packed else result]

    def operand_bytes(self, node: Node, name: str, call: Call) -> int:
        """Of an operand that is only loaded, no more than what is loaded."""
        stored, value = super().operand_bytes(node, name, call), node.operands[name]
        number = list(node.operands).index(name)
        if number in read_in_place(self.expr):
            return stored
        loads = sum(s.op == "load" and s.value == number for s in self.expr.walk())
        return min(stored, int(loads * call.size(*self.shape)) * value.dtype.itemsize)

    def kernel(self, node: Node) -> str:
        return "go_quantize_rows" if node.output.packed else "loop"


_INDICES = ("argmax", "argmin")


@dataclass
class Reduce(Op):
    """A number of the elements along some axes, which keep an extent of 1.

    `kind` is sum, mean, prod, max, min, or argmax and argmin: the index of the first of the largest
    or smallest along one axis. A NaN is larger and smaller than any number.
    """

    kind: str
    axes: tuple[int, ...]

    NAME = "go.reduce"
    OPERANDS = (Operand("x"),)

    def results(self, given: Operands) -> list[Value]:
        x = given["x"]
        dtype = DType.I64 if self.kind in _INDICES else x.dtype
        return [Value(dtype, tuple(1 if a in self.axes else e for a, e in enumerate(x.shape)))]

    def problem(self, node: Node) -> str | None:
        if self.kind not in ("sum", "mean", "prod", "max", "min", *_INDICES):
            return f"there is no reduction {self.kind}"
        if any(not 0 <= a < node.operands["x"].rank for a in self.axes):
            return "it reduces an axis that x does not have"
        if self.kind in _INDICES and len(self.axes) != 1:
            return f"an {self.kind} along {len(self.axes)} axes"
        return None

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        x, kind, axes = given["x"], self.kind, self.axes
        if kind in _INDICES:
            return [np.asarray(getattr(np, kind)(x, axes[0], keepdims=True))]
        if kind == "mean":
            count = math.prod(x.shape[a] for a in axes)
            with np.errstate(invalid="ignore"):
                total = np.sum(x, axis=axes, keepdims=True)
                return [np.asarray(total / np.asarray(count, x.dtype))]
        if x.dtype == np.bool_:
            kind = {"max": "any", "min": "all"}.get(kind, kind)
        return [np.asarray(getattr(np, kind)(x, axis=axes, keepdims=True))]


@dataclass
class Gather(Op):
    """Rows of a table by index.

    A table in a format of quantized weights is i8 [n, k] with scales, packed like the weights that
    a linear multiplies by, which it may be, and gives f32.
    """

    format: Format | None = None
    group: int = 0

    NAME = "go.gather"
    OPERANDS = (
        Operand("table", Strides.DENSE),
        Operand("indices", Strides.DENSE, dtypes=frozenset({DType.I32, DType.I64})),
        Operand("scale", optional=True, dtypes=F32_OR_BF16),
    )

    @property
    def decided(self) -> Format | None:
        """The format of the table; None for one that is read as it is."""
        return self.format

    def results(self, given: Operands) -> list[Value]:
        table, indices = given["table"], given["indices"]
        dtype = DType.F32 if self.format else table.dtype
        return [Value(dtype, (*indices.shape, *table.shape[1:]))]

    def problem(self, node: Node) -> str | None:
        scaled = self.format is not None and self.format.scaled
        if scaled != ("scale" in node.operands) or (self.format is not None and not scaled):
            return f"a table of {self.format} {'without' if scaled else 'with'} scales"
        return None

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        table, indices = given["table"], given["indices"]
        if self.format is None:
            return [np.asarray(table[indices])]
        rows, where = np.unique(indices, return_inverse=True)
        numbers = self.format.dense(table[rows], given["scale"][rows])
        return [np.asarray(numbers[where.reshape(indices.shape)])]

    def operand_bytes(self, node: Node, name: str, call: Any) -> int:
        if name == "scale":
            return 0  # counted with the rows
        if name == "indices":
            return super().operand_bytes(node, name, call)
        return int(call.size(*node.output.shape) * node.operands["table"].dtype.itemsize)


@dataclass
class Check(Op):
    """A number read from a tensor, which must equal a size of the inputs; it makes nothing."""

    size: Dim

    NAME = "go.check"
    OPERANDS = (Operand("value"),)

    @property
    def is_check(self) -> bool:
        """Always."""
        return True

    def results(self, given: Operands) -> list[Value]:
        return []

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        number, expected = int(given["value"].reshape(-1)[0]), evaluate(self.size, sizes)
        if number != expected:
            what = "a size computed from an input differs from its shape"
            raise InputValueError(f"{what}: {node.origin.code}", expected, number)
        return []
