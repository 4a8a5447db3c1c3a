"""A planned graph that is called with arrays, whatever it was made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.compiler.inspected import Inspected
from graphopt.compiler.options import Options
from graphopt.compiler.program import Program
from graphopt.compiler.stages import Stages
from graphopt.onnx.calls import OnnxCallable, OnnxCalls


class CompiledGraph(OnnxCallable, Inspected):
    """A compiled graph, built with its first run.

    Args:
        name: of the model.
        calls: how it is called.
        program: the graph.
        options: what it was planned for.
        stages: the graph after each pass.
    """

    _calls: OnnxCalls

    def __init__(
        self, name: str, calls: OnnxCalls, program: Program, options: Options, stages: Stages
    ) -> None:
        self.options = options
        self._calls, self._title, self._program, self._stages = calls, name, program, stages

    @classmethod
    def of(cls, name: str, program: Program, options: Options, stages: Stages) -> CompiledGraph:
        """A graph whose inputs and outputs are called as in it."""
        inputs = tuple(value.name for value in program.graph.inputs)
        outputs = tuple(value.name for value in program.graph.outputs)
        return cls(name, OnnxCalls(program, inputs, outputs), program, options, stages)

    def stored_inputs(self, *args: Any, **kwargs: Any) -> list[np.ndarray[Any, Any]]:
        """The inputs of a call as the graph takes them: stored arrays, in order.

        Raises:
            InputError: as a call does.
        """
        return self._calls.arrays(self._calls.match(args, kwargs))

    def stages(self) -> list[Stages]:
        """The graph after each pass."""
        return [self._stages]

    def _name(self) -> str:
        return self._title
