"""A small graph before and after a pass, as a Python file that runs without the model.

The file holds both graphs, with sizes in the place of dims, and the arrays that they read. Run, it
says how far the result of one is from that of the other, and of what the pass makes of it now.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from graphopt.compiler.options import Options
from graphopt.compiler.pipeline import lowering_passes, placement_passes, precision_passes
from graphopt.compiler.stages import Stage
from graphopt.ir import DType, Graph, Node, Value
from graphopt.ir.symbolic import evaluate
from graphopt.kernels import formats
from graphopt.passes.base import Pass
from graphopt.passes.support.rounding import Rounding

Array = np.ndarray[Any, Any]
_WIDTH = 96


@dataclass(frozen=True)
class Subgraph:
    """A part of a graph that gives one value.

    Attributes:
        graph: with sizes in the place of dims, and one output.
        nodes: names of its nodes.
    """

    graph: Graph
    nodes: tuple[str, ...]


def cut(
    stage: Stage,
    output: str,
    inputs: Sequence[str],
    values: Mapping[str, Array],
    sizes: Mapping[Any, int],
) -> Subgraph:
    """The nodes of a stage between some values and one that they give.

    Args:
        stage: has all of it.
        output: name of the value to give.
        inputs: names of values where it begins.
        values: of a run, for the shapes of the inputs.
        sizes: of the dims in that run.
    """
    maker = {name: row for row in stage.nodes for name in row.outputs}
    wanted, left = set[str](), [output]
    while left:
        name = left.pop()
        if name in inputs or name not in maker or maker[name].name in wanted:
            continue
        wanted.add(maker[name].name)
        left += maker[name].operands.values()
    rows = [row for row in stage.nodes if row.name in wanted]
    own: dict[str, Value] = {}

    def concrete(value: Value, name: str) -> Value:
        shape = tuple(evaluate(extent, sizes) for extent in value.shape)
        held = value.held
        return Value(value.dtype, shape, name, held, packed=value.packed, is_state=value.is_state)

    by_name = {name: value for value, name in stage.names.items()}
    graph = Graph(stage.graph.name)
    for name in inputs:
        value = by_name.get(name)
        if value is not None:
            own[name] = concrete(value, name)
        else:
            array = values[name]
            own[name] = Value(DType.of(array), array.shape, name)
        graph.inputs.append(own[name])
    for row in rows:
        node = row.node
        for role, value in node.operands.items():
            own.setdefault(row.operands[role], concrete(value, row.operands[role]))
        for name, value in zip(row.outputs, node.outputs, strict=True):
            own[name] = concrete(value, name)
        operands = {role: own[name] for role, name in row.operands.items()}
        made = [own[name] for name in row.outputs]
        op = _concrete(node.op, sizes)
        graph.nodes.append(Node(op, operands, made, node.origin, list(node.fused)))
    graph.outputs = [own[output]]
    return Subgraph(graph, tuple(row.name for row in rows))


def _concrete(thing: Any, sizes: Mapping[Any, int]) -> Any:
    """An attribute with sizes in the place of dims."""
    match thing:
        case sympy.Basic():
            free = thing.subs(sizes)
            return int(free) if free.is_Integer else free
        case tuple():
            return tuple(_concrete(item, sizes) for item in thing)
        case list():
            return [_concrete(item, sizes) for item in thing]
        case dict():
            return {key: _concrete(item, sizes) for key, item in thing.items()}
        case formats.Format() | type():
            return thing
        case _ if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
            changed = {
                field.name: _concrete(getattr(thing, field.name), sizes)
                for field in dataclasses.fields(thing)
                if field.init
            }
            return dataclasses.replace(thing, **changed)
        case _:
            return thing


def every_pass(options: Options) -> list[Pass]:
    """The passes of a compilation, in order."""
    rounding = Rounding(options.rounding)
    return [
        *lowering_passes(),
        *precision_passes(
            options.precision, options.group, options.activation_bits, rounding, options.plan
        ),
        *placement_passes(options.target),
    ]


def pass_of(name: str, run: int, target: str, precision: str) -> Pass:
    """A pass as a compilation has it.

    Args:
        name: of the pass.
        run: which of its runs, from 0.
        target: as for `graphopt.optimize`.
        precision: as for `graphopt.optimize`.
    """
    options = Options.of(target=target, precision=precision)
    return [step for step in every_pass(options) if step.name == name][run]


class _Source:
    """Python text for graphs; takes note of what it imports and of arrays."""

    def __init__(self) -> None:
        self.imports: set[tuple[str, str]] = {
            ("graphopt.ir", n) for n in ("Graph", "Node", "Origin")
        }
        self.arrays: list[Array] = []

    def graph(self, name: str, graph: Graph, doc: str) -> str:
        """A function that makes a graph."""
        variables: dict[Value, str] = {}
        lines = [f'"""{doc}"""', f"graph = Graph({graph.name!r})"]

        def declare(value: Value) -> str:
            if value not in variables:
                variables[value] = f"v{len(variables)}"
                lines.append(f"{variables[value]} = {self._value(value)}")
            return variables[value]

        lines.append(f"graph.inputs = [{', '.join(map(declare, graph.inputs))}]")
        for node in graph.nodes:
            operands = {role: declare(value) for role, value in node.operands.items()}
            made = ", ".join(map(declare, node.outputs))
            given = ", ".join(f"{role!r}: {value}" for role, value in operands.items())
            op = self.of(node.op)
            place = f"Origin({node.origin.module!r})"
            lines.append(f"graph.nodes.append(Node({op}, {{{given}}}, [{made}], {place}))")
        lines.append(f"graph.outputs = [{', '.join(map(declare, graph.outputs))}]")
        lines.append("return graph")
        return f"def {name}() -> Graph:\n" + textwrap.indent("\n".join(lines), "    ") + "\n"

    def _value(self, value: Value) -> str:
        self.imports.add(("graphopt.ir", "Value"))
        given = [self.of(value.dtype), repr(value.shape), repr(value.name)]
        if value.data is not None:
            given.append(f"ARRAYS[{self.array(value.data)}]")
        if value.packed:
            given.append(f"packed={value.packed!r}")
        if value.is_state:
            given.append("is_state=True")
        return f"Value({', '.join(given)})"

    def array(self, array: Array) -> int:
        """The number of an array among those that the file holds."""
        for number, other in enumerate(self.arrays):
            if other is array:
                return number
        self.arrays.append(array)
        return len(self.arrays) - 1

    def _class(self, thing: object) -> str:
        """The name of its class, which the file imports."""
        name = type(thing).__name__
        self.imports.add((type(thing).__module__, name))
        return name

    def of(self, thing: Any) -> str:
        """An expression that gives what it is made of."""
        match thing:
            case enum.Enum():
                return f"{self._class(thing)}.{thing.name}"
            case formats.Format():
                name = next(n for n, value in vars(formats).items() if value is thing)
                self.imports.add((formats.__name__, name))
                return name
            case sympy.Basic():
                self.imports.add(("sympy", "sympify"))
                return f"sympify({str(thing)!r})"
            case float() if not np.isfinite(thing):
                return f"float({str(thing)!r})"
            case tuple():
                inside = ", ".join(map(self.of, thing))
                return f"({inside},)" if len(thing) == 1 else f"({inside})"
            case list():
                return f"[{', '.join(map(self.of, thing))}]"
            case dict():
                pairs = (f"{self.of(key)}: {self.of(value)}" for key, value in thing.items())
                return f"{{{', '.join(pairs)}}}"
            case _ if dataclasses.is_dataclass(thing):
                given = [
                    f"{field.name}={self.of(getattr(thing, field.name))}"
                    for field in dataclasses.fields(thing)
                    if field.init
                ]
                return f"{self._class(thing)}({', '.join(given)})"
            case np.generic():
                return repr(thing.item())
            case _:
                return repr(thing)


@dataclass(frozen=True)
class Finding:
    """What a file shows.

    Attributes:
        title: in words.
        before: the graph that is right.
        after: what the pass made of it.
        inputs: arrays for both.
        tolerance: largest `relative_error`.
        step: the pass.
        run: which of its runs, from 0.
        options: what it was compiled for.
    """

    title: str
    before: Subgraph
    after: Subgraph
    inputs: Sequence[Array]
    tolerance: float
    step: str
    run: int
    options: Options

    def source(self) -> str:
        """The Python file."""
        source = _Source()
        graphs = [
            source.graph("before", self.before.graph, f"Before {self.step}: right."),
            source.graph("after", self.after.graph, f"What {self.step} made of it: wrong."),
        ]
        inputs = ", ".join(f"ARRAYS[{source.array(array)}]" for array in self.inputs)
        stream = io.BytesIO()
        arrays = {f"a{n}": array for n, array in enumerate(source.arrays)}
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        packed = "\n".join(textwrap.wrap(base64.b64encode(stream.getvalue()).decode(), _WIDTH))
        imports = [f"from {module} import {name}" for module, name in sorted(source.imports)]
        given = (self.step, self.run, self.options.target.name, self.options.precision)
        parts = [
            f'"""{self._heading()}"""',
            "import sys",
            "\n".join([*imports, "from graphopt.inspection.reproducer import read_arrays, show"]),
            f'ARRAYS = read_arrays("""\n{packed}\n""")',
            *graphs,
            'if __name__ == "__main__":\n'
            f"    graphs, inputs = (before(), after()), [{inputs}]\n"
            f"    sys.exit(show(*graphs, inputs, {self.tolerance!r}, *{given!r}))\n",
        ]
        return "\n\n".join(parts)

    def _heading(self) -> str:
        """What the file is about, as a docstring holds it."""
        title = textwrap.fill(self.title, _WIDTH, break_long_words=False)
        end = "Written by graphopt bisect. It ends with 1 while the pass is wrong."
        return f"{title}\n\n{end}\n".replace("\\", "\\\\").replace('"', "'")


def read_arrays(text: str) -> list[Array]:
    """The arrays that a file holds."""
    with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as loaded:
        return [loaded[f"a{number}"] for number in range(len(loaded.files))]


def result_of(graph: Graph, inputs: Sequence[Array]) -> Array:
    """The one result of a graph, in numpy and where it must be in torch."""
    from graphopt.compiler.stages import Stages
    from graphopt.inspection.accuracy import values_of

    stage = Stages(graph.name).take(graph, "")
    return values_of(stage, inputs)[stage.names[stage.graph.outputs[0]]]


def error_now(
    before: Graph, inputs: Sequence[Array], step: str, run: int, target: str, precision: str
) -> float:
    """How far the result is after the pass, as it is now, has run on the graph before it.

    Args:
        before: a graph that nobody needs any more.
        inputs: for it.
        step: name of the pass.
        run: which of its runs, from 0.
        target: as for `graphopt.optimize`.
        precision: as for `graphopt.optimize`.
    """
    from graphopt.testing import relative_error

    right = result_of(before, inputs)
    pass_of(step, run, target, precision).run(before)
    return relative_error(result_of(before, inputs), right)


def show(
    before: Graph,
    after: Graph,
    inputs: Sequence[Array],
    tolerance: float,
    step: str,
    run: int,
    target: str,
    precision: str,
) -> int:
    """Prints what a file shows; 0 if the pass is right by now, else 1.

    Args:
        before: the graph that is right.
        after: what the pass made of it.
        inputs: for both.
        tolerance: largest `relative_error`.
        step: name of the pass.
        run: which of its runs, from 0.
        target: as for `graphopt.optimize`.
        precision: as for `graphopt.optimize`.
    """
    from graphopt.ir.printer import print_graph
    from graphopt.testing import relative_error

    found = relative_error(result_of(after, inputs), result_of(before, inputs))
    print(f"before\n{print_graph(before)}\nafter\n{print_graph(after)}")
    print(f"as it was found, {step} moves the result by {found:.3g} of its largest magnitude")
    now = error_now(before, inputs, step, run, target, precision)
    print(f"this graphopt's {step}: {now:.3g}; the tolerance is {tolerance:g}")
    return int(now > tolerance)
