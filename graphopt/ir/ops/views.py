"""Ops that move elements: views of memory, and copies into larger memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from graphopt.ir.graph import Dim, Node, Shape, Value
from graphopt.ir.op import HIDDEN, Array, Op, Operand, Operands, Sizes
from graphopt.ir.symbolic import evaluate, simplify


def sized(shape: Shape, sizes: Sizes) -> tuple[int, ...]:
    """A shape in numbers."""
    return tuple(evaluate(extent, sizes) for extent in shape)


@dataclass
class Permute(Op):
    """Axes in another order: axis i of the result is axis `axes[i]` of x."""

    axes: tuple[int, ...]

    NAME = "go.permute"
    OPERANDS = (Operand("x"),)
    KERNEL = "view"

    def results(self, given: Operands) -> list[Value]:
        x = given["x"]
        return [Value(x.dtype, tuple(x.shape[a] for a in self.axes))]

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        return [given["x"].transpose(self.axes)]


@dataclass
class Reshape(Op):
    """The same elements, in row-major order, in another shape."""

    shape: Shape = field(metadata=HIDDEN)

    NAME = "go.reshape"
    OPERANDS = (Operand("x"),)
    KERNEL = "view"

    def results(self, given: Operands) -> list[Value]:
        return [Value(given["x"].dtype, self.shape)]

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        return [given["x"].reshape(sized(self.shape, sizes))]


@dataclass
class Expand(Op):
    """Extents of 1, and leading axes that x does not have, repeated."""

    shape: Shape = field(metadata=HIDDEN)

    NAME = "go.expand"
    OPERANDS = (Operand("x"),)
    KERNEL = "view"

    def results(self, given: Operands) -> list[Value]:
        return [Value(given["x"].dtype, self.shape)]

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        return [np.broadcast_to(given["x"], sized(self.shape, sizes))]


@dataclass
class Slice(Op):
    """`extent` elements of x from `start` on along an axis, every `step`-th."""

    axis: int
    start: Dim
    extent: Dim = field(metadata=HIDDEN)
    step: int = 1

    NAME = "go.slice"
    OPERANDS = (Operand("x"),)
    KERNEL = "view"

    def results(self, given: Operands) -> list[Value]:
        x = given["x"]
        return [Value(x.dtype, (*x.shape[: self.axis], self.extent, *x.shape[self.axis + 1 :]))]

    def problem(self, node: Node) -> str | None:
        return None if self.step >= 1 else f"steps of {self.step}"

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        start = evaluate(self.start, sizes)
        stop = start + (evaluate(self.extent, sizes) - 1) * self.step + 1
        where = (*[slice(None)] * self.axis, slice(start, stop, self.step))
        return [given["x"][where]]


@dataclass
class Cat(Op):
    """Values side by side along an axis."""

    axis: int

    NAME = "go.cat"
    REST = Operand("")

    def results(self, given: Operands) -> list[Value]:
        first, *rest = given.values()
        along = simplify(sum((v.shape[self.axis] for v in rest), first.shape[self.axis]))
        shape = (*first.shape[: self.axis], along, *first.shape[self.axis + 1 :])
        return [Value(first.dtype, shape)]

    def problem(self, node: Node) -> str | None:
        first, *rest = node.inputs
        if any(v.dtype is not first.dtype or v.rank != first.rank for v in rest):
            return "its operands have different types or ranks"
        return None

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        return [np.concatenate(list(given.values()), self.axis)]


@dataclass
class Pad(Op):
    """x amid elements of one value, of which `before` lie in front of it along each axis."""

    before: tuple[Dim, ...]
    value: float | int | bool
    shape: Shape = field(metadata=HIDDEN)

    NAME = "go.pad"
    OPERANDS = (Operand("x"),)

    def results(self, given: Operands) -> list[Value]:
        return [Value(given["x"].dtype, self.shape)]

    def problem(self, node: Node) -> str | None:
        ranks = {len(self.before), len(self.shape), node.operands["x"].rank}
        return None if len(ranks) == 1 else "its padding is not for the axes that it has"

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        x = given["x"]
        before = [evaluate(b, sizes) for b in self.before]
        out = np.full(sized(self.shape, sizes), self.value, x.dtype)
        out[tuple(slice(b, b + e) for b, e in zip(before, x.shape, strict=True))] = x
        return [out]
