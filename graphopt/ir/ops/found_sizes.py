"""Ops that find a size in data: how many elements hold, and numbers that a model reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.dtype import DType
from graphopt.errors import InputValueError
from graphopt.ir.graph import Dim, Node, Value
from graphopt.ir.op import Array, Op, Operand, Operands, Sizes, Strides
from graphopt.ir.symbolic import evaluate, found_symbol


@dataclass
class Nonzero(Op):
    """Row-major indices i64[size] of the true elements of x, in order.

    Attributes:
        size: that of `dim`, or a known one: true elements behind it are left out, and the rest is
            -1 where there are fewer.
        dim: name of the dim that it computes, which is the number of true elements; empty if the
            size is known.
    """

    size: Dim
    dim: str = ""

    NAME = "go.nonzero"
    OPERANDS = (Operand("x", Strides.DENSE, dtypes=frozenset({DType.BOOL})),)

    @property
    def computes(self) -> str:
        """The dim of true elements."""
        return self.dim

    def results(self, given: Operands) -> list[Value]:
        return [Value(DType.I64, (self.size,))]

    def problem(self, node: Node) -> str | None:
        if self.dim and self.size != found_symbol(self.dim):
            return f"it computes {self.dim} and makes {self.size} elements"
        return None

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        found = np.flatnonzero(given["x"]).astype(np.int64)
        if self.dim:
            return [found]
        made = np.full(evaluate(self.size, sizes), -1, np.int64)
        kept = found[: made.size]
        made[: kept.size] = kept
        return [made]


@dataclass
class ReadSize(Op):
    """A dim that is a number of the only element of x, and the numbers i64[dim] below it.

    Attributes:
        dim: name of the dim that it computes.
        bound: the largest that it may be.
        is_cut: whether a larger number is taken for the bound; it is refused otherwise.
    """

    dim: str
    bound: Dim
    is_cut: bool = False

    NAME = "go.read_size"
    OPERANDS = (Operand("x"),)

    @property
    def computes(self) -> str:
        """The dim that is read."""
        return self.dim

    def results(self, given: Operands) -> list[Value]:
        return [Value(DType.I64, (found_symbol(self.dim),))]

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        number, most = int(given["x"].reshape(-1)[0]), evaluate(self.bound, sizes)
        if self.is_cut:
            number = min(number, most)
        if not 0 <= number <= most:
            raise InputValueError(OUT_OF_BOUNDS, most, number)
        return [np.arange(number)]


#: What is wrong with a number that is read and is not in its bounds.
OUT_OF_BOUNDS = "a size that the model reads is negative, or larger than what it is a size of"
