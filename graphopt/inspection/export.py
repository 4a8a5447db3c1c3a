"""A stage as a file for other tools: text, GraphML, DOT, ONNX, Model Explorer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from graphopt.compiler.stages import Stage
from graphopt.errors import OptionError
from graphopt.ir.networks import dot, graphml
from graphopt.ir.printer import print_type
from graphopt.printable import printable

#: Formats, with the ending of their files.
FORMATS = {
    "text": "txt",
    "dot": "dot",
    "graphml": "graphml",
    "model-explorer": "json",
    "onnx": "onnx",
}

Overlay = Mapping[str, float | str]
"""A number, or a word, for nodes by name: what a viewer colours them by."""


def check_format(format: str) -> None:
    """Raises OptionError for a format that there is not."""
    if format not in FORMATS:
        raise OptionError("format", format, f"give one of {', '.join(FORMATS)}")


def export_text(stages: Sequence[Stage], format: str, overlays: Mapping[str, Overlay]) -> str:
    """Stages in a format that is text.

    Args:
        stages: one of them, but for `text` and `model-explorer`, which hold several.
        format: one of `FORMATS` but `onnx`.
        overlays: for `model-explorer`, by their titles; see `model_explorer`.

    Raises:
        OptionError: for several stages in a format that holds one.
    """
    check_format(format)
    if format == "text":
        return "\n".join(f"# after {stage.name}\n{stage.text}" for stage in stages)
    if format == "model-explorer":
        graphs = [model_explorer(stage, overlays) for stage in stages]
        label = printable(stages[0].graph.name)
        return json.dumps({"label": label, "graphs": graphs}, indent=1) + "\n"
    if len(stages) != 1 or format == "onnx":
        raise OptionError("format", format, "it holds one graph in a file; give one pass and --out")
    (stage,) = stages
    return {"graphml": graphml, "dot": dot}[format](stage.graph, stage.names)


def overlays_of(stage: Stage) -> dict[str, dict[str, str]]:
    """What the graph itself says of its nodes: kernel, precision, what the pass did, and why."""
    return {
        "kernel": {row.name: row.node.kernel for row in stage.nodes if row.node.kernel},
        "precision": {row.name: row.precision for row in stage.nodes if row.precision},
        "change": {row.name: row.change for row in stage.nodes},
        "why": {row.name: "; ".join(row.node.reasons) for row in stage.nodes if row.node.reasons},
    }


def model_explorer(stage: Stage, overlays: Mapping[str, Overlay]) -> dict[str, Any]:
    """A graph of Google's Model Explorer (`Graph` of its graph_builder), as JSON takes it.

    Layers are those of the user's module tree. Overlays are attributes of nodes here; as colours
    Model Explorer loads them from a file of `node_data`.

    Args:
        stage: the graph.
        overlays: of each title a number or word for nodes.
    """
    made = _makers(stage)
    nodes: list[dict[str, Any]] = [
        _explorer_node(name, name, "inputs", {"type": print_type(value)})
        for value in stage.graph.inputs
        for name in [stage.names[value]]
    ]
    for row in stage.nodes:
        origin = row.node.origin
        attributes = {
            "op": str(row.node.op),
            "call": row.call,
            "source": printable(origin.source),
            "code": printable(origin.code),
            "came from": ", ".join(row.came_from),
            **{
                title: str(values[row.name])
                for title, values in overlays.items()
                if row.name in values
            },
        }
        place = printable(origin.module).replace(".", "/")
        node = _explorer_node(row.name, row.node.op.name.partition(".")[2], place, attributes)
        for number, (role, name) in enumerate(row.operands.items()):
            if name in made:
                source, output = made[name]
                edge = {"sourceNodeId": source, "sourceNodeOutputId": str(output)}
                node["incomingEdges"].append({**edge, "targetNodeInputId": str(number)})
            attribute = {"key": "__tensor_tag", "value": f"{role}: {name}"}
            node["inputsMetadata"].append({"id": str(number), "attrs": [attribute]})
        for number, (name, value) in enumerate(zip(row.outputs, row.node.outputs, strict=True)):
            named = [("tensor_name", name), ("tensor_shape", print_type(value))]
            attrs = [{"key": key, "value": text} for key, text in named]
            node["outputsMetadata"].append({"id": str(number), "attrs": attrs})
        nodes.append(node)
    outputs = _explorer_node("outputs", "outputs", "", {})
    for number, value in enumerate(stage.graph.outputs):
        if (name := stage.names[value]) in made:
            source, output = made[name]
            edge = {"sourceNodeId": source, "sourceNodeOutputId": str(output)}
            outputs["incomingEdges"].append({**edge, "targetNodeInputId": str(number)})
    return {"id": stage.name, "nodes": [*nodes, outputs]}


def node_data(title: str, stages: Mapping[str, Overlay]) -> str:
    """A file of Model Explorer's node data, which colours nodes.

    Args:
        title: what the numbers or words are.
        stages: an overlay for each stage, by its name.
    """
    data: dict[str, Any] = {}
    for stage, values in stages.items():
        data[stage] = {"name": title, "results": {n: {"value": v} for n, v in values.items()}}
        if all(isinstance(value, int | float) for value in values.values()):
            colors = enumerate(("#fff7bc", "#d95f0e"))
            data[stage]["gradient"] = [{"stop": stop, "bgColor": color} for stop, color in colors]
    return json.dumps(data, indent=1) + "\n"


def _explorer_node(
    name: str, label: str, namespace: str, attributes: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "id": name,
        "label": label,
        "namespace": namespace,
        "attrs": [{"key": key, "value": text} for key, text in attributes.items() if text],
        "incomingEdges": [],
        "inputsMetadata": [],
        "outputsMetadata": [],
    }


def _makers(stage: Stage) -> dict[str, tuple[str, int]]:
    """For each value that is no constant the node that makes it, and as which of its results."""
    made = {stage.names[value]: (stage.names[value], 0) for value in stage.graph.inputs}
    for row in stage.nodes:
        made |= {name: (row.name, number) for number, name in enumerate(row.outputs)}
    return made
