"""The graph that capture builds, passes rewrite and codegen prints.

A `Graph` is a list of `Node`s in topological order over `Value`s. It knows nothing of torch: dtypes
are `DType`, shapes are tuples of `int` or sympy expressions over the graph's named dimensions, and
constants are numpy arrays. A node's op is one of torch's (`Aten`) until `lower_aten` turns it into
one of the small set of `go.*` ops that kernels and generated loops implement (`graphopt/ir/ops`).
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import sympy

from graphopt.dtype import DType as DType
from graphopt.ir.op import Op

_OP = TypeVar("_OP", bound=Op)

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
    """Stands for operand number `index` of an `aten.*` node among its arguments."""

    index: int


@dataclass(eq=False)
class Layout:
    """Where the elements of a value live in memory.

    Element `i` is at `offset + sum(i[d] * strides[d])` elements from the start of `storage`, which
    is the value that owns the memory (possibly the value itself). An owner with gaps between its
    elements takes `size` elements of memory, a dense one as many as it has.
    """

    storage: Value
    strides: Shape
    offset: Dim = 0
    size: Dim | None = None


Array: TypeAlias = np.ndarray[Any, Any]
Held: TypeAlias = Array | Callable[[], Array] | None


class Numbers:
    """The attribute `Value.data`, which may be computed whenever it is read.

    Numbers that follow from others, such as those of quantized weights from the weights of a model
    that is in memory anyway, take none themselves.
    """

    def __get__(self, value: Value | None, owner: type[Value]) -> Array | None:
        held = None if value is None else value.held
        return held() if callable(held) else held

    def __set__(self, value: Value, held: Held) -> None:
        value.held = held


@dataclass(eq=False)
class Value:
    """A tensor: one output of a node, a graph input, or a constant.

    Attributes:
        dtype: element type.
        shape: extents, `int` or sympy expressions over the graph's dims.
        name: a short stable name; the printer numbers unnamed values.
        data: the array, for constants only (bf16 as uint16); given as one, or as a function that
            computes it for each reader.
        held: what was given as `data`.
        layout: strides in memory, set by `assign_layouts`.
        packed: how a kernel-specific buffer is laid out (`qa8r`, `bf16`), else empty.
        is_state: an input that nodes also write to: the caller's, kept from run to run.
    """

    dtype: DType
    shape: Shape
    name: str = ""
    data: Numbers = Numbers()
    layout: Layout | None = None
    packed: str = ""
    is_state: bool = False
    held: Held = field(init=False, repr=False)

    @property
    def is_constant(self) -> bool:
        """True if the value is known at compile time."""
        return self.held is not None

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)


@dataclass(eq=False)
class Node:
    """One operation on some values.

    Attributes:
        op: which, with its attributes.
        operands: the values that it reads, by role, in the order in which dumps show them.
        outputs: the values that it makes.
        origin: the place in the user's model.
        fused: further places whose work this node does, after fusion.
        reasons: what passes decided about this node and why, `pass: text`.
        kernel: generic name of the kernel that runs it, once it is selected.
    """

    op: Op
    operands: dict[str, Value]
    outputs: list[Value]
    origin: Origin = Origin()
    fused: list[Origin] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    kernel: str = ""

    @staticmethod
    def of(
        op: Op,
        *operands: Value,
        origin: Origin = Origin(),
        shape: Shape | None = None,
        **named: Value | None,
    ) -> Node:
        """A node with outputs of the types and shapes that the op gives.

        Args:
            op: what it does.
            operands: the first ones of the op, or all of one that takes any number.
            origin: the place in the user's model.
            shape: of the only output, where the sizes are known in another form.
            named: further operands by role; those that are None are left out.

        Returns:
            The node, which is in no graph yet.
        """
        roles = (
            [f"x{i}" for i in range(len(operands))] if op.REST else [o.name for o in op.OPERANDS]
        )
        given = dict(zip(roles, operands, strict=False))
        given |= {role: value for role, value in named.items() if value is not None}
        node = Node(op, given, op.results(given), origin)
        if shape is not None:
            node.output.shape = shape
        return node

    @property
    def inputs(self) -> list[Value]:
        """The operands in order."""
        return list(self.operands.values())

    @property
    def output(self) -> Value:
        """The only output."""
        (value,) = self.outputs
        return value

    def as_op(self, kind: type[_OP]) -> _OP:
        """The op, which is of this kind."""
        assert isinstance(self.op, kind), f"{self.op} is a {kind.__name__}"
        return self.op

    def replace_operands(self, mapping: Mapping[Value, Value]) -> None:
        """Reads the values of the mapping in place of its keys."""
        self.operands = {role: mapping.get(v, v) for role, v in self.operands.items()}

    def decide(self, who: str, why: str) -> None:
        """Records what a pass decided about this node, once."""
        reason = f"{who}: {why}"
        if reason not in self.reasons:
            self.reasons.append(reason)

    @property
    def is_lowered(self) -> bool:
        """True if generated code can run the node."""
        return bool(self.op.NAME)

    @property
    def written(self) -> list[Value]:
        """States that it writes to: an effect beside its outputs."""
        return [v for role, v in self.operands.items() if role in self.op.WRITES]

    @property
    def must_run(self) -> bool:
        """Whether it does something although nobody reads its outputs, or sizes that it finds."""
        return self.op.is_check or bool(self.written)


@dataclass(frozen=True)
class DimInfo:
    """A named dimension.

    Attributes:
        symbol: the sympy symbol in shapes.
        hint: the size it had in the example inputs; for a computed dim a guess.
        sources: (input index, axis) pairs that all have this size; none for a computed dim.
        bound: the largest size of a dim that a node computes while the graph runs (the one whose
            op `computes` it), over dims of the inputs; None for dims of inputs, and for those that
            torch finds between compiled parts.
        found: whether torch finds it in data; it may be 0, as no other.
    """

    symbol: sympy.Symbol
    hint: int
    sources: tuple[tuple[int, int], ...]
    bound: Dim | None = None
    found: bool = False


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

    def copy(self) -> Graph:
        """Another graph, which passes may rewrite; arrays of constants are the same."""
        made = (value for node in self.nodes for value in node.outputs)
        values = dict.fromkeys([*self.inputs, *self.constants(), *made])
        copies = {value: copy.copy(value) for value in values}
        nodes = [
            replace(
                node,
                op=copy.copy(node.op),
                operands={role: copies[value] for role, value in node.operands.items()},
                outputs=[copies[value] for value in node.outputs],
                fused=list(node.fused),
                reasons=list(node.reasons),
            )
            for node in self.nodes
        ]
        ports = [copies[v] for v in self.inputs], [copies[v] for v in self.outputs]
        return Graph(self.name, *ports, nodes, dict(self.dims), list(self.conditions))

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
            node.operands = {role: final(v) for role, v in node.operands.items()}
        self.outputs = [final(v) for v in self.outputs]

    def sizes(self, shapes: Sequence[Sequence[Any]]) -> dict[sympy.Symbol, Any]:
        """The dims that the inputs have, for their shapes; computed ones are missing."""
        return {
            info.symbol: shapes[info.sources[0][0]][info.sources[0][1]]
            for info in self.dims.values()
            if info.sources
        }

    def known_at_entry(self, condition: sympy.Basic) -> bool:
        """Whether a condition is on sizes of the inputs alone, and not on what nodes find."""
        found = {info.symbol for info in self.dims.values() if not info.sources}
        return not condition.free_symbols & found

    def computed_dims(self) -> list[str]:
        """Names of the dims that nodes compute, in order."""
        return [name for name, info in self.dims.items() if info.bound is not None]

    def hints(self) -> dict[sympy.Symbol, int]:
        """Example sizes of all dims, to evaluate symbolic sizes with."""
        return {info.symbol: info.hint for info in self.dims.values()}


def learn_sizes(sizes: dict[sympy.Symbol, Any], value: Value, shape: Sequence[Any]) -> None:
    """Adds the dims that are extents of a value, once its shape is known.

    Args:
        sizes: of dims, to which it adds; those that are there stay as they are.
        value: of the graph.
        shape: extents of its array or tensor.
    """
    for extent, size in zip(value.shape, shape, strict=True):
        if isinstance(extent, sympy.Symbol):
            sizes.setdefault(extent, size)


def constant(array: np.ndarray[Any, Any], name: str = "") -> Value:
    """A constant value from a numpy array (f32, f64, bool and integer types)."""
    array = np.asarray(array)  # ascontiguousarray would turn a scalar into a vector
    if not array.flags.c_contiguous:
        array = array.copy(order="C")
    return Value(DType.of(array), tuple(array.shape), name, data=array)
