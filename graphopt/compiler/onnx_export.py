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
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.utils._pytree as pytree

from graphopt.dependencies import require
from graphopt.errors import GraphoptError, OnnxExportError, StorageError
from graphopt.frontend.call_spec import CallSpec
from graphopt.frontend.import_torch import TORCH_DTYPES
from graphopt.hosts.onnxruntime import build_library, library_name, packages_folder
from graphopt.ir import Graph, Value
from graphopt.ir.symbolic import evaluate
from graphopt.progress import announce
from graphopt.runtime.package import MARKS
from graphopt.runtime.staging import replaced_folder
from graphopt.target import Target

if TYPE_CHECKING:
    import onnx

#: A file of protobuf holds no more.
_MOST_BYTES = 2**31 - 2**20


class PlainFormWarning(UserWarning):
    """An ONNX file that stock onnxruntime cannot run, because the model has no plain form."""


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
    from graphopt.hosts.onnx_file import Region, write_model

    folder, target = packages_folder(path), exported.target
    body = None if plain is False else _plain_form(exported, required=bool(plain))
    name = _name_of(exported)
    with replaced_folder(folder / f"{name}-{target.arch}-{target.name}", MARKS) as staging:
        write_package(staging)
    _copy_library(target.arch, folder)
    graph = exported.graph
    region = Region(name, folder.name, graph.inputs, graph.outputs, exported.output_names)
    write_model(Path(path), graph.name, region, body)


def _copy_library(arch: str, folder: Path) -> None:
    """Puts the op beside the packages; sessions that have it open keep the old file."""
    place = folder / library_name(arch)
    scratch = place.with_name(f".{place.name}.new")
    try:
        shutil.copyfile(build_library(arch), scratch)
        scratch.replace(place)
    except OSError as error:
        raise StorageError(place, error.strerror or error, "the path") from error


def _name_of(exported: Exported) -> str:
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


def _plain_form(exported: Exported, required: bool) -> onnx.ModelProto | None:
    """The model in plain ONNX; without one a warning, or the error if it is required."""
    try:
        return _export(exported)
    except GraphoptError as refusal:
        if required:
            raise
        text = f"{refusal}; onnxruntime runs the file with graphopt.ort_session_options alone"
        warnings.warn(text, PlainFormWarning, stacklevel=5)
        return None


def _export(exported: Exported) -> onnx.ModelProto:
    require("onnxscript", "the plain form of an ONNX file")
    name, inputs = exported.graph.name, exported.graph.inputs
    announce(f"{name}: the model in plain ONNX")
    held = sum(t.numel() * t.element_size() for t in exported.model.state_dict().values())
    if held > _MOST_BYTES:
        raise OnnxExportError(name, f"its weights have {held} bytes, too many for one ONNX file")
    hints = exported.graph.hints()
    tensors = [
        torch.zeros([evaluate(e, hints) for e in v.shape], dtype=TORCH_DTYPES[v.dtype])
        for v in inputs
    ]
    args, kwargs = _arranged(exported.call, tensors)
    dims = [
        {
            axis: torch.export.Dim.STATIC if isinstance(extent, int) else torch.export.Dim.AUTO
            for axis, extent in enumerate(value.shape)
        }
        for value in inputs
    ]
    signature = inspect.signature(exported.model.forward)
    specs, named = _arranged(exported.call, dims, without_constants=True)
    shapes = dict(signature.bind(*specs, **named).arguments)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                exported.model, args, kwargs, dynamic_shapes=shapes, strict=False
            )
            _check_open(program, name, inputs)
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


def _check_open(program: Any, name: str, inputs: Sequence[Value]) -> None:
    """Raises OnnxExportError if torch fixes a size that is open in what was compiled."""
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
