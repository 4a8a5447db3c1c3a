"""ONNX files whose nodes are packages: one `graphopt::Run`, and what it computes in plain ONNX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from graphopt.errors import StorageError
from graphopt.ir import DType, Value
from graphopt.runtime.library import ABI_VERSION

DOMAIN = "graphopt"
#: What onnxruntime 1.17 reads, and everything newer.
IR_VERSION, OPSET = 8, 18
_TYPES = {
    DType.F32: onnx.TensorProto.FLOAT,
    DType.BF16: onnx.TensorProto.BFLOAT16,
    DType.F64: onnx.TensorProto.DOUBLE,
    DType.BOOL: onnx.TensorProto.BOOL,
    DType.U8: onnx.TensorProto.UINT8,
    DType.I8: onnx.TensorProto.INT8,
    DType.I16: onnx.TensorProto.INT16,
    DType.I32: onnx.TensorProto.INT32,
    DType.I64: onnx.TensorProto.INT64,
    DType.F16: onnx.TensorProto.FLOAT16,
}


@dataclass(frozen=True)
class Region:
    """What a node stands for.

    Attributes:
        package: the name of its package in the folder beside the file.
        folder: the name of that folder.
        inputs: values that it takes.
        outputs: values that it makes.
        output_names: their names.
    """

    package: str
    folder: str
    inputs: Sequence[Value]
    outputs: Sequence[Value]
    output_names: Sequence[str]

    @property
    def signature(self) -> str:
        """Types, shapes and names, as kernels/onnxruntime/signature.h reads them."""
        taken = ", ".join(_described(v, v.name) for v in self.inputs)
        made = ", ".join(map(_described, self.outputs, self.output_names))
        return f"{taken} -> {made}" if taken else f"-> {made}"


def write_model(path: Path, name: str, region: Region, body: onnx.ModelProto | None) -> None:
    """Writes a model of one node.

    Args:
        path: the file, which is replaced.
        name: of the graph.
        region: the node.
        body: the same in plain ONNX, for runtimes that do not know the node.

    Raises:
        StorageError: if it cannot be written.
    """
    node = helper.make_node(
        "Run",
        [v.name for v in region.inputs],
        list(region.output_names),
        name=name,
        domain=DOMAIN,
        package=region.package,
        folder=region.folder,
        interface=ABI_VERSION,
        signature=region.signature,
    )
    graph = helper.make_graph(
        [node],
        name,
        [_value_info(v, v.name) for v in region.inputs],
        list(map(_value_info, region.outputs, region.output_names)),
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    functions = [] if body is None else [_function(node, body), *body.functions]
    domains = {f.domain for f in functions} - {DOMAIN}
    opsets += [helper.make_opsetid(domain, 1) for domain in sorted(domains)]
    model = helper.make_model(
        graph, ir_version=IR_VERSION, opset_imports=opsets, functions=functions
    )
    scratch = path.with_name(f".{path.name}.new")
    try:
        scratch.write_bytes(model.SerializeToString())
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise StorageError(path, error.strerror or error, "the path") from error


def _function(node: onnx.NodeProto, body: onnx.ModelProto) -> onnx.FunctionProto:
    """A model as the meaning of a node; its weights become constants."""
    graph = body.graph
    constants = [
        helper.make_node("Constant", [], [weight.name], value=weight)
        for weight in graph.initializer
    ]
    inputs, outputs = [i.name for i in graph.input], [o.name for o in graph.output]
    return helper.make_function(
        node.domain,
        node.op_type,
        inputs,
        outputs,
        [*constants, *graph.node],
        body.opset_import,
        [attribute.name for attribute in node.attribute],
        doc_string="What graphopt compiled, in plain ONNX: right, and as slow as that is.",
    )


def _described(value: Value, name: str) -> str:
    dims = [str(e) if isinstance(e, int) or e.is_Symbol else "?" for e in value.shape]
    return f"{value.dtype.value}[{','.join(dims)}] {re.sub('[^A-Za-z0-9_.]', '_', name)[:60]}"


def _value_info(value: Value, name: str) -> Any:
    shape = [e if isinstance(e, int) else str(e) for e in value.shape]
    return helper.make_tensor_value_info(name, _TYPES[value.dtype], shape)
