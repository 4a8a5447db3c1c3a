"""A compiled ONNX model: called with arrays or tensors, in the order or by the names of its inputs.

It takes no torch: planned and built as any other graph, run by the C runtime through numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.compiler.options import Options, in_rows
from graphopt.compiler.partition import partition
from graphopt.compiler.pipeline import PassManager, export, lowering_passes
from graphopt.compiler.program import Program, Signature
from graphopt.compiler.report import Report, node_reports
from graphopt.compiler.schedule import StepBalance
from graphopt.compiler.stages import Staged, Stages
from graphopt.config import Config
from graphopt.errors import InputDtypeError, InputRankError, StagesError
from graphopt.ir.interpret import check_sizes, run_graph
from graphopt.ir.printer import print_graph
from graphopt.onnx.example import check_example
from graphopt.onnx.files import Model
from graphopt.onnx.importer import compiled_graph
from graphopt.progress import announce
from graphopt.runtime import process, structure
from graphopt.runtime.library import check_threads
from graphopt.runtime.loaded import like_given, stored
from graphopt.runtime.package import MARKS
from graphopt.runtime.staging import replaced_folder

Array = np.ndarray[Any, Any]


class OptimizedOnnx(Staged):
    """A compiled ONNX model.

    Attributes:
        options: what it was compiled with.
        inputs: names of the inputs, as in the model.
        outputs: names of the outputs.
    """

    def __init__(self, model: Model, options: Options) -> None:
        self.options = options
        manager = PassManager(Config.from_environment(), keep=True)
        announce(f"{model.name}: import")
        with process.changes:
            imported = compiled_graph(model, exact=not in_rows(options.precision))
            graph = imported.graph
            self.inputs, self.outputs = tuple(imported.inputs), tuple(imported.outputs)
            self._texts = {"passes/1_captured.txt": print_graph(graph)}
            manager.run(graph, lowering_passes())
            self._texts["passes/2_lowered.txt"] = print_graph(graph)
            partition(graph)  # refuses inputs and results of too many axes
            self._program = Program(graph, options, manager)
            self._program.plan()
        self._stages = manager.stages
        self._call = structure.describe((tuple(map(structure.Leaf, range(len(self.inputs)))), {}))
        self._checked = ""
        if (given := options.example_inputs) is not None:
            args, kwargs = ((), given) if isinstance(given, dict) else (tuple(given), {})
            arrays = self._arrays(self._match(args, kwargs))
            if options.check:
                self._checked = check_example(model, self._program, self.inputs, arrays)
            if options.target.is_host:
                _ = self._program.library
        elif options.target.is_host:
            _ = self._program.library

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output of the model, or a tuple of them if there are several.

        Args:
            args: inputs in order: arrays, or tensors of torch, which are given back then.
            kwargs: inputs by name.

        Raises:
            InputError: if an input does not fit what was compiled.
        """
        with process.calls:
            return self._run(args, kwargs, self._program.run)

    def interpret(self, *args: Any, **kwargs: Any) -> Any:
        """The same by the planned graph in numpy, op by op; see `OptimizedModule.interpret`."""
        graph = self._program.graph

        def run(arrays: Sequence[Array]) -> list[Array]:
            check_sizes(graph, [a.shape for a in arrays])
            return run_graph(graph, list(arrays))

        return self._run(args, kwargs, run)

    def emulate(self, *args: Any, sve_bits: int = 128, level: str = "", **kwargs: Any) -> Any:
        """The same by the code for the target, under qemu where this machine differs.

        Args:
            *args: inputs in order.
            sve_bits: length of an SVE vector.
            level: ISA level; the most capable of the target if empty.
            **kwargs: inputs by name.

        Raises:
            MissingEmulatorError: if qemu is not installed.
        """
        return self._run(args, kwargs, lambda a: self._program.emulate(a, level, sve_bits))

    def report(self) -> Report:
        """Every node with kernel and reasons."""
        options = self.options
        return Report(
            self._program.graph.name,
            options.target.name,
            options.precision,
            options.target.levels,
            tuple(node_reports(self._program.graph)),
            (self._checked or "example: not compared",),
        )

    def profile(self, *args: Any, repeats: int = 5, **kwargs: Any) -> list[dict[str, Any]]:
        """Median milliseconds and work of every step; see `OptimizedModule.profile`."""
        return self._program.profile(self._arrays(self._match(args, kwargs)), repeats)

    def balance(self, *args: Any, cores: int, repeats: int = 5, **kwargs: Any) -> list[StepBalance]:
        """How evenly the tasks of every step fall on some cores; see `schedule.py`.

        Raises:
            ThreadCountError: for less than one core.
        """
        check_threads(cores)
        return self._program.balance(self._arrays(self._match(args, kwargs)), cores, repeats)

    def stages(self) -> list[Stages]:
        """The graph after each pass; see `Staged.stages`."""
        if self._stages is None:
            raise StagesError(self._program.graph.name)
        return [self._stages]

    def dump(self, format: str = "text") -> str:
        """The planned graph as `text`, `dot` or `graphml`, with reasons.

        Raises:
            OptionError: for another format.
        """
        return export(self._program.graph, format)

    def save(self, path: str | Path) -> None:
        """Writes a package that `graphopt.load` runs without onnx and compiler.

        Args:
            path: the folder to make; an older package there is replaced, in one step.

        Raises:
            PackageError: if something that is no package is in the way, or if the system does not
                let the folder be written.
        """
        leaves = tuple(map(structure.Leaf, range(len(self.outputs))))
        result = leaves[0] if len(leaves) == 1 else leaves
        call: Any = (tuple(map(structure.Leaf, range(len(self.inputs)))), {})
        signature = Signature(call, result, self.inputs, self.outputs)
        with process.changes, replaced_folder(path, MARKS) as staging:
            self._program.write(staging, signature, self._texts)

    def _run(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        run: Callable[[Sequence[Array]], list[Array]],
    ) -> Any:
        given = self._match(args, kwargs)
        outputs = run(self._arrays(given))
        dtypes = [value.dtype.value for value in self._program.graph.outputs]
        results = like_given([np.asarray(a) for a in outputs], dtypes, given)
        return results[0] if len(results) == 1 else tuple(results)

    def _match(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The inputs in order; those given by name are behind the others."""
        names = self.inputs[len(args) :]
        args += tuple(kwargs[name] for name in names if name in kwargs)
        rest = {key: value for key, value in kwargs.items() if key not in names}
        return structure.match(self._call, args, rest)

    def _arrays(self, given: Sequence[Any]) -> list[Array]:
        """Stored arrays of the types and numbers of axes that the model says."""
        arrays = []
        for thing, value, name in zip(given, self._program.graph.inputs, self.inputs, strict=True):
            array = stored(thing, name)
            if array.dtype != value.dtype.numpy:
                raise InputDtypeError(name, value.dtype.numpy.name, array.dtype.name)
            if array.ndim != value.rank:
                raise InputRankError(name, value.shape, array.shape)
            arrays.append(array)
        return arrays
