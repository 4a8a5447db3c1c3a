"""The first pass that moves the results of a model too far, and the smallest graph that shows it.

The graph runs in numpy after every pass that changed it, on the same inputs, until a result is
further from the model's than a tolerance. Of the two graphs around that pass the first value that
differs is looked for, and the values before it that do not: the nodes between them, before and
after the pass, are all that it takes to see the fault. Whole numbers, and
sizes that data decide, are judged as long as the graph computes in f32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.compiler.bounds import BOUNDS, bound_of
from graphopt.compiler.pipeline import lowering_passes
from graphopt.compiler.stages import Stage
from graphopt.inspection.accuracy import output_errors, sizes_of, values_of
from graphopt.inspection.models import Planned
from graphopt.inspection.reproducer import Finding, cut
from graphopt.ir.numbers import narrow
from graphopt.progress import announce
from graphopt.testing import relative_error

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StageError:
    """How far results are after a pass.

    Attributes:
        stage: name of the stage.
        error: the worst `relative_error` of a result against the captured graph.
        tolerance: the largest that it may be.
    """

    stage: str
    error: float
    tolerance: float

    @property
    def is_wrong(self) -> bool:
        """Whether it is beyond the tolerance, or no number."""
        return not self.error <= self.tolerance


@dataclass(frozen=True)
class Bisection:
    """What was found.

    Attributes:
        name: of the model.
        errors: after every pass that changed something, up to the first that is wrong.
        culprit: the stage of that pass; empty if there is none.
        finding: the smallest graph that shows it; None without a culprit, or where no value before
            the pass can be compared with one behind it.
    """

    name: str
    errors: tuple[StageError, ...]
    culprit: str
    finding: Finding | None

    @property
    def text(self) -> str:
        """The verdict."""
        if self.finding is not None:
            return f"{self.name}: {self.finding.title}"
        if self.culprit:
            return (
                f"{self.name}: {self.culprit} moves a result, and leaves no value of the same shape"
            )
        return f"{self.name}: no pass moves a result beyond the tolerance"

    def as_dict(self) -> dict[str, Any]:
        """What JSON shows."""
        found: dict[str, Any] = {"model": self.name, "culprit": self.culprit}
        found["errors"] = [vars(error) for error in self.errors]
        if self.finding is not None:
            found |= {
                "title": self.finding.title,
                "before": self.finding.before.nodes,
                "after": self.finding.after.nodes,
            }
        return found


def stage_errors(
    planned: Planned, inputs: Sequence[Array] | None = None, tolerance: float | None = None
) -> list[StageError]:
    """How far results are after every pass that changed something, all of them.

    Args:
        planned: the model.
        inputs: stored arrays as the graph takes them; the example inputs if None.
        tolerance: as for `bisect`.

    Raises:
        InspectionError: without inputs, or if nodes stay in torch between compiled parts.
    """
    arrays = planned.example() if inputs is None else [np.array(a) for a in inputs]
    return [error for error, *_ in _errors(planned, arrays, tolerance)]


def bisect(
    planned: Planned, inputs: Sequence[Array] | None = None, tolerance: float | None = None
) -> Bisection:
    """Finds the pass.

    Args:
        planned: the model.
        inputs: stored arrays as the graph takes them; the example inputs if None.
        tolerance: largest error over the largest magnitude of a result; by default 1e-4 as long as
            the graph computes in f32, and then what is the bound of the precision
            (`graphopt/compiler/bounds.py`).

    Raises:
        InspectionError: without inputs, or if nodes stay in torch between compiled parts.
    """
    arrays = planned.example() if inputs is None else [np.array(a) for a in inputs]
    errors = []
    for error, stage, values, before, right in _errors(planned, arrays, tolerance):
        errors.append(error)
        if error.is_wrong:
            finding = _smallest(planned, arrays, error, stage, values, before, right)
            return Bisection(planned.name, tuple(errors), stage.name, finding)
    return Bisection(planned.name, tuple(errors), "", None)


def _errors(planned: Planned, arrays: list[Array], tolerance: float | None) -> Any:
    """After every pass that changed something: the error, the stage and its values, and before."""
    _ = planned.last  # one graph
    stages = planned.stages.parts[0]
    lowering = {step.name for step in lowering_passes()}
    first = stages[0]
    announce(f"{planned.name}: run {first.name}")
    exact = right = values_of(first, arrays)
    before, bound = first, BOUNDS["fp32"]
    for stage in stages[1:]:
        if stage.step not in lowering:
            bound = bound_of(planned.options.precision)
        if not stage.changed:
            continue
        announce(f"{planned.name}: run {stage.name}")
        values = values_of(stage, arrays)
        is_exact = stage.step in lowering and bound == BOUNDS["fp32"]
        worst = max(output_errors(values, stage, exact, first, is_exact), default=0.0)
        error = StageError(stage.name, worst, bound if tolerance is None else tolerance)
        yield error, stage, values, before, right
        before, right = stage, values


def _smallest(
    planned: Planned,
    arrays: list[Array],
    error: StageError,
    stage: Stage,
    values: Mapping[str, Array],
    before: Stage,
    right: Mapping[str, Array],
) -> Finding | None:
    """The nodes between values that agree and the first that does not; None if none has a name."""
    came_in = {stage.names[value] for value in stage.graph.inputs}
    apart = {
        name: relative_error(value, right[name])
        for name, value in values.items()
        if name in right and name not in came_in and value.shape == right[name].shape
    }
    order = [name for row in stage.nodes for name in row.outputs if name in apart]
    if not order:
        return None
    wrong = [name for name in order if not apart[name] <= error.tolerance]
    name = wrong[0] if wrong else max(order, key=lambda n: apart[n])
    agreed = {n for n in right if n in values and apart.get(n, 0.0) <= error.tolerance / 10}
    agreed.discard(name)
    inputs = _frontier(stage, name, agreed)
    inputs += [n for n in _frontier(before, name, agreed | {*inputs}) if n not in inputs]
    inputs = [n for n in inputs if n in right]
    sizes = sizes_of(stage, values, arrays) | sizes_of(before, right, arrays)
    parts = [cut(s, name, inputs, right, sizes) for s in (before, stage)]
    given = [
        narrow(right[value.name], value.dtype) if not value.packed else right[value.name]
        for value in parts[0].graph.inputs
    ]
    runs = [s.name for s in planned.stages.parts[0] if s.step == stage.step]
    node = stage[name] if name in stage else next(r for r in stage.nodes if name in r.outputs)
    place = ", ".join(filter(None, (node.node.origin.module, node.node.origin.source)))
    title = (
        f"{stage.step} is the first pass that moves a result: {error.error:.2g} of its largest "
        f"magnitude, where {error.tolerance:g} is allowed; first at {name}"
        f"{f' ({place})' if place else ''}, by {apart[name]:.2g}"
    )
    return Finding(
        title,
        parts[0],
        parts[1],
        given,
        error.tolerance,
        stage.step,
        runs.index(stage.name),
        planned.options,
    )


def _frontier(stage: Stage, name: str, agreed: set[str]) -> list[str]:
    """Values that agree, or come in, and that the nodes of one that does not read."""
    maker = {made: row for row in stage.nodes for made in row.outputs}
    found: dict[str, None] = {}
    left, seen = [name], {name}
    while left:
        row = maker.get(left.pop())
        if row is None:
            continue
        for role, operand in row.operands.items():
            if row.node.operands[role].is_constant or operand in seen:
                continue
            seen.add(operand)
            if operand in agreed or operand not in maker:
                found[operand] = None
            else:
                left.append(operand)
    return list(found)
