"""Models as tools of this room take them: captured and planned, with every stage, not yet built.

On the command line MODEL is everywhere one of:

    fsmn-vad, resnet-50, ...    a model that graphopt knows
    module:function             a function that returns (model, example_inputs);
    file.py:function            or in a file
    model.onnx                  an ONNX file
    model.gguf                  a language model; or a directory of Hugging Face, or of Meta
    directory/                  a model directory of FunASR, with config.yaml
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.compiler.inspected import Inspected
from graphopt.compiler.options import Options, call_of
from graphopt.compiler.report import NodeReport
from graphopt.compiler.stages import Stage, Stages, keep_stages
from graphopt.dependencies import require
from graphopt.errors import InspectionError, OptionError
from graphopt.inspection.compiled import CompiledGraph
from graphopt.onnx.adapter import is_onnx
from graphopt.runtime.arrays import read_arguments
from graphopt.zoo.catalog import build_model

Array = np.ndarray[Any, Any]

_TOKENS = 16
"""Of a language model, where none are given: enough that positions and the cache matter."""


@dataclass(frozen=True, eq=False)
class Planned:
    """A graph that was planned for a target.

    Attributes:
        name: of the model, or of a part of a model directory.
        options: what it was planned for.
        stages: the graph after each pass.
        inputs: example inputs as the graph takes them; None if there are none.
        in_python: modules of the model that run in Python, around those that are compiled.
        compiled: the whole model, which is built with its first call.
        call: example arguments of such a call, positional and by keyword; None if there are none.
    """

    name: str
    options: Options
    stages: Stages
    inputs: list[Array] | None
    compiled: Inspected
    call: tuple[tuple[Any, ...], dict[str, Any]] | None
    in_python: tuple[NodeReport, ...] = ()

    @property
    def last(self) -> Stage:
        """The planned graph.

        Raises:
            InspectionError: if nodes stay in torch, between several compiled parts.
        """
        if len(self.stages.parts) != 1 or self.stages.parts[0][-1].step != "select_kernels":
            why = "nodes of it stay in torch, between compiled parts; graphopt optimize lists them"
            raise InspectionError(self.name, why)
        return self.stages.parts[0][-1]

    def example(self) -> list[Array]:
        """Inputs for a run.

        Raises:
            InspectionError: if there are none.
        """
        if self.inputs is None:
            raise InspectionError(self.name, "it comes without example inputs; give --inputs")
        return [array.copy() for array in self.inputs]


def planned(
    model: Any,
    target: str = "native",
    precision: str = "auto",
    example_inputs: tuple[Any, ...] | dict[str, Any] | None = None,
    **options: Any,
) -> list[Planned]:
    """Captures and plans a model, without building it; keeps the graph after each pass.

    Args:
        model: a torch module, or an ONNX model.
        target: as for `graphopt.optimize`.
        precision: as for `graphopt.optimize`.
        example_inputs: as for `graphopt.optimize`; a torch module needs them.
        options: more of `graphopt.optimize`.

    Returns:
        The graph; several where only submodules of the model could be captured.

    Raises:
        GraphoptError: as `graphopt.optimize`.
        InspectionError: for a torch module without example inputs.
    """
    given = {**options, "target": target, "precision": precision, "check": False}
    checked = Options.of(**given, example_inputs=example_inputs)
    if is_onnx(model):
        return _planned_onnx(model, checked)
    return _planned_module(type(model).__name__, model, checked)


@dataclass(frozen=True, eq=False)
class Named:
    """A MODEL of the command line, or a part of one, not captured yet.

    Attributes:
        name: of the model, or directory and part.
        model: a torch module; or the path of an ONNX file, or of a language model.
        example: its inputs; None if there are none. Of a language model tokens.
        kind: `module`, `onnx` or `decoder`.
    """

    name: str
    model: Any
    example: tuple[Any, ...] | None
    kind: str

    def planned(self, target: str, precision: str, num_threads: int | None = None) -> list[Planned]:
        """The graphs, planned; see `planned`."""
        if self.kind == "onnx":
            return planned(self.model, target, precision, self.example, num_threads=num_threads)
        given: dict[str, Any] = {"target": target, "precision": precision, "check": False}
        given["num_threads"] = num_threads
        if self.kind == "decoder":
            return [_planned_decoder(self.model, Options.of(**given), self.example)]
        return _planned_module(
            self.name, self.model, Options.of(**given, example_inputs=self.example)
        )


def named_models(name: str, inputs: Sequence[Path] = ()) -> list[Named]:
    """What a MODEL of the command line is: one model, or the parts of a directory of FunASR.

    Args:
        name: see the module.
        inputs: one .npz with all arguments, or one .npy for each, in place of the example inputs;
            of a language model its tokens.

    Raises:
        GraphoptError: if it is no model.
    """
    given = tuple(value for path in inputs for value in read_arguments(path)) or None
    path = Path(name)
    if path.suffix == ".gopt" or os.path.isfile(path / "manifest.json"):
        why = "it is a package; graphopt info tells what is in it, its folder passes has the graph"
        raise InspectionError(name, why)
    if is_onnx(name):
        return [Named(path.name, name, given, "onnx")]
    if path.suffix == ".gguf" or (os.path.isdir(path) and not os.path.isfile(path / "config.yaml")):
        return [Named(path.name, path, given, "decoder")]
    if os.path.isdir(path):
        if given is not None:
            raise InspectionError(name, "inputs of its parts are of graphopt's own making")
        return _parts(path)
    module, example = build_model(name)
    if given is not None:
        torch = require("torch", "inputs of a torch module")
        example = torch.utils._pytree.tree_map(torch.from_numpy, given)
    return [Named(name, module, example, "module")]


def one_of(models: Sequence[Named], part: str) -> Named:
    """The only model, or that part of a directory.

    Raises:
        OptionError: for a part that there is not, or none where there are several.
    """
    found = [one for one in models if not part or one.name.rpartition("/")[2] == part]
    if len(found) != 1:
        names = ", ".join(one.name.rpartition("/")[2] for one in models)
        raise OptionError("part", part, f"give one of {names}")
    return found[0]


def planned_by_name(
    name: str,
    target: str,
    precision: str,
    inputs: Sequence[Path] = (),
    num_threads: int | None = None,
) -> list[Planned]:
    """The graphs of a MODEL of the command line; see `named_models`.

    Args:
        name: see the module.
        target: as for `graphopt.optimize`.
        precision: as for `graphopt.optimize`.
        inputs: in place of the example inputs.
        num_threads: of a run; as for `graphopt.optimize`.

    Raises:
        GraphoptError: if it is no model, or cannot be compiled.
    """
    Options.of(target=target, precision=precision, num_threads=num_threads)
    models = named_models(name, inputs)
    return [graph for model in models for graph in model.planned(target, precision, num_threads)]


def compiled_by_name(
    name: str,
    target: str,
    precision: str,
    inputs: Sequence[Path] = (),
    num_threads: int | None = None,
) -> list[Planned]:
    """Each compiled model once, however many graphs it has; arguments as for `planned_by_name`."""
    found = planned_by_name(name, target, precision, inputs, num_threads)
    return list({id(one.compiled): one for one in reversed(found)}.values())[::-1]


def _planned_module(name: str, module: Any, options: Options) -> list[Planned]:
    example = options.example_inputs
    if example is None:
        raise InspectionError(name, "a torch module is captured with example inputs; give some")
    adapter = require("graphopt.compiler.adapter", name).ModuleAdapter()
    adapter.takes(module, options)
    kind, used = adapter.used(module, options.precision)
    options.refuse_unused(used, f"{kind} in {options.precision}")
    fast = require("graphopt.compiler.module", name).OptimizedModule(module, options)
    with keep_stages() as kept:
        fast.capture_example()
    in_python = tuple(row for row in fast.report().in_torch if row.kernel == "python")
    if in_python:
        rows = [in_python, *[()] * (len(kept) - 1)]  # once, whatever was captured
        pairs = zip(kept, rows, strict=True)
        call = call_of(example)
        return [Planned(s.name, options, s, None, fast, call, own) for s, own in pairs]
    args, kwargs = call_of(example)
    inputs = fast.stored_inputs(*args, **kwargs)
    return [Planned(name, options, kept[0], inputs, fast, (args, kwargs))]


def _planned_onnx(model: Any, options: Options) -> list[Planned]:
    require("onnx", "an ONNX model")
    from graphopt.onnx.files import open_model
    from graphopt.onnx.module import plan

    opened = open_model(model)
    with keep_stages() as kept:
        calls, program, _ = plan(opened, options)
    inputs = call = None
    if (example := options.example_inputs) is not None:
        args, kwargs = call = call_of(example)
        inputs = calls.arrays(calls.match(args, kwargs))
    compiled = CompiledGraph(opened.name, calls, program, options, kept[0])
    return [Planned(opened.name, options, kept[0], inputs, compiled, call)]


def _planned_decoder(path: Path, options: Options, tokens: tuple[Any, ...] | None) -> Planned:
    from graphopt.llm.compiled import compile_decoder
    from graphopt.llm.decoder.calibration import calibration_inputs
    from graphopt.llm.package import read_model

    weights, _ = read_model(path, options)
    with keep_stages() as kept:
        program, engine = compile_decoder(weights, options)
    if tokens is None:
        tokens = (np.random.default_rng(0).integers(0, engine.vocabulary, _TOKENS),)
    inputs = calibration_inputs(program.graph, tokens, engine.vocabulary)
    compiled = CompiledGraph.of(path.name, program, options, kept[0])
    return Planned(path.name, options, kept[0], inputs, compiled, (tuple(inputs), {}))


def _parts(path: Path) -> list[Named]:
    from graphopt.funasr.directory import build_model, read_directory
    from graphopt.funasr.package import captured_parts

    directory = read_directory(path)
    parts = captured_parts(build_model(directory), directory)
    return [
        Named(f"{path.name}/{part}", module, inputs, "module")
        for part, (module, inputs) in parts.items()
    ]
