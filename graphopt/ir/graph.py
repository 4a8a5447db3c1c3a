"""The graph that capture builds, passes rewrite and codegen prints.

A `Graph` is a list of `Node`s in topological order over `Value`s. It knows nothing of torch: dtypes
are `DType`, shapes are tuples of `int` or sympy expressions over the graph's named dimensions, and
constants are numpy arrays. Ops carry aten names (`aten.linear`) until `lower_aten` turns them into
the small set of `go.*` ops that kernels and generated loops implement.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import sympy

from graphopt.dtype import DType as DType

#: Ops that write to the states among their inputs; other ops read them.
_WRITE_STATES = frozenset({"go.rope"})

Dim: TypeAlias = int | sympy.Expr
Shape: TypeAlias = tuple[Dim, ...]


@dataclass(frozen=True)
class Origin:
    """Where a node comes from in the user's model.

    Attributes:
        module: qualified module path, such as `encoders.3.self_attn.linear_out`; may be empty.
        source: `file:line` of the user's code; may be empty.
        code: the source line itself; may be empty.
    """

    module: str = ""
    source: str = ""
    code: str = ""


@dataclass(frozen=True)
class Ref:
    """Stands for input `index` of an `aten.*` node inside its attributes."""

    index: int


@dataclass(eq=False)
class Layout:
    """Where the elements of a value live in memory.

    Element `i` is at `offset + sum(i[d] * strides[d])` elements from the start of `storage`, which
    is the value that owns the memory (possibly the value itself).
    """

    storage: Value
    strides: Shape
    offset: Dim = 0


@dataclass(eq=False)
class Value:
    """A tensor: one output of a node, a graph input, or a constant.

    Attributes:
        dtype: element type.
        shape: extents, `int` or sympy expressions over the graph's dims.
        name: a short stable name; the printer numbers unnamed values.
        data: the array, for constants only (bf16 as uint16).
        layout: strides in memory, set by `assign_layouts`.
        packed: how a kernel-specific buffer is laid out (`qa8r`, `bf16`), else empty.
        is_state: an input that nodes also write to: the caller's, kept from run to run.
    """

    dtype: DType
    shape: Shape
    name: str = ""
    data: np.ndarray[Any, Any] | None = None
    layout: Layout | None = None
    packed: str = ""
    is_state: bool = False

    @property
    def is_constant(self) -> bool:
        """True if the value is known at compile time."""
        return self.data is not None

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)


@dataclass(eq=False)
class Node:
    """One operation.

    Attributes:
        op: `aten.<name>` or `go.<name>`.
        inputs: operand values, in the order that the op defines.
        outputs: the values that it makes.
        attrs: everything else that the op needs (no tensors).
        origin: the place in the user's model.
        fused: further places whose work this node does, after fusion.
        reasons: what passes decided about this node and why, `pass: text`.
    """

    op: str
    inputs: list[Value]
    outputs: list[Value]
    attrs: dict[str, Any] = field(default_factory=dict)
    origin: Origin = Origin()
    fused: list[Origin] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def output(self) -> Value:
        """The only output."""
        (value,) = self.outputs
        return value

    def operand(self, role: str) -> Value | None:
        """The input with a role (`bias`, `mask`, ...) of a `go.*` op, or None if it has none."""
        roles = self.attrs.get("roles", ())
        return self.inputs[roles.index(role)] if role in roles else None

    def add_operand(self, role: str, value: Value) -> None:
        """Appends an input with a role."""
        self.inputs.append(value)
        self.attrs["roles"] = (*self.attrs.get("roles", ()), role)

    def decide(self, who: str, why: str) -> None:
        """Records what a pass decided about this node, once."""
        reason = f"{who}: {why}"
        if reason not in self.reasons:
            self.reasons.append(reason)

    @property
    def is_lowered(self) -> bool:
        """True if generated code can run the node."""
        return self.op.startswith("go.")

    @property
    def written(self) -> list[Value]:
        """States that it writes to: an effect beside its outputs."""
        return [v for v in self.inputs if v.is_state] if self.op in _WRITE_STATES else []


@dataclass(frozen=True)
class DimInfo:
    """A named dimension.

    Attributes:
        symbol: the sympy symbol in shapes.
        hint: the size it had in the example inputs; for a computed dim a guess.
        sources: (input index, axis) pairs that all have this size; none for a computed dim.
        bound: the largest size of a dim that a node computes while the graph runs (the node whose
            attribute `computes` has its name), over dims of the inputs; None for dims of inputs.
    """

    symbol: sympy.Symbol
    hint: int
    sources: tuple[tuple[int, int], ...]
    bound: Dim | None = None


@dataclass(eq=False)
class Graph:
    """Nodes in topological order between inputs and outputs."""

    name: str
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    dims: dict[str, DimInfo] = field(default_factory=dict)
    conditions: list[sympy.Basic] = field(default_factory=list)
    """What sizes must satisfy, beyond the shapes of the inputs."""

    def users(self) -> dict[Value, list[Node]]:
        """For each value the nodes that read it, in order; graph outputs are not listed."""
        users: dict[Value, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                users[value].append(node)
        return users

    def producers(self) -> dict[Value, Node]:
        """The node that makes each value; inputs and constants are absent."""
        return {value: node for node in self.nodes for value in node.outputs}

    def constants(self) -> Iterator[Value]:
        """Constants in order of first use, graph outputs last."""
        seen: set[Value] = set()
        values: Iterable[Value] = [v for node in self.nodes for v in node.inputs]
        for value in [*values, *self.outputs]:
            if value.is_constant and value not in seen:
                seen.add(value)
                yield value

    def replace(self, mapping: dict[Value, Value]) -> None:
        """Replaces every use of the keys by their values, following chains."""

        def final(value: Value) -> Value:
            while value in mapping:
                value = mapping[value]
            return value

        for node in self.nodes:
            node.inputs = [final(v) for v in node.inputs]
        self.outputs = [final(v) for v in self.outputs]

    def sizes(self, shapes: Sequence[Sequence[Any]]) -> dict[sympy.Symbol, Any]:
        """The dims that the inputs have, for their shapes; computed ones are missing."""
        return {
            info.symbol: shapes[info.sources[0][0]][info.sources[0][1]]
            for info in self.dims.values()
            if info.sources
        }

    def computed_dims(self) -> list[str]:
        """Names of the dims that nodes compute, in order."""
        return [name for name, info in self.dims.items() if info.bound is not None]

    def hints(self) -> dict[sympy.Symbol, int]:
        """Example sizes of all dims, to evaluate symbolic sizes with."""
        return {info.symbol: info.hint for info in self.dims.values()}


def learn_sizes(sizes: dict[sympy.Symbol, Any], value: Value, shape: Sequence[Any]) -> None:
    """Adds to `sizes` the dims that are extents of a value, now that its shape is known."""
    for extent, size in zip(value.shape, shape, strict=True):
        if isinstance(extent, sympy.Symbol):
            sizes.setdefault(extent, size)


def constant(array: np.ndarray[Any, Any], name: str = "") -> Value:
    """A constant value from a numpy array (f32, f64, bool and integer types)."""
    array = np.asarray(array)  # ascontiguousarray would turn a scalar into a vector
    if not array.flags.c_contiguous:
        array = array.copy(order="C")
    return Value(DType.of(array), tuple(array.shape), name, data=array)
