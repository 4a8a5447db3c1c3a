"""Reads graphs that `graphopt/ir/printer.py` printed, as packages hold them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TextNode:
    """A node as it was printed.

    Attributes:
        outputs: names of what it makes.
        op: what it does.
        call: that with operands and attributes.
        types: of what it makes.
        module: path in the user's model.
        kernel: that was selected; empty before.
        operands: of each its role, its name and its type.
        reasons: what passes decided.
    """

    outputs: tuple[str, ...]
    op: str
    call: str
    types: str
    module: str
    kernel: str
    operands: Sequence[tuple[str, str, str]]
    reasons: list[str]


@dataclass(frozen=True)
class TextGraph:
    """A graph as it was printed.

    Attributes:
        inputs: their names and types.
        nodes: in order.
        results: names of the values that it gives.
        types: of values by name.
        maker: for each value the first that the same node makes, which names the node.
    """

    inputs: list[tuple[str, str]] = field(default_factory=list)
    nodes: list[TextNode] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)
    maker: dict[str, str] = field(default_factory=dict)


def parse_graph(text: str) -> TextGraph:
    """The graph of a dump, with or without reasons."""
    graph = TextGraph()
    for number, line in enumerate(text.splitlines()):
        if line.startswith("graph "):
            for name, kind in re.findall(r"([^\s,()]+): (\w+\[[^\]]*\])", line):
                graph.inputs.append((name, kind))
                graph.types[name] = kind
        elif line.startswith("        # "):
            graph.nodes[-1].reasons.append(line[len("        # ") :])
        elif line.startswith("    return"):
            graph.results.extend(line.removeprefix("    return").strip().split(", "))
        elif line.startswith("    "):
            _take(graph, line.strip(), number)
    return graph


def _take(graph: TextGraph, line: str, number: int) -> None:
    """Adds the node of a line, which has a name of its own if it makes nothing."""
    made, _, rest = line.partition(" = ")
    call, _, behind = rest.partition("  # ")
    types, _, module = behind.partition("  ")
    outputs = tuple(made.split(", ")) if made != "_" else (f"line {number}",)
    kernel = re.search(r"\bkernel=(\w+)", call)
    op, _, arguments = call.partition("(")
    operands = [
        (role, name, graph.types[name])
        for role, name in re.findall(r"(?:(\w+)=)?\(?(%?[\w.]+)", arguments)
        if name in graph.types
    ]
    found = kernel[1] if kernel else ""
    graph.nodes.append(TextNode(outputs, op, call, types, module, found, operands, []))
    kinds = re.findall(r"\w+\[[^\]]*\]", types)
    for position, name in enumerate(outputs):
        graph.types[name] = kinds[position] if position < len(kinds) else ""
        graph.maker[name] = outputs[0]
