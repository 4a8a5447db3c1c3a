"""Cuts a graph into parts that generated code runs and nodes that stay in torch."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from graphopt.errors import CaptureError
from graphopt.ir import DimInfo, Graph, Node, Value
from graphopt.ir.networks import ranks, symbols
from graphopt.runtime.library import MAX_RANK


@dataclass(eq=False)
class CompiledPart:
    """A graph of `go.*` nodes.

    Attributes:
        graph: the part; its inputs and outputs are values of the whole graph.
        inputs: values of the whole graph that feed it, in order.
        outputs: values of the whole graph that it makes, in order.
    """

    graph: Graph
    inputs: list[Value]
    outputs: list[Value]


@dataclass(eq=False)
class TorchPart:
    """One node that torch runs."""

    node: Node


Part = CompiledPart | TorchPart


def partition(graph: Graph) -> list[Part]:
    """Parts in the order in which they run; one compiled part if every node is lowered.

    Compiled nodes are gathered greedily: a part takes every `go.*` node whose operands are there
    before torch gets a turn, so the fewest possible switches between the two remain.

    Raises:
        CaptureError: if a part would get or give a tensor of more axes than compiled code takes.
    """
    if all(node.is_lowered for node in graph.nodes):
        _check_ranks(graph, graph.name)
        return [CompiledPart(graph, list(graph.inputs), list(graph.outputs))]
    users = graph.users()
    parts: list[Part] = []
    for turn in _turns(graph.nodes):
        taken = [node for node in turn if node.is_lowered]
        if taken:
            parts.append(_compiled(graph, taken, len(parts), users))
        parts += [TorchPart(node) for node in turn if not node.is_lowered]
    return parts


def _turns(nodes: list[Node]) -> list[list[Node]]:
    """Nodes by turn: compiled ones whose operands are there, then those that torch runs on them.

    What reads a result of torch has to wait for the next turn.
    """
    turn_of = ranks(nodes, lambda before, after: int(not before.is_lowered))
    turns: list[list[Node]] = [[] for _ in range(max(turn_of, default=-1) + 1)]
    for node, number in zip(nodes, turn_of, strict=True):
        turns[number].append(node)
    return turns


def _compiled(
    graph: Graph, nodes: list[Node], number: int, users: dict[Value, list[Node]]
) -> CompiledPart:
    inside = {v for n in nodes for v in n.outputs}
    chosen = set(nodes)
    asked = inside & set(graph.outputs)
    if any(not info.sources for info in graph.dims.values()):
        others = [n for n in graph.nodes if n not in chosen]
        asked.update(_given(graph, symbols(others, ())))
    inputs = list(
        dict.fromkeys(v for n in nodes for v in n.inputs if v not in inside and not v.is_constant)
    )
    outputs = [
        v
        for n in nodes
        for v in n.outputs
        if v in asked or any(user not in chosen for user in users.get(v, ()))
    ]
    inputs += _inputs_that_give_dims(graph, nodes, inputs)
    # Own values for what comes in: the part that makes them gives them another layout.
    own = {v: Value(v.dtype, v.shape, v.name) for v in inputs}
    for node in nodes:
        node.replace_operands(own)
    part = Graph(f"{graph.name}_{number}", list(own.values()), list(outputs), nodes)
    part.dims = _dims_of(graph, inputs) | _computed_dims(graph, nodes)
    known = {info.symbol for info in part.dims.values()}
    part.conditions = [c for c in graph.conditions if c.free_symbols <= known]
    _check_ranks(part, graph.name)
    return CompiledPart(part, inputs, outputs)


def _check_ranks(part: Graph, name: str) -> None:
    for value in (*part.inputs, *part.outputs):
        if value.rank > MAX_RANK:
            what = "a result" if value in part.outputs else value.name
            remedy = f"{what} has {value.rank} axes and compiled code takes {MAX_RANK}; merge some"
            raise CaptureError(name, None, remedy)


def _inputs_that_give_dims(graph: Graph, nodes: list[Node], inputs: list[Value]) -> list[Value]:
    """Values that a part takes only to learn the size of a dim: of the whole graph, or computed."""
    computed = {info.symbol for info in _computed_dims(graph, nodes).values()}
    missing = symbols(nodes, inputs) - {e for v in inputs for e in v.shape} - computed
    sources = [i.sources[0][0] for i in graph.dims.values() if i.symbol in missing and i.sources]
    extra = dict.fromkeys(graph.inputs[number] for number in sources)
    extra |= dict.fromkeys(_given(graph, missing))
    return [value for value in extra if value not in inputs]


def _given(graph: Graph, wanted: set[sympy.Symbol]) -> list[Value]:
    """Of each dim among some that a node finds, the first value that has it as an extent."""
    dims = [info.symbol for info in graph.dims.values() if not info.sources]
    made = [v for n in graph.nodes if n.op.computes for v in n.outputs]
    return [next(v for v in made if dim in v.shape) for dim in dims if dim in wanted]


def _computed_dims(graph: Graph, nodes: list[Node]) -> dict[str, DimInfo]:
    return {n.op.computes: graph.dims[n.op.computes] for n in nodes if n.op.computes}


def _dims_of(graph: Graph, inputs: list[Value]) -> dict[str, DimInfo]:
    dims: dict[str, DimInfo] = {}
    for name, info in graph.dims.items():
        sources = tuple(
            (i, axis)
            for i, value in enumerate(inputs)
            for axis, extent in enumerate(value.shape)
            if extent == info.symbol
        )
        if sources:
            dims[name] = DimInfo(info.symbol, info.hint, sources, found=not info.sources)
    return dims
