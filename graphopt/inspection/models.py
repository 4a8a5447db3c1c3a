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

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.compiler.options import Options, call_of
from graphopt.compiler.report import NodeReport
from graphopt.compiler.stages import Stage, Stages, keep_stages
from graphopt.dependencies import require
from graphopt.errors import InspectionError
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
    """

    name: str
    options: Options
    stages: Stages
    inputs: list[Array] | None
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


def planned_by_name(
    name: str, target: str, precision: str, inputs: Sequence[Path] = ()
) -> list[Planned]:
    """The graphs of a MODEL of the command line.

    Args:
        name: see the module.
        target: as for `graphopt.optimize`.
        precision: as for `graphopt.optimize`.
        inputs: one .npz with all arguments, or one .npy for each, in place of the example inputs;
            of a language model its tokens.

    Raises:
        GraphoptError: if it is no model, or cannot be compiled.
    """
    options = Options.of(target=target, precision=precision, check=False)
    given = tuple(value for path in inputs for value in read_arguments(path)) or None
    path = Path(name)
    if path.suffix == ".gopt" or (path / "manifest.json").is_file():
        why = "it is a package; graphopt info tells what is in it, its folder passes has the graph"
        raise InspectionError(name, why)
    if is_onnx(name):
        return planned(name, target, precision, given)
    if path.suffix == ".gguf" or (path.is_dir() and not (path / "config.yaml").is_file()):
        return [_planned_decoder(path, options, given)]
    if path.is_dir():
        return _planned_directory(path, options, given)
    module, example = build_model(name)
    args = given or example
    if given is not None:
        torch = require("torch", "inputs of a torch module")
        args = torch.utils._pytree.tree_map(torch.from_numpy, given)
    return _planned_module(name, module, Options.of(**_asked(options), example_inputs=args))


def _asked(options: Options) -> dict[str, Any]:
    return {"target": options.target, "precision": options.precision, "check": False}


def _planned_module(name: str, module: Any, options: Options) -> list[Planned]:
    compiler = require("graphopt.compiler.module", name)
    example = options.example_inputs
    if example is None:
        raise InspectionError(name, "a torch module is captured with example inputs; give some")
    adapter = compiler.ModuleAdapter()
    adapter.takes(module, options)
    kind, used = adapter.used(module, options.precision)
    options.refuse_unused(used, f"{kind} in {options.precision}")
    fast = compiler.OptimizedModule(module, options)
    with keep_stages() as kept:
        fast.capture_example()
    in_python = tuple(row for row in fast.report().in_torch if row.kernel == "python")
    if in_python:
        rows = [in_python, *[()] * (len(kept) - 1)]  # once, whatever was captured
        pairs = zip(kept, rows, strict=True)
        return [Planned(stages.name, options, stages, None, own) for stages, own in pairs]
    args, kwargs = call_of(example)
    return [Planned(name, options, kept[0], fast.stored_inputs(*args, **kwargs))]


def _planned_onnx(model: Any, options: Options) -> list[Planned]:
    require("onnx", "an ONNX model")
    from graphopt.onnx.files import open_model
    from graphopt.onnx.module import plan

    opened = open_model(model)
    with keep_stages() as kept:
        calls, _, _ = plan(opened, options)
    inputs = None
    if (example := options.example_inputs) is not None:
        args, kwargs = call_of(example)
        inputs = calls.arrays(calls.match(args, kwargs))
    return [Planned(opened.name, options, kept[0], inputs)]


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
    return Planned(path.name, options, kept[0], inputs)


def _planned_directory(
    path: Path, options: Options, given: tuple[Any, ...] | None
) -> list[Planned]:
    from graphopt.funasr.directory import build_model, read_directory
    from graphopt.funasr.package import captured_parts

    if given is not None:
        raise InspectionError(str(path), "inputs of its parts are of graphopt's own making")
    directory = read_directory(path)
    found: list[Planned] = []
    for part, (module, inputs) in captured_parts(build_model(directory), directory).items():
        own = Options.of(**_asked(options), example_inputs=inputs)
        found += _planned_module(f"{path.name}/{part}", module, own)
    return found
