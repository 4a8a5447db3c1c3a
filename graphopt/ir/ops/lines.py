"""Ops along the lines of one axis: running sums and the like, order, and stores at indices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.dtype import DType
from graphopt.errors import InputValueError
from graphopt.ir.graph import Node, Value
from graphopt.ir.op import Array, Op, Operand, Operands, Sizes, Strides

#: What `Scan` makes of the elements so far.
SCANS = ("sum", "prod", "max", "min", "argmax", "argmin", "logsumexp")
#: What `Scatter` makes of an element and what is stored to it.
STORES = ("last", "sum", "prod", "max", "min")


@dataclass
class Scan(Op):
    """At every index the sum (or so) of the elements of its line up to there.

    A NaN is larger and smaller than any number; argmax and argmin are the last index of the largest
    or smallest so far, as in torch. Floats are added in double.
    """

    kind: str
    axis: int

    NAME = "go.scan"
    OPERANDS = (Operand("x"),)

    def results(self, given: Operands) -> list[Value]:
        x = given["x"]
        return [Value(DType.I64 if self.kind.startswith("arg") else x.dtype, x.shape)]

    def problem(self, node: Node) -> str | None:
        if self.kind not in SCANS:
            return f"there is no scan {self.kind}"
        return _axis_problem(self.axis, node)

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        x, axis = given["x"], self.axis
        if self.kind.startswith("arg"):
            running = np.maximum if self.kind == "argmax" else np.minimum
            here = (running.accumulate(x, axis) == x) | (x != x)
            places = np.arange(x.shape[axis]).reshape([-1] + [1] * (x.ndim - 1 - axis))
            return [np.maximum.accumulate(np.where(here, places, 0), axis)]
        function = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}.get(
            self.kind, np.logaddexp
        )
        floating = x.dtype.kind == "f" and self.kind not in ("max", "min")
        with np.errstate(all="ignore"):
            made = function.accumulate(x.astype(np.float64) if floating else x, axis, dtype=None)
            return [made.astype(x.dtype)]


@dataclass
class Sort(Op):
    """Lines in order, and the indices of their elements: equal ones as they were, NaN largest."""

    axis: int
    descending: bool

    NAME = "go.sort"
    OPERANDS = (Operand("x"),)

    def results(self, given: Operands) -> list[Value]:
        x = given["x"]
        return [Value(x.dtype, x.shape), Value(DType.I64, x.shape)]

    def problem(self, node: Node) -> str | None:
        return _axis_problem(self.axis, node)

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        x, axis = given["x"], self.axis
        if self.descending:
            back = np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
            order = x.shape[axis] - 1 - back
        else:
            order = np.argsort(x, axis, kind="stable")
        return [np.take_along_axis(x, order, axis), order]


@dataclass
class Scatter(Op):
    """A copy of x, into which the elements of src are stored, one after the other.

    `indices` has for each of them an index into x in row-major order, and `kind` says what becomes
    of what was there: the `last` element stays, or the sum, product, largest or smallest.
    """

    kind: str

    NAME = "go.scatter"
    OPERANDS = (
        Operand("x"),
        Operand("indices", Strides.DENSE, dtypes=frozenset({DType.I64})),
        Operand("src", Strides.DENSE),
    )

    def results(self, given: Operands) -> list[Value]:
        return [Value(given["x"].dtype, given["x"].shape)]

    def problem(self, node: Node) -> str | None:
        x, indices, src = (node.operands[name] for name in ("x", "indices", "src"))
        if self.kind not in STORES:
            return f"there is no scatter {self.kind}"
        if src.dtype is not x.dtype:
            return f"it stores {src.dtype.value} to {x.dtype.value}"
        if src.shape != indices.shape:
            return f"indices of {indices.shape} for elements of {src.shape}"
        return None

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        x, indices, src = (given[name] for name in ("x", "indices", "src"))
        flat: Array = np.array(x).reshape(-1)
        at = indices.reshape(-1)
        if at.size and not (at.min() >= 0 and at.max() < flat.size):
            raise InputValueError("an index is outside the tensor", flat.size, int(at.max()))
        if self.kind == "last":
            for i, value in zip(at, src.reshape(-1), strict=True):
                flat[i] = value
        else:
            _STORE[self.kind].at(flat, at, src.reshape(-1))
        return [flat.reshape(x.shape)]


_STORE: dict[str, Any] = {
    "sum": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def _axis_problem(axis: int, node: Node) -> str | None:
    rank = node.operands["x"].rank
    return None if 0 <= axis < rank else f"axis {axis} of {rank}"
