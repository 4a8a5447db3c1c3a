"""What every graph must satisfy between passes."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

import sympy

from graphopt.errors import GraphoptError
from graphopt.ir import Dim, DType, Graph, Node, Value
from graphopt.ir.layout import layout_of
from graphopt.ir.networks import cycle
from graphopt.ir.numbers import QUANTIZED
from graphopt.ir.op import Op
from graphopt.ir.ops import OPS, Expand, Pointwise
from graphopt.ir.scalar import read_in_place
from graphopt.ir.symbolic import evaluate

#: Passes without which no code can be made: they are never left out.
REQUIRED = frozenset(
    {"lower_aten", "fuse_im2col", "assign_layouts", "parallelize_conv", "select_kernels"}
)


class VerificationError(GraphoptError):
    """A pass left a graph that is not legal; names the pass and the node."""

    def __init__(self, graph: Graph, after: str, problem: str) -> None:
        remedy = f"GRAPHOPT_SKIP={after} works around it"
        if after in REQUIRED:
            remedy = "leave the module where it is uncompiled, and please report it"
        super().__init__(
            f"graph {graph.name} is not legal after {after}: {problem}; this is a defect of "
            f"graphopt: {remedy}"
        )


def verify(graph: Graph, after: str) -> None:
    """Checks the graph; raises VerificationError naming the pass that ran last.

    1. Every value is defined once, before its uses.
    2. Operands of `go.*` nodes are those of the op, with types that it takes; attributes have their
       types; outputs are of the types and shapes that the op gives, or stored as it can store them.
    3. What an op asks of its operands besides holds (`Op.problem`).
    4. Symbols in shapes are dims of the graph; a computed one has one node that computes it,
       before any other node that has it in a shape.
    5. Once memory is planned, every output is memory of its own that a node writes.
    """
    defined: set[Value] = set(graph.inputs)
    computed = {node.op.computes for node in graph.nodes}
    symbols = {info.symbol for name, info in graph.dims.items() if name not in computed}

    def require(condition: bool, problem: str) -> None:
        if not condition:
            raise VerificationError(graph, after, problem)

    for position, node in enumerate(graph.nodes):
        where = f"node {position} ({node.op}, {node.origin.module or 'no module'})"
        if dim := node.op.computes:
            bounded = not node.is_lowered or dim in graph.computed_dims()
            require(dim in graph.dims and bounded, f"{where} computes no dim of the graph")
            require(graph.dims[dim].symbol not in symbols, f"{where} computes {dim} again")
            symbols.add(graph.dims[dim].symbol)
        for value in node.inputs:
            if not (value in defined or value.is_constant):
                require(False, f"{where} reads an undefined value{_ring(graph)}")
        for value in node.outputs:
            require(value not in defined, f"{where} defines a value twice")
            require(not value.is_constant, f"{where} defines a constant")
            free = {s for e in value.shape if not isinstance(e, int) for s in e.free_symbols}
            require(free <= symbols, f"{where} has unknown dims {free - symbols} in its shape")
            defined.add(value)
        if node.is_lowered:
            problem = _problem(node, graph)
            require(problem is None, f"{where}: {problem}")
    for value in graph.outputs:
        require(value in defined or value.is_constant, "an output is not defined")
    if any(v.layout is not None for n in graph.nodes for v in n.outputs):
        require(not unwritten(graph), "an output is not written by a node")


def _ring(graph: Graph) -> str:
    """Nodes that wait for each other in a ring, for a message; empty if there is none."""
    nodes = cycle(graph.nodes)
    return ": a cycle of " + ", ".join(node.op.name for node in nodes) if nodes else ""


def unwritten(graph: Graph) -> list[Value]:
    """The outputs that no node writes, or that share memory with another: for planned graphs."""
    written = {v for n in graph.nodes for v in n.outputs if layout_of(v).storage is v}
    return [v for i, v in enumerate(graph.outputs) if v not in written or v in graph.outputs[:i]]


def _problem(node: Node, graph: Graph) -> str | None:
    """What about a `go.*` node is not as its op says."""
    return (
        _attribute_problem(node.op)
        or _operand_problem(node)
        or node.op.problem(node)
        or _result_problem(node, graph)
    )


def _attribute_problem(op: Op) -> str | None:
    kinds = _attribute_kinds()[type(op)]
    for field in dataclasses.fields(op):
        value = getattr(op, field.name)
        if not _fits(value, kinds[field.name]):
            return f"{field.name} is {value!r}, not {kinds[field.name]}"
    return None


@cache
def _attribute_kinds() -> dict[type[Op], dict[str, Any]]:
    """What the attributes of every op are declared with."""
    return {op: typing.get_type_hints(op) for op in OPS}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of the type that an attribute is declared with."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, k) for k in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[1:] == (...,):
            return all(_fits(v, arguments[0]) for v in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _operand_problem(node: Node) -> str | None:
    for role, value in node.operands.items():
        operand = node.op.operand(role)
        if operand is None:
            return f"it has an operand {role!r}, which {node.op} has not"
        if operand.dtypes and not value.packed and value.dtype not in operand.dtypes:
            return f"its operand {role!r} is {value.dtype.value}"
    missing = [o.name for o in node.op.OPERANDS if not o.optional and o.name not in node.operands]
    if missing:
        return f"it has no operand {missing[0]!r}"
    if node.op.REST is not None and list(node.operands) != [
        f"x{i}" for i in range(len(node.operands))
    ]:
        return "its operands are not numbered in order"
    return None


def _result_problem(node: Node, graph: Graph) -> str | None:
    wanted = node.op.results(node.operands)
    if len(wanted) != len(node.outputs):
        return f"it makes {len(wanted)} values and has {len(node.outputs)} outputs"
    for made, value in zip(wanted, node.outputs, strict=True):
        if len(made.shape) != value.rank or not all(
            _equal(a, b, graph) for a, b in zip(made.shape, value.shape, strict=True)
        ):
            return f"it makes a value of {made.shape}, its output has {value.shape}"
        if not (_same_type(made, value) or _stored_so(node.op, made, value)):
            kinds = [v.packed or v.dtype.value for v in (made, value)]
            return f"it makes {kinds[0]}, its output is {kinds[1]}"
    if isinstance(node.op, Pointwise | Expand):
        return _broadcast_problem(node, graph)
    return None


def _same_type(made: Value, value: Value) -> bool:
    return made.dtype is value.dtype and made.packed == value.packed


def _stored_so(op: Op, made: Value, value: Value) -> bool:
    """Whether a kernel can store an f32 result as it is stored."""
    if made.dtype is not DType.F32 or made.packed:
        return False
    if value.packed:
        return value.packed in op.PACKS and value.dtype is _PACKED[value.packed]
    return op.STORES_BF16 and value.dtype is DType.BF16


_PACKED = {QUANTIZED: DType.I8, "bf16": DType.BF16}


def _broadcast_problem(node: Node, graph: Graph) -> str | None:
    """Operands of which an extent is neither 1 nor that of the result; loads have any."""
    out, op = node.output, node.op
    walked = read_in_place(op.expr) if isinstance(op, Pointwise) else {0}
    for value in (v for i, v in enumerate(node.inputs) if i in walked):
        padded = (1,) * (out.rank - value.rank) + value.shape
        if value.rank > out.rank or any(
            a != 1 and not _equal(a, b, graph) for a, b in zip(padded, out.shape, strict=True)
        ):
            return f"an operand of shape {value.shape} does not broadcast to {out.shape}"
    return None


def _equal(a: Dim, b: Dim, graph: Graph) -> bool:
    """Whether two extents are the same; other forms of one size agree wherever they are tried.

    torch.export writes the extent of `x[:, -3:]` as `Max(0, T - Max(0, T - 3))` and that of
    `x[:, :3]` as `Min(3, T)`. Sizes that the graph does not take are not tried.
    """
    if a == b:
        return True
    if isinstance(a, int) and isinstance(b, int):
        return False
    hints = graph.hints()
    others = ({s: n * k + 1 for s, n in hints.items()} for k in (0, 1, 2, 5))
    tried = (hints, *(sizes for sizes in others if _allowed(graph, sizes)))
    return all(evaluate(a, sizes) == evaluate(b, sizes) for sizes in tried)


def _allowed(graph: Graph, sizes: Mapping[sympy.Symbol, int]) -> bool:
    """Whether sizes satisfy the conditions of the graph, which may make two extents the same."""
    return all(condition.subs(sizes) != sympy.false for condition in graph.conditions)
