"""Opens ONNX models: a path or a `ModelProto`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import external_data_helper

from graphopt.errors import OnnxModelError
from graphopt.onnx.tensors import array_of
from graphopt.plain_files import read_plain

NEWEST_OPSET = 28
"""Of the domain of ONNX itself: what the table was written and tried with."""

_MOST_BYTES = (1 << 31) - 1  # of a protobuf


@dataclass(frozen=True)
class Model:
    """An ONNX model and where it is from.

    Attributes:
        proto: the model.
        name: for reports and errors.
        path: its file; None if it is in none.
    """

    proto: onnx.ModelProto
    name: str
    path: Path | None = None

    @property
    def folder(self) -> Path | None:
        """Where its files of external data lie."""
        return None if self.path is None else self.path.parent

    def whole(self) -> onnx.ModelProto:
        """The model, with the elements that lie in files.

        Raises:
            OnnxModelError: if they cannot be read.
        """
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        for tensor in proto.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                array_of(tensor, self.folder, self.name)  # refuses what lies elsewhere
                external_data_helper.load_external_data_for_tensor(tensor, str(self.folder))
                tensor.data_location = onnx.TensorProto.DEFAULT
                del tensor.external_data[:]
        return proto

    @property
    def opsets(self) -> dict[str, int]:
        """The version of each domain of ops that it uses."""
        return {_domain(o.domain): o.version for o in self.proto.opset_import}


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def open_model(source: str | Path | onnx.ModelProto) -> Model:
    """An ONNX model, checked in the large.

    Raises:
        OnnxModelError: if it cannot be read, or is no model.
    """
    if isinstance(source, onnx.ModelProto):
        model = Model(source, source.graph.name or "model")
    else:
        path = Path(source)
        try:
            content = read_plain(path, _MOST_BYTES)
        except OSError as error:
            raise OnnxModelError(path, f"{error.strerror or error}") from error
        try:
            proto = onnx.ModelProto.FromString(content)
        except Exception as error:  # the parser's own type lies in one of several packages
            raise OnnxModelError(path, f"it is no protobuf of ONNX ({error})") from error
        model = Model(proto, path.stem, path)
    _check(model)
    return model


def _check(model: Model) -> None:
    proto = model.proto
    if not proto.graph.node and not proto.graph.output:
        raise OnnxModelError(model.name, "it has no graph")
    if not proto.opset_import:
        raise OnnxModelError(model.name, "it does not say the version of its ops")
    wrong = next((n for n in _names(proto) if isinstance(n, bytes)), None)
    if wrong is not None:
        raise OnnxModelError(model.name, f"the name {wrong!r} is no UTF-8")
    version = model.opsets.get("", 0)
    if version > NEWEST_OPSET:
        why = f"it uses opset {version}; graphopt knows ONNX up to opset {NEWEST_OPSET}"
        raise OnnxModelError(model.name, why)


def _names(proto: onnx.ModelProto) -> Iterator[object]:
    """All names of a model: texts, or bytes where protobuf finds no UTF-8."""
    yield from _graph_names(proto.graph)
    yield from (entry.domain for entry in proto.opset_import)
    for function in proto.functions:
        yield from (function.name, function.domain, *function.input, *function.output)
        yield from (*function.attribute, *(entry.domain for entry in function.opset_import))
        yield from _node_names(function.node)


def _graph_names(graph: onnx.GraphProto) -> Iterator[object]:
    yield graph.name
    yield from (tensor.name for tensor in graph.initializer)
    for info in (*graph.input, *graph.output, *graph.value_info):
        yield info.name
        yield from (dim.dim_param for dim in info.type.tensor_type.shape.dim)
    yield from _node_names(graph.node)


def _node_names(nodes: Iterable[onnx.NodeProto]) -> Iterator[object]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            for graph in (attribute.g, *attribute.graphs):
                yield from _graph_names(graph)
