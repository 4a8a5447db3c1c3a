"""A compiled model as an ONNX file: a node `graphopt::Run`, and the model in plain ONNX.

model_opt.onnx                 one node, and a function of the same name that computes the same
model_opt.graphopt/            what the node runs, beside the file
onnxruntime-<arch>.so          the op, for onnxruntime on this architecture
<name>-<arch>-<target>/        a package; <name> is that of the model and its weights, so that
                               those for several targets lie beside one file
"""

from __future__ import annotations

import hashlib
import inspect
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.utils._pytree as pytree

from graphopt.dependencies import require
from graphopt.errors import OnnxExportError
from graphopt.frontend.call_spec import CallSpec
from graphopt.frontend.import_torch import TORCH_DTYPES
from graphopt.hosts.onnxruntime import (
    MOST_BYTES,
    add_library,
    add_package,
    packages_folder,
    plain_form,
)
from graphopt.ir import Graph, Value
from graphopt.ir.symbolic import evaluate
from graphopt.progress import announce
from graphopt.target import Target

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Exported:
    """A model that is written.

    Attributes:
        model: the user's, of which the plain form is made.
        call: how it is called.
        graph: as it is compiled, for its inputs and outputs.
        output_names: names of the outputs.
        captured: the text of the graph as it was captured.
        target: what it is compiled for.
    """

    model: torch.nn.Module
    call: CallSpec
    graph: Graph
    output_names: Sequence[str]
    captured: str
    target: Target


def weights_of(model: torch.nn.Module) -> list[tuple[int, int]]:
    """What tells the weights of a model from others: which tensors, and how often written to."""
    tensors = model.state_dict(keep_vars=True).values()
    return [
        (id(t), 0 if t.is_inference() else t._version)
        for t in tensors
        if isinstance(t, torch.Tensor) and not torch.nn.parameter.is_lazy(t)
    ]


def write_onnx(
    path: str | os.PathLike[str],
    exported: Exported,
    write_package: Callable[[Path], None],
    plain: bool | None,
) -> None:
    """Writes the file and what lies beside it; see `OptimizedModule.to_onnx`.

    Args:
        path: of the file.
        exported: the model.
        write_package: writes its package into a new folder.
        plain: whether with the plain form.
    """
    require("onnx", "OptimizedModule.to_onnx")
    from graphopt.hosts.onnx_file import OnnxFile, Region, signature_of, value_info

    folder, target, graph = packages_folder(path), exported.target, exported.graph
    body = plain_form(lambda: _export(exported), plain)
    name = name_of(exported)
    add_package(folder, name, target, write_package)
    add_library(folder, target.arch)
    inputs = [(value.name, value) for value in graph.inputs]
    outputs = list(zip(exported.output_names, graph.outputs, strict=True))
    region = Region(
        name,
        [name for name, _ in inputs],
        exported.output_names,
        signature_of(inputs, outputs),
        body,
    )
    file = OnnxFile(graph.name, folder.name, {})
    node = file.node(region)
    ports = [[value_info(*port) for port in ports] for ports in (inputs, outputs)]
    file.write(Path(path), [node], *ports)


def name_of(exported: Exported) -> str:
    """A digest of what is computed, whatever it is compiled for."""
    digest = hashlib.sha256(exported.captured.encode())
    for name, tensor in exported.model.state_dict(keep_vars=True).items():
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:32]


def _bytes(tensor: Any) -> Any:
    if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
        return repr(tensor).encode()
    return np.asarray(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8))


def _export(exported: Exported) -> onnx.ModelProto:
    require("onnxscript", "the plain form of an ONNX file")
    name, inputs = exported.graph.name, exported.graph.inputs
    announce(f"{name}: the model in plain ONNX")
    held = sum(t.numel() * t.element_size() for t in exported.model.state_dict().values())
    if held > MOST_BYTES:
        raise OnnxExportError(name, f"its weights have {held} bytes, too many for one ONNX file")
    args, kwargs = _arranged(exported.call, examples(exported.graph))
    dims = open_dims(exported.graph)
    signature = inspect.signature(exported.model.forward)
    specs, named = _arranged(exported.call, dims, without_constants=True)
    shapes = dict(signature.bind(*specs, **named).arguments)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                exported.model, args, kwargs, dynamic_shapes=shapes, strict=False
            )
            check_open(program, name, inputs)
            made: Any = torch.onnx.export(program, opset_version=18, verbose=False)
            model: onnx.ModelProto = made.model_proto
    except OnnxExportError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OnnxExportError(name, f"torch does not export it ({reason:.300})") from error
    counts = len(model.graph.input), len(model.graph.output)
    if counts != (len(inputs), len(exported.graph.outputs)):
        raise OnnxExportError(
            name,
            f"torch exports it with {counts[0]} inputs and {counts[1]} "
            f"outputs, and it has {len(inputs)} and {len(exported.graph.outputs)}",
        )
    return model


def examples(graph: Graph) -> list[torch.Tensor]:
    """Inputs of a graph, of the sizes that it was captured with."""
    hints = graph.hints()
    return [
        torch.zeros([evaluate(e, hints) for e in v.shape], dtype=TORCH_DTYPES[v.dtype])
        for v in graph.inputs
    ]


def open_dims(graph: Graph) -> list[dict[int, Any]]:
    """Which sizes of the inputs of a graph are open, for torch.export."""
    fixed, free = torch.export.Dim.STATIC, torch.export.Dim.AUTO
    return [
        {axis: fixed if isinstance(extent, int) else free for axis, extent in enumerate(v.shape)}
        for v in graph.inputs
    ]


def check_open(program: Any, name: str, inputs: Sequence[Value]) -> None:
    """Compares the sizes that are open in what torch exported and in what was compiled.

    Args:
        program: of torch.export.
        name: of the model.
        inputs: of the compiled graph.

    Raises:
        OnnxExportError: if torch fixes one.
    """
    given = [
        node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    ]
    for value, tensor in zip(inputs, given, strict=False):
        for axis, extent in enumerate(value.shape):
            if not isinstance(extent, int) and isinstance(tensor.shape[axis], int):
                raise OnnxExportError(
                    name, f"torch fixes the size of {value.name} along axis {axis} in it"
                )


def _arranged(call: CallSpec, leaves: Sequence[Any], without_constants: bool = False) -> Any:
    """Positional and keyword arguments of a call, with something for each tensor."""
    rest = iter(leaves)
    flat = [
        (None if without_constants else call.constants[i]) if i in call.constants else next(rest)
        for i in range(call.in_spec.num_leaves)
    ]
    return pytree.tree_unflatten(flat, call.in_spec)
