"""What each layer of a model loses in a precision when everything else stays in fp32.

The lowered graph runs in numpy with one layer narrowed after the other. What is compared are the
model's results, or, of results that are whole numbers, the floats that decide them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphopt.compiler.options import Options
from graphopt.compiler.pipeline import PassManager, lowering_passes
from graphopt.compiler.precision_plan import PrecisionPlan
from graphopt.compiler.program import Program
from graphopt.compiler.stages import Stages
from graphopt.config import Config
from graphopt.ir import Graph, Value
from graphopt.ir.interpret import execute
from graphopt.ir.numbers import widen

Array = np.ndarray[Any, Any]

SMALLEST_NOISE = 1e-14
"""Least error of a layer, relative to the energy of the results: that of f32 itself."""


def lowered(stages: Stages) -> Graph:
    """The graph of one that is planned as a whole, before numbers become narrower."""
    steps = {step.name for step in lowering_passes()}
    (part,) = stages.parts
    return [stage for stage in part if not stage.step or stage.step in steps][-1].graph


def program_of(graph: Graph, options: Options, plan: PrecisionPlan) -> Program:
    """A copy of a lowered graph, planned with precisions by layer, not yet built.

    Args:
        graph: which is left as it is.
        options: with a plan or without one.
        plan: with a precision for what it does not name.
    """
    mixed = replace(options, precision=plan.name, plan=plan)
    program = Program(graph.copy(), mixed, PassManager(Config.from_environment()))
    program.plan()
    return program


def run_in_numpy(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """What is compared of a run; see the module.

    Args:
        graph: planned.
        inputs: stored arrays, which are left as they are.
    """
    watched = _deciding(graph)
    found: dict[Value, Array] = {}
    env: dict[Value, Array] = {}
    for node, operands in execute(graph, [np.array(array) for array in inputs], env):
        for value, array in zip(node.inputs, operands, strict=True):
            if value in watched and value not in found:
                found[value] = np.array(array)
    for value in watched:
        if value not in found and value in env:
            found[value] = widen(env[value], value.dtype)
    return [found[value] for value in watched if value in found]


def noise(got: Sequence[Array], reference: Sequence[Array]) -> float:
    """Energy of the errors over that of the signals, added up; 1 for a result of another shape.

    Errors of layers that have nothing to do with each other add up in it.
    """
    if len(got) != len(reference):
        return float(len(reference))
    return max(SMALLEST_NOISE, sum(map(_noise, got, reference)))


def _noise(got: Array, reference: Array) -> float:
    if got.shape != reference.shape:
        return 1.0
    error = got.astype(np.float64) - reference
    energy = float(np.vdot(reference, reference.astype(np.float64)))
    lost = float(np.vdot(error, error)) / energy if energy else float(np.any(error != 0))
    return lost if np.isfinite(lost) else 1.0


def _deciding(graph: Graph) -> list[Value]:
    """Float results, and the nearest floats before those that are whole numbers."""
    producers, found = graph.producers(), dict[Value, None]()
    left, seen = list(reversed(graph.outputs)), set[Value]()
    while left:
        value = left.pop()
        if value in seen or value.data is not None:
            continue
        seen.add(value)
        if value.dtype.is_float:
            found[value] = None
        elif value in producers:
            left += producers[value].inputs
    return list(found)
