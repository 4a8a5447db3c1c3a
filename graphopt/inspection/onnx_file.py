"""A stage as an ONNX file, for viewers: no runtime knows ops of the domain `graphopt`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graphopt.compiler.stages import Stage, StageNode
from graphopt.errors import StorageError
from graphopt.ir import DType, Value
from graphopt.printable import printable

_INLINE = 2**30
"""Bytes of constants up to which they lie in the file itself, which holds at most 2^31."""


def write_onnx(stage: Stage, path: Path) -> None:
    """Writes a stage as an ONNX file, to look at: no runtime knows ops of the domain `graphopt`.

    Args:
        stage: the graph. Its constants are initializers.
        path: of the file; constants of more than a gibibyte lie beside it, in `<path>.data`.

    Raises:
        StorageError: if it cannot be written.
    """
    model = to_onnx(stage)
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    try:
        if size > _INLINE:
            Path(f"{path}.data").unlink(missing_ok=True)
            onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")
        else:
            onnx.save(model, path)
    except OSError as error:
        raise StorageError(path, error.strerror or error, "the path") from error


def to_onnx(stage: Stage) -> onnx.ModelProto:
    """A stage as an ONNX model: `go.linear` is `linear` of the domain `graphopt`.

    Nodes keep their names; where they come from and why they are as they are is their metadata.
    """
    names, graph = stage.names, stage.graph
    nodes = []
    for row in stage.nodes:
        domain, _, kind = row.node.op.name.partition(".")
        made = onnx.helper.make_node(
            kind,
            list(row.operands.values()),
            list(row.outputs),
            row.name,
            row.call,
            "graphopt" if domain == "go" else domain,
            **dict(_attributes(row)),
        )
        for key, text in _metadata(row):
            made.metadata_props.add(key=key, value=text)
        nodes.append(made)
    constants = [_tensor(names[value], value) for value in graph.constants()]
    made_values = [v for row in stage.nodes for v in row.node.outputs if v not in graph.outputs]
    held = onnx.helper.make_graph(
        nodes,
        printable(graph.name) or "graph",
        [_info(names[v], v) for v in graph.inputs],
        [_info(names[v], v) for v in graph.outputs],
        constants,
        f"after {stage.name}",
        [_info(names[v], v) for v in made_values],
    )
    domains = sorted({"", "graphopt", *(node.domain for node in nodes)})
    opsets = [onnx.helper.make_opsetid(domain, 1 if domain else 18) for domain in domains]
    return onnx.helper.make_model(
        held, producer_name="graphopt", opset_imports=opsets, ir_version=10
    )


def _attributes(row: StageNode) -> Iterator[tuple[str, Any]]:
    """Attributes of an op as ONNX has them: numbers, names and lists; all else as text."""
    op = row.node.op
    for field in dataclasses.fields(op):
        value = getattr(op, field.name)
        match value:
            case None:
                continue
            case bool():
                yield field.name, int(value)
            case int() | float() | str():
                yield field.name, value
            case tuple() if value and all(type(item) is int for item in value):
                yield field.name, list(value)
            case _:
                yield field.name, printable(str(value))
    if row.node.kernel:
        yield "kernel", row.node.kernel


def _metadata(row: StageNode) -> Iterator[tuple[str, str]]:
    origin = row.node.origin
    texts = {
        "module": origin.module,
        "source": origin.source,
        "code": origin.code,
        "roles": ", ".join(row.operands),
        "came_from": ", ".join(row.came_from),
        "reasons": "; ".join(row.node.reasons),
    }
    yield from ((key, printable(text)) for key, text in texts.items() if text)


def _element_type(dtype: DType) -> int:
    if dtype is DType.BF16:
        return int(onnx.TensorProto.BFLOAT16)
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype.numpy)))


def _info(name: str, value: Value) -> onnx.ValueInfoProto:
    shape = [extent if isinstance(extent, int) else str(extent) for extent in value.shape]
    return onnx.helper.make_tensor_value_info(name, _element_type(value.dtype), shape, value.packed)


def _tensor(name: str, value: Value) -> onnx.TensorProto:
    data = value.data
    assert data is not None
    tensor = onnx.TensorProto(name=name, data_type=_element_type(value.dtype), dims=data.shape)
    tensor.raw_data = np.ascontiguousarray(data).tobytes()
    return tensor
