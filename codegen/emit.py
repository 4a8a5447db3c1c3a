"""A planned graph as one C module, its weights, and a table of its steps."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from graphopt._version import VERSION
from graphopt.codegen.cached_attention import CACHE_CALLS
from graphopt.codegen.function import FunctionBuilder
from graphopt.codegen.kernel_calls import CALLS, Emit
from graphopt.codegen.lines import LINES
from graphopt.codegen.loops import LOOPS
from graphopt.codegen.memory import Memory
from graphopt.codegen.render import render
from graphopt.codegen.size_c import c_size
from graphopt.codegen.size_checks import SizeCheck, size_checks
from graphopt.codegen.windows import WINDOWS
from graphopt.ir import Dim, DimInfo, Graph, Node, Value
from graphopt.ir.op import Op
from graphopt.ir.ops import Linear, Norm, Pointwise, Recurrent
from graphopt.ir.printer import name_values, print_node
from graphopt.ir.symbolic import most
from graphopt.ir.verify import VerificationError, unwritten

EMITTERS: dict[type[Op], Emit] = {**CALLS, **CACHE_CALLS, **LOOPS, **LINES, **WINDOWS}


@dataclass(frozen=True)
class Function:
    """A C function: its name and its definition."""

    name: str
    text: str


@dataclass(frozen=True)
class Step:
    """One call in `run`: the node it runs, in the order of `go_profile`.

    Attributes:
        node: the node.
        function: name of the C function.
        arguments: C of its arguments.
        comment: the node as text.
        computes: name of the dim that the step computes; empty for none.
        computed: its number among the dims that steps compute.
        conditions: on sizes that are known behind it: C and text.
    """

    node: Node
    function: str
    arguments: str
    comment: str
    computes: str = ""
    computed: int = 0
    conditions: tuple[tuple[str, str], ...] = ()


@dataclass(eq=False)
class Module:
    """What codegen makes of a graph.

    Attributes:
        graph: the planned graph.
        arch: architecture whose layouts the weights have.
        source: C of the module.
        functions: what the steps call, as they stand in the source.
        steps: calls of `run`, in order.
        memory: the arena plan and the weights still to pack.
    """

    graph: Graph
    arch: str
    source: str
    functions: list[Function]
    steps: list[Step]
    memory: Memory

    def write_weights(self, path: Path, threads: int) -> None:
        """Writes the weights file, packed by some threads."""
        self.memory.weights.write(path, threads)

    def weights(self, threads: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The bytes of the weights file."""
        return self.memory.weights.build(threads)


def emit_module(graph: Graph, arch: str) -> Module:
    """Generates the C module of a graph whose layouts are assigned and kernels selected.

    Args:
        graph: every node is `go.*`.
        arch: `x86_64` or `aarch64`: decides packed layouts, not instructions.
    """
    if unwritten(graph):
        raise VerificationError(graph, "assign_layouts", "an output is not written by a node")
    memory = Memory.of(graph, arch)
    functions: dict[str, Function] = {}
    steps: list[Step] = []
    sizes: list[Dim] = []
    names = name_values(graph)
    counts: Counter[str] = Counter()
    for node in graph.nodes:
        if node.op.is_view or _makes_nothing(node):
            continue
        builder = FunctionBuilder(_stem(node))
        EMITTERS[type(node.op)](node, builder, memory)
        key = builder.definition(builder.stem)
        if key not in functions:
            counts[builder.stem] += 1
            number = counts[builder.stem]
            name = builder.stem if number == 1 else f"{builder.stem}_{number}"
            functions[key] = Function(name, builder.definition(name))
        step = Step(node, functions[key].name, builder.arguments, print_node(node, names))
        if name := node.op.computes:
            step = replace(step, computes=name, computed=graph.computed_dims().index(name))
        steps.append(step)
        sizes += builder.sizes
    made = (value for node in graph.nodes for value in node.outputs)
    extents = [extent for value in (*graph.inputs, *made) for extent in value.shape]
    bounds = {i.symbol: i.bound for i in graph.dims.values() if i.bound is not None}
    slots = [[most(size, bounds) for size in slot.sizes] for slot in memory.plan.slots]
    rooms = [[most(extent, bounds) for extent in value.shape] for value in graph.outputs]
    given = [info for info in graph.dims.values() if info.bound is None]
    sizes += [*memory.offsets, *chain(*rooms)]
    checks = size_checks(extents, sizes, slots, graph.conditions, graph.dims)
    source = render(
        "module.c.j2",
        name=graph.name,
        version=VERSION,
        functions=list(functions.values()),
        slots=list(map(_largest, slots)),
        steps=_with_conditions(steps, checks),
        dim_names=[str(info.symbol) for info in given],
        dim_sources=[_source(info) for info in given] or ["{0, 0, 0}"],
        bounds={n: c_size(i.bound) for n, i in graph.dims.items() if i.bound is not None},
        conditions=[(check.condition, check.text) for check in checks if not check.computed],
        input_shapes=_shapes(graph.inputs),
        output_rooms=[[c_size(extent) for extent in room] for room in rooms],
        output_shapes=_shapes(graph.outputs),
        input_ports=_ports(graph.inputs),
        output_ports=_ports(graph.outputs),
        weights_bytes=memory.weights.bytes,
    )
    return Module(graph, arch, source, list(functions.values()), steps, memory)


def _with_conditions(steps: list[Step], checks: list[SizeCheck]) -> list[Step]:
    """Steps with the checks that have to wait for dims, each behind the last of those."""
    waiting = [check for check in checks if check.computed]
    known: set[str] = set()
    found = []
    for step in steps:
        if step.computes:
            known.add(step.computes)
            ready = [check for check in waiting if check.computed <= known]
            waiting = [check for check in waiting if check not in ready]
            texts = ((check.condition, check.text) for check in ready)
            step = replace(step, conditions=tuple(texts))
        found.append(step)
    return found


def _makes_nothing(node: Node) -> bool:
    """Whether everything that a node writes has no elements, whatever the sizes of a call."""
    if node.op.computes or any(value.is_state for value in node.inputs):
        return False
    return bool(node.outputs) and all(0 in value.shape for value in node.outputs)


def _largest(sizes: list[Dim]) -> str:
    """C for the largest of some sizes; of known ones only the largest is named."""
    known = [size for size in sizes if isinstance(size, int)]
    distinct = [size for size in sizes if not isinstance(size, int)]
    texts = [c_size(size) for size in (*distinct, *([max(known)] if known else []))]
    result = texts[0]
    for text in texts[1:]:
        result = f"go_larger({result}, {text})"
    return result


def _stem(node: Node) -> str:
    op = node.op
    parts = [op.name.removeprefix("go.")]
    if isinstance(op, Linear):
        n, k = node.operands["weight"].shape
        parts += [op.decided.name, f"{k}x{n}"]
        parts += [op.activation] if op.activation else []
        parts += ["quantize"] if node.output.packed else []
    elif isinstance(op, Recurrent):
        parts += [op.kind, op.decided.name]
    elif isinstance(op, Norm) and "packed" in op.writes:
        parts.append("quantize")
    elif isinstance(op, Pointwise):
        parts.append(op.expr.op)
        parts += ["quantize"] if node.output.packed else []
    return re.sub(r"\W", "_", "_".join(parts), flags=re.ASCII)


def _shapes(values: list[Value]) -> list[list[str]]:
    return [[c_size(extent) for extent in value.shape] for value in values]


def _ports(values: list[Value]) -> list[str]:
    rows = [f"{{GO_{v.dtype.name}, {v.rank}, {int(v.is_state)}}}" for v in values]
    return rows or ["{0, 0, 0}"]


def _source(info: DimInfo) -> str:
    """Where a dim comes from, as a `go_dim_source`."""
    number, axis = info.sources[0]
    return f"{{{number}, {axis}, {int(info.found)}}}"
