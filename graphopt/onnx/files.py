"""Opens ONNX models: a path or a `ModelProto`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from graphopt.errors import OnnxModelError

ENDING = ".onnx"
NEWEST_OPSET = 28
"""Of the domain of ONNX itself: what the table was written and tried with."""


@dataclass(frozen=True)
class Model:
    """An ONNX model and where it is from.

    Attributes:
        proto: the model.
        name: for reports and errors.
        folder: where its files of external data lie; None if it is in no file.
    """

    proto: onnx.ModelProto
    name: str
    folder: Path | None

    @property
    def opsets(self) -> dict[str, int]:
        """The version of each domain of ops that it uses."""
        return {_domain(o.domain): o.version for o in self.proto.opset_import}


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def is_onnx(model: Any) -> bool:
    """Whether something is a `ModelProto` or the name of an ONNX file; imports nothing."""
    if isinstance(model, str | Path):
        return Path(model).suffix == ENDING
    kind = type(model)
    return kind.__name__ == "ModelProto" and kind.__module__.split(".")[0] in (
        "onnx",
        "onnx_ml_pb2",
    )


def open_model(source: str | Path | onnx.ModelProto) -> Model:
    """An ONNX model, checked in the large.

    Raises:
        OnnxModelError: if it cannot be read, or is no model.
    """
    if isinstance(source, onnx.ModelProto):
        model = Model(source, source.graph.name or "model", None)
    else:
        path = Path(source)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise OnnxModelError(path, f"{error.strerror or error}") from error
        try:
            proto = onnx.ModelProto.FromString(content)
        except Exception as error:  # the parser's own type lies in one of several packages
            raise OnnxModelError(path, f"it is no protobuf of ONNX ({error})") from error
        model = Model(proto, path.stem, path.parent)
    _check(model)
    return model


def _check(model: Model) -> None:
    proto = model.proto
    if not proto.graph.node and not proto.graph.output:
        raise OnnxModelError(model.name, "it has no graph")
    if not proto.opset_import:
        raise OnnxModelError(model.name, "it does not say the version of its ops")
    version = model.opsets.get("", 0)
    if version > NEWEST_OPSET:
        why = f"it uses opset {version}; graphopt knows ONNX up to opset {NEWEST_OPSET}"
        raise OnnxModelError(model.name, why)
