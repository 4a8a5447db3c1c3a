"""ONNX files with nodes that are packages: `graphopt::Run`, and what they compute in plain ONNX."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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


MOST_PLAIN = 64
"""Nodes of a file that have a plain form each: names of the op, as in kernels/onnxruntime."""


@dataclass(frozen=True)
class Region:
    """What a node stands for.

    Attributes:
        package: the name of its package in the folder beside the file.
        inputs: names of the tensors that it takes.
        outputs: names of the tensors that it makes.
        signature: their types, shapes and names; see `signature_of`.
        body: the same in plain ONNX, for runtimes that do not know the node.
    """

    package: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    signature: str
    body: onnx.ModelProto | None = None


class OnnxFile:
    """A file in the making.

    Args:
        name: of the graph.
        folder: the name of the folder of packages beside it.
        opsets: versions of the domains that its nodes are of.
        ir_version: of the file.
    """

    def __init__(
        self, name: str, folder: str, opsets: Mapping[str, int], ir_version: int = IR_VERSION
    ) -> None:
        self._name, self._folder, self._ir_version = name, folder, ir_version
        self._opsets = {"": OPSET} | dict(opsets) | {DOMAIN: 1}
        self._functions: dict[tuple[str, str], onnx.FunctionProto] = {}
        self._count = 0

    def node(self, region: Region) -> onnx.NodeProto:
        """A node, whose plain form becomes a function of the file."""
        name = "Run"
        if region.body is not None and self._count:
            name = f"Run{self._count}"
        node = helper.make_node(
            name,
            list(region.inputs),
            list(region.outputs),
            name=f"{self._name}_{region.package[:8]}",
            domain=DOMAIN,
            package=region.package,
            folder=self._folder,
            interface=ABI_VERSION,
            signature=region.signature,
        )
        if region.body is not None:
            self._count += 1
            self.add_functions([_function(node, region.body), *region.body.functions])
        return node

    def add_functions(self, functions: Iterable[onnx.FunctionProto]) -> None:
        """Adds functions that nodes are calls of."""
        for function in functions:
            self._functions[function.domain, function.name] = function
            self._opsets.setdefault(function.domain, 1)

    def write(
        self,
        path: Path,
        nodes: Sequence[onnx.NodeProto],
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        constants: Sequence[onnx.TensorProto] = (),
        between: Sequence[onnx.ValueInfoProto] = (),
    ) -> None:
        """Writes it.

        Args:
            path: the file, which is replaced.
            nodes: in the order in which they run.
            inputs: of the graph.
            outputs: of the graph.
            constants: initializers.
            between: types of what nodes `graphopt::Run` make (`type_info`).

        Raises:
            StorageError: if it cannot be written.
        """
        graph = helper.make_graph(nodes, self._name, inputs, outputs, constants, value_info=between)
        model = helper.make_model(
            graph,
            ir_version=self._ir_version,
            opset_imports=[helper.make_opsetid(*pair) for pair in self._opsets.items()],
            functions=list(self._functions.values()),
        )
        scratch = path.with_name(f".{path.name}.new")
        try:
            scratch.write_bytes(model.SerializeToString())
            scratch.replace(path)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise StorageError(path, error.strerror or error, "the path") from error


def signature_of(inputs: Sequence[tuple[str, Value]], outputs: Sequence[tuple[str, Value]]) -> str:
    """Types, shapes and names, as kernels/onnxruntime/signature.h reads them."""
    taken, made = (", ".join(_described(v, n) for n, v in ports) for ports in (inputs, outputs))
    return f"{taken} -> {made}" if taken else f"-> {made}"


def value_info(name: str, value: Value) -> onnx.ValueInfoProto:
    """Type and shape of a tensor between nodes."""
    shape = [e if isinstance(e, int) else str(e) for e in value.shape]
    return helper.make_tensor_value_info(name, _TYPES[value.dtype], shape)


def type_info(name: str, value: Value) -> onnx.ValueInfoProto:
    """The type of a tensor between nodes, which onnxruntime 1.17 does not learn from the op."""
    return helper.make_tensor_value_info(name, _TYPES[value.dtype], None)


def _function(node: onnx.NodeProto, body: onnx.ModelProto) -> onnx.FunctionProto:
    """A model as the meaning of a node; its weights become constants."""
    graph = body.graph
    constants = [
        helper.make_node("Constant", [], [weight.name], value=weight)
        for weight in graph.initializer
    ]
    held = {weight.name for weight in graph.initializer}
    inputs = [i.name for i in graph.input if i.name not in held]
    made = {name for inner in graph.node for name in inner.output}
    outputs, copies = [], []
    for number, port in enumerate(graph.output):
        outputs.append(port.name)
        if port.name not in made or port.name in outputs[:-1]:  # a function makes each of its own
            outputs[-1] = f"{port.name}_as_output{number}"
            copies.append(helper.make_node("Identity", [port.name], outputs[-1:]))
    return helper.make_function(
        node.domain,
        node.op_type,
        inputs,
        outputs,
        [*constants, *graph.node, *copies],
        body.opset_import,
        [attribute.name for attribute in node.attribute],
        doc_string="What graphopt compiled, in plain ONNX: right, and as slow as that is.",
    )


def _described(value: Value, name: str) -> str:
    dims = [_short(str(e)) if isinstance(e, int) or e.is_Symbol else "?" for e in value.shape]
    return f"{value.dtype.value}[{','.join(dims)}] {re.sub('[^A-Za-z0-9_.]', '_', name)[:60]}"


def _short(dim: str) -> str:
    """A dim's name in as many letters as a signature may have, and no other's."""
    return dim if len(dim) <= 60 else f"{dim[:50]}_{zlib.crc32(dim.encode()):08x}"
