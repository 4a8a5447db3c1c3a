"""Small ONNX models, written as text of the onnx package's own language."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from graphopt.onnx.files import Model
from graphopt.onnx.importer import Imported, compiled_graph

Array = np.ndarray[Any, Any]


def model(body: str, opset: int = 18, **initializers: Array) -> onnx.ModelProto:
    """A model of a graph in text, such as `m (float[B, 4] x) => (float[B] y) { ... }`."""
    text = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]> {body}'
    made = onnx.parser.parse_model(text)
    for name, array in initializers.items():
        made.graph.initializer.append(numpy_helper.from_array(array, name))
    return made


def imported(body: str, opset: int = 18, **initializers: Array) -> Imported:
    """The graph of such a model."""
    return compiled_graph(Model(model(body, opset, **initializers), "m"))
