"""Graphs as text: short, Python-like, one line a node, the same text for the same graph."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from graphopt.ir import DType, Graph, Node, Ref, Shape, Value
from graphopt.ir.ops import Aten
from graphopt.ir.scalar import Scalar
from graphopt.printable import printable

_LONGEST_NAME = 100


def print_graph(graph: Graph, reasons: bool = False) -> str:
    """The graph as text.

    Args:
        graph: what to print.
        reasons: whether to add the decisions of passes below each node.
    """
    names = name_values(graph)
    lines = [
        f"graph {printable(graph.name)}({', '.join(_declare(v, names) for v in graph.inputs)}):"
    ]
    for node in graph.nodes:
        lines.append(f"    {print_node(node, names)}")
        if reasons:
            lines.extend(f"        # {printable(reason)}" for reason in node.reasons)
    lines.append(f"    return {', '.join(names[v] for v in graph.outputs)}")
    return "\n".join(lines) + "\n"


def name_values(graph: Graph) -> dict[Value, str]:
    """Names of all values: inputs and constants by their names, others numbered in order."""
    names: dict[Value, str] = {v: printable(v.name) for v in graph.inputs}
    for i, value in enumerate(graph.constants()):
        names[value] = printable(value.name) or f"const{i}"
    counter = 0
    for node in graph.nodes:
        for value in node.outputs:
            names[value] = f"%{counter}"
            counter += 1
    return names


def print_node(node: Node, names: Mapping[Value, str]) -> str:
    """One node without its place in the user's model."""
    outputs = ", ".join(names[v] for v in node.outputs) or "_"
    where = f"  {node.origin.module}" if node.origin.module else ""
    return printable(f"{outputs} = {print_call(node, names)}  # {print_types(node)}{where}")


def print_call(node: Node, names: Mapping[Value, str]) -> str:
    """The op with operands and attributes, without what it gives."""
    attributes = [f"{k}={_attribute(v, node, names)}" for k, v in _attributes(node)]
    numbered = node.op.REST is not None
    args = [
        names[v] if numbered or i == 0 else f"{role}={names[v]}"
        for i, (role, v) in enumerate(node.operands.items())
    ]
    return printable(f"{node.op}({', '.join(args + attributes)})")


def print_types(node: Node) -> str:
    """The types of what a node gives, such as `f32[B, T, 512]`."""
    return ", ".join(map(print_type, node.outputs))


def shape_text(shape: Shape) -> str:
    """`[B, T, 512]`."""
    return "[" + ", ".join(str(s).replace(" ", "") for s in shape) + "]"


def file_name(text: str) -> str:
    """A name of one file or folder for a text, another for another text; short, ASCII, visible."""
    kept = re.sub(r"[^\w.-]", "_", text, flags=re.ASCII)[:_LONGEST_NAME]
    if kept == text and not text.startswith(".") and text:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{kept.lstrip('.')}-{digest[:8]}"


def _attributes(node: Node) -> Iterator[tuple[str, Any]]:
    """What a dump shows: attributes that are not as they are unless said, and the kernel."""
    for field in dataclasses.fields(node.op):
        value = getattr(node.op, field.name)
        if field.metadata.get("hidden") or value == field.default:
            continue
        if not isinstance(node.op, Aten):
            yield field.name, value
        elif field.name == "arguments":
            given = value.items()
            yield from ((k, v) for k, v in given if v is not None and not isinstance(v, Ref))
        elif field.name != "target":
            yield field.name, value
    if node.kernel:
        yield "kernel", node.kernel


def _declare(value: Value, names: Mapping[Value, str]) -> str:
    return f"{names[value]}: {print_type(value)}"


def print_type(value: Value) -> str:
    """Element type and shape, such as `f32[B, T, 512]`."""
    kind = value.packed or value.dtype.value
    return f"{kind}{shape_text(value.shape)}"


def _attribute(value: Any, node: Node, names: Mapping[Value, str]) -> str:
    if isinstance(value, DType):
        return value.value
    if isinstance(value, Ref):
        return names[node.inputs[value.index]]
    if isinstance(value, Scalar):
        return str(value)
    if isinstance(value, list | tuple):
        return "(" + ", ".join(_attribute(v, node, names) for v in value) + ")"
    return str(value) if not isinstance(value, float) else repr(value)
