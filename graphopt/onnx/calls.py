"""Calls of a compiled ONNX model: how what is given becomes arrays, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphopt.compiler.optimized import Optimized, Serving
from graphopt.compiler.pipeline import export
from graphopt.compiler.profile import Run
from graphopt.compiler.program import Program, Signature
from graphopt.compiler.report import NodeReport, node_reports
from graphopt.compiler.schedule import StepBalance
from graphopt.errors import InputDtypeError, InputRankError
from graphopt.ir import DType, Shape
from graphopt.ir.interpret import check_sizes, run_graph
from graphopt.runtime import process, structure
from graphopt.runtime.library import MachineCode
from graphopt.runtime.loaded import like_given, stored

Array = np.ndarray[Any, Any]


class OnnxCallable(Optimized, MachineCode):
    """A compiled ONNX model, called with inputs in order or by name."""

    _calls: Any  # serves every call; see `Serving`

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output of the model, or a tuple of them if there are several.

        Args:
            args: inputs in order: arrays, or tensors of torch, which are given back then.
            kwargs: inputs by name.

        Raises:
            InputError: if an input does not fit what was compiled.
            OnnxModelError: if onnxruntime cannot run a part that is left to it.
        """
        with process.calls:
            return self._calls.run(args, kwargs)

    def _captured(self) -> list[Serving]:
        return [self._calls]

    def _specialization(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Serving, tuple[Any, ...], dict[str, Any]]:
        return self._calls, args, kwargs


class OnnxCalls:
    """Serves every call of a model, whose inputs come in order or by name; see `Serving`.

    Args:
        program: the planned graph.
        inputs: as below.
        outputs: as below.

    Attributes:
        inputs: names of the inputs.
        outputs: names of the outputs.
        checked: what the check of the example found; empty without one.
    """

    def __init__(self, program: Program, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        self._program, self.inputs, self.outputs = program, inputs, outputs
        self._arguments: Any = (tuple(map(structure.Leaf, range(len(inputs)))), {})
        self.checked = ""

    def signature(self) -> Signature:
        """How a package of the model is called."""
        leaves = tuple(map(structure.Leaf, range(len(self.outputs))))
        result = leaves[0] if len(leaves) == 1 else leaves
        return Signature(self._arguments, result, self.inputs, self.outputs)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The output of the model, or a tuple of them if there are several."""
        return self._run_by(self._program.run, args, kwargs)

    def interpret(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same by the planned graph in numpy."""
        graph = self._program.graph

        def run(arrays: Sequence[Array]) -> list[Array]:
            check_sizes(graph, [a.shape for a in arrays])
            return run_graph(graph, list(arrays))

        return self._run_by(run, args, kwargs)

    def emulate(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], level: str, sve_bits: int
    ) -> Any:
        """The same by the code for the target; see `Program.emulate`."""
        return self._run_by(lambda a: self._program.emulate(a, level, sve_bits), args, kwargs)

    def profile(self, args: tuple[Any, ...], kwargs: dict[str, Any], repeats: int) -> list[Run]:
        """Times of every step; see `Program.profile`."""
        return [self._program.profile(self.arrays(self.match(args, kwargs)), repeats)]

    def balance(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], cores: int, repeats: int
    ) -> list[StepBalance]:
        """How evenly the tasks of every step fall on some cores; see `Program.balance`."""
        return self._program.balance(self.arrays(self.match(args, kwargs)), cores, repeats)

    def programs(self) -> list[Program]:
        """The only one."""
        return [self._program]

    def reports(self) -> list[NodeReport]:
        """Every node with kernel and reasons."""
        return node_reports(self._program.graph)

    def dumps(self, format: str) -> list[str]:
        """The planned graph; see `export`."""
        return [export(self._program.graph, format)]

    def _run_by(
        self,
        run: Callable[[Sequence[Array]], list[Array]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        given = self.match(args, kwargs)
        outputs = run(self.arrays(given))
        dtypes = [value.dtype.value for value in self._program.graph.outputs]
        results = like_given([np.asarray(a) for a in outputs], dtypes, given)
        return results[0] if len(results) == 1 else tuple(results)

    def match(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The inputs in order; those given by name are behind the others."""
        return match_inputs(self.inputs, args, kwargs)

    def arrays(self, given: Sequence[Any]) -> list[Array]:
        """Stored arrays of the types and numbers of axes that the model says."""
        ports = [(value.dtype, value.shape) for value in self._program.graph.inputs]
        return input_arrays(self.inputs, ports, given)


def match_inputs(inputs: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The inputs of a call in order; those given by name are behind the others.

    Args:
        inputs: their names.
        args: as given.
        kwargs: as given.

    Raises:
        InputError: if some are missing, or too many.
    """
    call = structure.describe((tuple(map(structure.Leaf, range(len(inputs)))), {}))
    names = inputs[len(args) :]
    args += tuple(kwargs[name] for name in names if name in kwargs)
    rest = {key: value for key, value in kwargs.items() if key not in names}
    return structure.match(call, args, rest)


def input_arrays(
    names: Sequence[str], ports: Sequence[tuple[DType, Shape]], given: Sequence[Any]
) -> list[Array]:
    """Stored arrays of the types and numbers of axes that a model says.

    Args:
        names: of the inputs.
        ports: their types and shapes.
        given: the inputs.

    Raises:
        InputError: naming the input that is of another type, or has another number of axes.
    """
    arrays = []
    for thing, (dtype, shape), name in zip(given, ports, names, strict=True):
        array = stored(thing, name)
        if array.dtype != dtype.numpy:
            raise InputDtypeError(name, dtype.numpy.name, array.dtype.name)
        if array.ndim != len(shape):
            raise InputRankError(name, shape, array.shape)
        arrays.append(array)
    return arrays
