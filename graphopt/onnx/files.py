"""Opens ONNX models: a path or a `ModelProto`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx

from graphopt.errors import OnnxModelError

NEWEST_OPSET = 28
"""Of the domain of ONNX itself: what the table was written and tried with."""


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
            if path.exists() and not path.is_file():
                raise OnnxModelError(path, "it is no plain file")
            content = path.read_bytes()
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
    for nodes in (proto.graph.node, *(f.node for f in proto.functions)):
        _check_names(model.name, nodes)
    version = model.opsets.get("", 0)
    if version > NEWEST_OPSET:
        why = f"it uses opset {version}; graphopt knows ONNX up to opset {NEWEST_OPSET}"
        raise OnnxModelError(model.name, why)


def _check_names(model: str, nodes: Iterable[onnx.NodeProto]) -> None:
    """OnnxModelError for a name that is no UTF-8, which protobuf gives as bytes."""
    for node in nodes:
        names = (node.name, node.op_type, node.domain, *node.input, *node.output)
        attributes = node.attribute
        wrong = (n for n in (*names, *(a.name for a in attributes)) if isinstance(n, bytes))
        if (name := next(wrong, None)) is not None:
            raise OnnxModelError(model, f"the name {name!r} is no UTF-8")
        for attribute in attributes:
            for graph in (attribute.g, *attribute.graphs):
                _check_names(model, graph.node)
