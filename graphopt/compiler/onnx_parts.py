"""A compiled model of which some nodes stay in torch as an ONNX file.

What torch runs becomes plain ONNX, by torch's own exporter; each compiled part becomes a node
`graphopt::Run`. It has no plain form: what a part computes is no module that torch exports.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from graphopt.compiler.onnx_export import Exported, check_open, examples, name_of, open_dims
from graphopt.compiler.program import Program, Signature
from graphopt.dependencies import require
from graphopt.errors import GraphoptError, OnnxExportError, OnnxPartsError
from graphopt.frontend.import_torch import TORCH_DTYPES
from graphopt.hosts.onnxruntime import add_library, add_package, packages_folder, plain_form
from graphopt.hosts.torch_ops import evaluate_symbolic, sizes_of
from graphopt.progress import announce
from graphopt.runtime import structure

if TYPE_CHECKING:
    import onnx

Run = Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]


@dataclass(frozen=True)
class Parts:
    """The parts of a model.

    Attributes:
        exported: the model.
        left: ops that torch runs.
        programs: what is compiled, by the number that `graphopt::run` knows it by.
        run: the outputs of the model for its inputs, through `graphopt::run` and torch.
    """

    exported: Exported
    left: Sequence[str]
    programs: Mapping[int, Program]
    run: Run


def write_parts(path: str | os.PathLike[str], parts: Parts, plain: bool | None) -> None:
    """Writes the file and what lies beside it; see `OptimizedModule.to_onnx`.

    Args:
        path: of the file.
        parts: the model.
        plain: as there; with True an OnnxExportError.
    """
    require("onnx", "OptimizedModule.to_onnx")
    require("onnxscript", "an ONNX file of a model of which nodes stay in torch")
    from graphopt.hosts.onnx_file import OnnxFile, Region, type_info, value_info

    exported = parts.exported
    graph, target = exported.graph, exported.target
    folder = packages_folder(path)
    plain_form(lambda: _refuse(parts), plain)
    made = _export(parts)
    opsets = {entry.domain: entry.version for entry in made.opset_import}
    file = OnnxFile(graph.name, folder.name, opsets)
    file.add_functions(made.functions)
    whole, nodes = name_of(exported), []
    types: list[onnx.ValueInfoProto] = []
    for node in made.graph.node:
        if node.domain != _DOMAIN:
            nodes.append(node)
            continue
        program = parts.programs[node.attribute[0].i]
        name = hashlib.sha256(f"{whole} {len(nodes)}".encode()).hexdigest()[:32]
        ports, said = _ports(program)
        add_package(folder, name, target, lambda p, g=program, s=ports: g.write(p, s))  # type: ignore[misc]
        nodes.append(file.node(Region(name, node.input, node.output, said)))
        types += map(type_info, node.output, program.graph.outputs)
    add_library(folder, target.arch)
    file.write(
        Path(path),
        nodes,
        [value_info(value.name, value) for value in graph.inputs],
        list(map(value_info, exported.output_names, graph.outputs)),
        made.graph.initializer,
        [info for info in types if info.name not in exported.output_names],
    )


_DOMAIN = "graphopt"
_TYPES = (
    *("float", "double", "float16", "bfloat16", "bool"),
    *("uint8", "int8", "int16", "int32", "int64"),
)


def _refuse(parts: Parts) -> None:
    name, left = parts.exported.graph.name, ", ".join(parts.left)
    raise OnnxExportError(name, f"torch runs {left}, and what is compiled around it has none")


def _ports(program: Program) -> tuple[Signature, str]:
    """How the package of a part is called, with tensors in order, and what its node says of it."""
    from graphopt.hosts.onnx_file import signature_of

    inputs = [(value.name, value) for value in program.graph.inputs]
    outputs = [(f"output{i}", value) for i, value in enumerate(program.graph.outputs)]
    taken, made = (tuple(map(structure.Leaf, range(len(ports)))) for ports in (inputs, outputs))
    names, results = (tuple(name for name, _ in ports) for ports in (inputs, outputs))
    return Signature((taken, {}), made, names, results), signature_of(inputs, outputs)


def run_as_node(program: Program, inputs: list[torch.Tensor]) -> Sequence[torch.Tensor]:
    """The node of a compiled part, while `torch.onnx.export` traces what it is in.

    Its package lies in the cache of this machine, and the node names it by its path.

    Args:
        program: the part.
        inputs: fake tensors.

    Returns:
        Fake tensors, which stand for what the node makes.

    Raises:
        OnnxExportError: if data decide the size of a result, which no such node can say.
    """
    from graphopt.runtime.library import ABI_VERSION

    graph, target = program.graph, program.options.target
    if any(info.bound is not None for info in graph.dims.values()):
        raise OnnxExportError(graph.name, "torch.onnx.export needs sizes that data decide")
    digest = hashlib.sha256(program.module.source.encode())
    with program.weights_file(program.module).open("rb") as weights:
        digest.update(hashlib.file_digest(weights, "sha256").digest())
    folder, name = program.manager.config.cache / "packages", digest.hexdigest()[:32]
    ports, said = _ports(program)
    place = add_package(folder, name, target, lambda path: program.write(path, ports))
    sizes = sizes_of(graph, inputs)
    return torch.onnx.ops.symbolic_multi_out(
        "graphopt::Run",
        inputs,
        {"package": str(place), "folder": "", "interface": ABI_VERSION, "signature": said},
        dtypes=[TORCH_DTYPES[value.dtype] for value in graph.outputs],
        shapes=[[evaluate_symbolic(e, sizes) for e in value.shape] for value in graph.outputs],
        version=1,
    )


class _Whole(torch.nn.Module):
    """The model as a function of its tensors."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self._run(list(tensors)))


def _export(parts: Parts) -> onnx.ModelProto:
    """What torch makes of it, with a node for each compiled part.

    Raises:
        OnnxPartsError: if torch does not export it.
    """
    graph = parts.exported.graph
    announce(f"{graph.name}: what torch runs in plain ONNX")

    def translate(program: int, inputs: Sequence[Any]) -> Any:
        return _placeholder(program, len(parts.programs[program].graph.outputs))(*inputs)

    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                _Whole(parts.run),
                tuple(examples(graph)),
                dynamic_shapes=(tuple(open_dims(graph)),),
                strict=False,
            )
            check_open(program, graph.name, graph.inputs)
            made: Any = torch.onnx.export(
                program,
                input_names=[value.name for value in graph.inputs],
                output_names=list(parts.exported.output_names),
                custom_translation_table={torch.ops.graphopt.run.default: translate},
                opset_version=18,
                verbose=False,
            )
            model: onnx.ModelProto = made.model_proto
    except GraphoptError:
        raise
    except Exception as error:
        while error.__cause__ is not None:
            error = error.__cause__  # type: ignore[assignment]
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OnnxPartsError(graph.name, parts.left, f"{reason:.300}") from error
    return model


def _placeholder(program: int, outputs: int) -> Callable[..., Any]:
    """Makes a node of the exporter that stands for a compiled part."""
    from onnx.defs import OpSchema
    from onnxscript import values

    parameter, option = OpSchema.FormalParameter, OpSchema.FormalParameterOption
    types = [f"tensor({name})" for name in _TYPES]
    names = [f"T{i}" for i in range(outputs)]
    schema = OpSchema(
        "Run",
        _DOMAIN,
        1,
        inputs=[
            parameter("x", "T", param_option=option.Variadic, is_homogeneous=False, min_arity=0)
        ],
        outputs=[parameter(name.lower(), name) for name in names],
        type_constraints=[(name, types, "") for name in ("T", *names)],
        attributes=[OpSchema.Attribute("program", OpSchema.AttrType.INT)],
    )
    op = values.Op(values.Opset(_DOMAIN, 1), schema.name, schema)

    def make(*inputs: Any) -> Any:
        made = op(*inputs, program=program)
        return made if outputs > 1 else [made]

    return make
