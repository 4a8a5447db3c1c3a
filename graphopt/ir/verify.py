"""What every graph must satisfy between passes."""

from __future__ import annotations

from collections.abc import Mapping

import sympy

from graphopt.errors import GraphoptError
from graphopt.ir import Dim, DType, Graph, Node, Value
from graphopt.ir.layout import layout_of
from graphopt.ir.scalar import Scalar
from graphopt.ir.symbolic import evaluate

#: Passes without which no code can be made: they are never left out.
REQUIRED = frozenset(
    {"lower_aten", "fuse_patches", "assign_layouts", "parallelize_conv", "select_kernels"}
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
    2. `go.*` inputs fit their roles; operands of a pointwise node broadcast to its shape.
    3. Expressions only name operands that exist, with their types.
    4. Symbols in shapes are dims of the graph; a computed one has one node that computes it,
       before any other node that has it in a shape.
    5. Once memory is planned, every output is memory of its own that a node writes.
    """
    defined: set[Value] = set(graph.inputs)
    symbols = {info.symbol for info in graph.dims.values() if info.bound is None}

    def require(condition: bool, problem: str) -> None:
        if not condition:
            raise VerificationError(graph, after, problem)

    for position, node in enumerate(graph.nodes):
        where = f"node {position} ({node.op}, {node.origin.module or 'no module'})"
        if (computed := node.attrs.get("computes")) is not None:
            require(computed in graph.computed_dims(), f"{where} computes no dim of the graph")
            require(
                graph.dims[computed].symbol not in symbols, f"{where} computes {computed} again"
            )
            symbols.add(graph.dims[computed].symbol)
        for value in node.inputs:
            require(value in defined or value.is_constant, f"{where} reads an undefined value")
        for value in node.outputs:
            require(value not in defined, f"{where} defines a value twice")
            require(not value.is_constant, f"{where} defines a constant")
            free = {s for e in value.shape if not isinstance(e, int) for s in e.free_symbols}
            require(free <= symbols, f"{where} has unknown dims {free - symbols} in its shape")
            defined.add(value)
        if "roles" in node.attrs:
            require(
                len(node.attrs["roles"]) == len(node.inputs), f"{where} has inputs without roles"
            )
        if node.op == "go.pointwise":
            problem = _pointwise_problem(node, graph)
            require(problem is None, f"{where}: {problem}")
    for value in graph.outputs:
        require(value in defined or value.is_constant, "an output is not defined")
    if any(v.layout is not None for n in graph.nodes for v in n.outputs):
        require(not unwritten(graph), "an output is not written by a node")


def unwritten(graph: Graph) -> list[Value]:
    """The outputs that no node writes, or that share memory with another: for planned graphs."""
    written = {v for n in graph.nodes for v in n.outputs if layout_of(v).storage is v}
    return [v for i, v in enumerate(graph.outputs) if v not in written or v in graph.outputs[:i]]


def _pointwise_problem(node: Node, graph: Graph) -> str | None:
    expr: Scalar = node.attrs["expr"]
    out = node.output
    for leaf in expr.walk():
        if leaf.op == "operand":
            if not isinstance(leaf.value, int) or leaf.value >= len(node.inputs):
                return f"the expression names operand {leaf.value}"
            if node.inputs[leaf.value].dtype is not leaf.dtype:
                return f"operand {leaf.value} is not {leaf.dtype.value}"
    for value in node.inputs:
        padded = (1,) * (out.rank - value.rank) + value.shape
        if value.rank > out.rank or any(
            a != 1 and not _equal(a, b, graph) for a, b in zip(padded, out.shape, strict=True)
        ):
            return f"an operand of shape {value.shape} does not broadcast to {out.shape}"
    made = DType.F32 if out.packed else out.dtype  # which its kernel quantizes
    if expr.dtype is not made:
        return f"the expression is {expr.dtype.value}, the output {made.value}"
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
