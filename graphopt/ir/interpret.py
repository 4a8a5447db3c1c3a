"""Runs graphs of `go.*` nodes in numpy: to fold constants, and as the oracle of pass tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sympy

from graphopt.errors import EmptyInputError, InputConditionError, InputShapeError
from graphopt.ir import Graph, Node, Value, learn_sizes
from graphopt.ir.numbers import QUANTIZED, Array, narrow, widen
from graphopt.ir.op import Sizes
from graphopt.ir.symbolic import evaluate


def run_graph(graph: Graph, inputs: list[Array]) -> list[Array]:
    """Runs a graph whose nodes are all `go.*`, in numpy.

    Args:
        graph: the graph, before kernels are selected.
        inputs: stored arrays (bf16 as uint16), one per graph input; states are changed in place.
    """
    env: dict[Value, Array] = {}
    for _ in execute(graph, inputs, env):
        pass
    return [stored(value, env) for value in graph.outputs]


def stored(value: Value, env: Mapping[Value, Array]) -> Array:
    """The array of a value: that of a constant, or one that was computed.

    Args:
        value: of a graph.
        env: what was computed so far.
    """
    data = value.data
    return env[value] if data is None else data


def check_sizes(graph: Graph, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raises the error that a compiled module raises for inputs of these shapes.

    Raises:
        InputShapeError, EmptyInputError, InputConditionError: naming the input, or the condition.
    """
    sizes = graph.sizes(shapes)
    for value, shape in zip(graph.inputs, shapes, strict=True):
        for axis, (extent, got) in enumerate(zip(value.shape, shape, strict=True)):
            expected = evaluate(extent, sizes)
            if expected != got:
                raise InputShapeError(value.name, axis, expected, got)
            if got == 0 and not isinstance(extent, int):
                raise EmptyInputError(value.name, axis)
    for condition in filter(graph.known_at_entry, graph.conditions):
        if not condition.subs(sizes):
            raise InputConditionError(str(condition))


def check_found(graph: Graph, dim: str, sizes: Mapping[sympy.Symbol, Any]) -> None:
    """Checks the conditions on a dim that a node has found, and on others that are known by now.

    Args:
        graph: has the conditions.
        dim: the name of what was found.
        sizes: all that are known, with the dim.

    Raises:
        InputConditionError: naming the condition.
    """
    symbol = graph.dims[dim].symbol
    for condition in graph.conditions:
        known = symbol in condition.free_symbols <= set(sizes)
        if known and not condition.subs(sizes):
            raise InputConditionError(f"the sizes that it computes do not satisfy {condition}")


def execute(
    graph: Graph, inputs: list[Array], env: dict[Value, Array] | None = None
) -> Iterator[tuple[Node, list[Array]]]:
    """Runs a graph and stops before every node.

    Args:
        graph: as for `run_graph`; a node that is stopped at may get other constants.
        inputs: as for `run_graph`.
        env: receives what is computed, as stored, while something reads it; outputs stay.

    Yields:
        The next node and its operands, bf16 widened.
    """
    sizes = graph.sizes([array.shape for array in inputs])
    env = {} if env is None else env
    env.update(zip(graph.inputs, inputs, strict=True))
    states = {v: widen(array, v.dtype) for v, array in env.items() if v.is_state}
    last = {value: node for node in graph.nodes for value in (*node.outputs, *node.inputs)}

    def get(value: Value) -> Array:
        if value in states:
            return states[value]
        return widen(stored(value, env), value.dtype)

    for node in graph.nodes:
        given, operands = node.inputs, [get(v) for v in node.inputs]
        yield node, operands
        if node.inputs != given:
            operands = [get(v) for v in node.inputs]
        for value, array in zip(node.outputs, run_node(node, operands, sizes), strict=True):
            env[value] = array if value.packed == QUANTIZED else narrow(array, value.dtype)
            if node.op.computes:
                learn_sizes(sizes, value, array.shape)
        if node.op.computes:
            check_found(graph, node.op.computes, sizes)
        for value in {*node.inputs, *node.outputs} - {*graph.inputs, *graph.outputs}:
            if last.get(value) is node:
                env.pop(value, None)
    for state, array in states.items():
        env[state][...] = narrow(array, state.dtype)


def run_node(node: Node, arrays: Sequence[Array], sizes: Sizes) -> list[Array]:
    """The outputs of one node, in order.

    Args:
        node: what is run.
        arrays: its operands, in order, bf16 widened; a state that it writes to is changed.
        sizes: of the dims that its shapes and attributes name.
    """
    return node.op.evaluate(node, dict(zip(node.operands, arrays, strict=True)), sizes)
