"""A compiled ONNX model: called with arrays or tensors, in the order or by the names of its inputs.

It takes no torch: planned and built as any other graph, run by the C runtime through numpy.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.compiler.inspected import Inspected
from graphopt.compiler.options import Options, call_of, in_rows
from graphopt.compiler.partition import partition
from graphopt.compiler.pipeline import PassManager, lowering_passes
from graphopt.compiler.program import Program
from graphopt.compiler.stages import Stages
from graphopt.config import Config
from graphopt.errors import StagesError
from graphopt.ir.interpret import run_graph
from graphopt.ir.printer import print_graph
from graphopt.onnx.calls import OnnxCallable, OnnxCalls
from graphopt.onnx.example import check_example
from graphopt.onnx.files import Model
from graphopt.onnx.importer import compiled_graph
from graphopt.progress import announce
from graphopt.runtime import process
from graphopt.runtime.package import MARKS
from graphopt.runtime.staging import replaced_folder


def plan(model: Model, options: Options) -> tuple[OnnxCalls, Program, dict[str, str]]:
    """A model, imported and planned but not built.

    Returns:
        How it is called, the program, and what its graph was on the way, as texts for a package.

    Raises:
        OnnxModelError, OnnxNodesError: as `compiled_graph`.
    """
    manager = PassManager(Config.from_environment(), keep=True)
    announce(f"{model.name}: import")
    imported = compiled_graph(model, exact=not in_rows(options.precision))
    graph = imported.graph
    texts = {"passes/1_captured.txt": print_graph(graph)}
    manager.run(graph, lowering_passes())
    texts["passes/2_lowered.txt"] = print_graph(graph)
    partition(graph)  # refuses inputs and results of too many axes
    program = Program(graph, options, manager)
    program.plan()
    calls = OnnxCalls(program, tuple(imported.inputs), tuple(imported.outputs))
    return calls, program, texts


class OptimizedOnnx(OnnxCallable, Inspected):
    """A compiled ONNX model.

    Attributes:
        options: what it was compiled with.
        model: what was compiled.
        inputs: names of the inputs, as in the model.
        outputs: names of the outputs.
    """

    _calls: OnnxCalls

    def __init__(self, model: Model, options: Options) -> None:
        self.options, self.model = options, model
        with process.changes:
            self._calls, self._program, self._texts = plan(model, options)
        self.inputs, self.outputs = self._calls.inputs, self._calls.outputs
        self._stages, graph = self._program.manager.stages, self._program.graph
        if (given := options.example_inputs) is not None:
            args, kwargs = call_of(given)
            arrays = self._calls.arrays(self._calls.match(args, kwargs))
            if options.check:
                feeds = dict(zip(self.inputs, arrays, strict=True))
                ports = [(v.name, v.dtype) for v in graph.outputs]
                host = options.target.is_host
                run = self._program.run if host else partial(run_graph, graph)
                self._calls.checked = check_example(
                    model, options.precision, feeds, ports, lambda: run(list(arrays))
                )
        if options.target.is_host:
            _ = self._program.library

    def stored_inputs(self, *args: Any, **kwargs: Any) -> list[np.ndarray[Any, Any]]:
        """The inputs of a call as the graph takes them: stored arrays, in order.

        Raises:
            InputError: as a call does.
        """
        return self._calls.arrays(self._calls.match(args, kwargs))

    def stages(self) -> list[Stages]:
        """The graph after each pass; see `Staged.stages`."""
        if self._stages is None:
            raise StagesError(self._program.graph.name)
        return [self._stages]

    def save(self, path: str | Path) -> None:
        """Writes a package that `graphopt.load` runs without onnx and compiler.

        Args:
            path: the folder to make; an older package there is replaced, in one step.

        Raises:
            PackageError: if something that is no package is in the way, or if the system does not
                let the folder be written.
        """
        with process.changes, replaced_folder(path, MARKS) as staging:
            self.write_package(staging)

    def write_package(self, folder: Path) -> None:
        """Writes a package into a new folder."""
        self._program.write(folder, self._calls.signature(), self._texts)

    @property
    def program(self) -> Program:
        """What is compiled."""
        return self._program

    def to_onnx(self, path: str | Path, plain: bool | None = None) -> None:
        """Writes an ONNX file whose one node, `graphopt::Run`, is the compiled model.

        Names, types and shapes of inputs and outputs are those of the model; its package, and the
        library that onnxruntime takes the node from, lie beside the file in `<name>.graphopt`.

        Args:
            path: of the file, which is replaced.
            plain: whether with the model itself, for runtimes without the library: True refuses
                one that is too large for that; None warns (`PlainFormWarning`); False leaves it
                out.

        Raises:
            PackageError: if something that is no package is in the way.
            OnnxExportError: with `plain`, for a model without such a form.
            StorageError: if the file cannot be written.
        """
        from graphopt.onnx.export import OnnxWriter

        with process.changes:
            writer = OnnxWriter(self.model, self.options.target, path, 1, plain)
            writer.run(self, self.inputs, self.outputs)
            writer.write()

    def _name(self) -> str:
        return self._program.graph.name
