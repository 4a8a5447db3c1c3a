"""How far the values of a planned graph are from those of the model, op by op.

Both graphs run in numpy (what is not lowered, in torch): the graph as it was captured, and a later
stage of it, with quantized weights and rows and bf16 where the plan has them. Values are compared
by their names, which stay from stage to stage. What a pass puts in the place of a value, such as
rows that are quantized, is compared with what it stands for; a value that the model has in no such
shape, with what the graph computes before numbers become narrower.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from graphopt.compiler.pipeline import lowering_passes
from graphopt.compiler.stages import Stage, Stages
from graphopt.dependencies import require
from graphopt.errors import OptionError
from graphopt.inspection.models import Planned
from graphopt.ir import Node, Value, learn_sizes
from graphopt.ir.interpret import execute, run_node, stored
from graphopt.ir.numbers import widen
from graphopt.ir.ops import QuantizeRows
from graphopt.printable import printable
from graphopt.progress import announce
from graphopt.testing import relative_error, sqnr
from graphopt.user_functions import NoFunction, function_named

Array = np.ndarray[Any, Any]
Metric = Callable[[Array, Array], float]
"""A distance of what was computed from what it should be: 0 if there is none, larger if worse."""


@dataclass(frozen=True)
class Error:
    """How far an array is from another.

    Attributes:
        sqnr: energy of the reference over that of the error, in dB; infinite if they are equal.
        largest: largest absolute difference.
        relative: that over the largest magnitude of the reference.
        cosine: of the angle between both.
        other: by a function of the user's; None without one.
    """

    sqnr: float
    largest: float
    relative: float
    cosine: float
    other: float | None = None

    @staticmethod
    def of(got: Array, reference: Array, metric: Metric | None = None) -> Error:
        """The error of an array.

        Args:
            got: what was computed.
            reference: what is right, of the same shape.
            metric: a function of the user's, of both.
        """
        other = None if metric is None else float(metric(got, reference))
        x, y = got.astype(np.float64), reference.astype(np.float64)
        relative = relative_error(x, y)
        if math.isinf(relative):  # other elements that are infinite, or are no numbers
            return Error(-math.inf, math.inf, math.inf, 0.0, other)
        finite = np.isfinite(y)
        x, y = x[finite], y[finite]
        norms = float(np.linalg.norm(x) * np.linalg.norm(y))
        cosine = float(x.ravel() @ y.ravel()) / norms if norms else float(np.array_equal(x, y))
        largest = float(np.abs(x - y).max(initial=0.0))
        return Error(sqnr(x, y), largest, relative, min(1.0, cosine), other)

    @property
    def badness(self) -> float:
        """What is worse has more of it: by the function of the user's, or by SQNR."""
        return -self.sqnr if self.other is None else self.other


@dataclass(frozen=True)
class OpError:
    """The error of an op's result.

    Attributes:
        node: name of the node.
        op: what it computes.
        module: path in the user's model.
        source: file and line of the user's model.
        value: the value of the captured graph that it is compared with.
        error: against the model, with the errors of all ops before it.
        alone: of the op by itself, which is given the model's own values; None where one of them is
            not a value of the model.
    """

    node: str
    op: str
    module: str
    source: str
    value: str
    error: Error
    alone: Error | None


@dataclass(frozen=True)
class Difference:
    """The errors of all ops, worst first. Prints as a table; iterates over its rows.

    Attributes:
        name: of the model.
        title: what was compared.
        rows: worst first.
        outputs: errors of the results of the model, by name.
        uncompared: names of nodes that compute no value of the model.
    """

    name: str
    title: str
    rows: tuple[OpError, ...]
    outputs: dict[str, Error]
    uncompared: tuple[str, ...]

    def __iter__(self) -> Any:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def as_dict(self) -> dict[str, Any]:
        """What JSON shows."""
        return {
            "model": self.name,
            "compared": self.title,
            "outputs": {name: asdict(error) for name, error in self.outputs.items()},
            "ops": [asdict(row) for row in self.rows],
            "uncompared": list(self.uncompared),
        }

    def table(self, limit: int | None = None) -> Table:
        """The worst ops.

        Args:
            limit: number of rows; all if None.
        """
        has_other = any(row.error.other is not None for row in self.rows)
        table = Table(title=Text(f"{printable(self.name)}: {self.title}"), title_justify="left")
        table.add_column("node", overflow="fold")
        for column in ("alone", "in all", "max", "cosine", *(["metric"] if has_other else [])):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("module", overflow="fold")
        for row in self.rows[:limit]:
            error = row.error
            alone = "" if row.alone is None else decibels(row.alone.sqnr)
            numbers = [alone, decibels(error.sqnr), f"{error.largest:.2g}", f"{error.cosine:.5f}"]
            if error.other is not None:
                numbers.append(f"{error.other:.3g}")
            table.add_row(*map(Text, (row.node, *numbers, row.module)))
        for name, error in self.outputs.items():
            numbers = ["", decibels(error.sqnr), f"{error.largest:.2g}", f"{error.cosine:.5f}"]
            if error.other is not None:
                numbers.append(f"{error.other:.3g}")
            table.add_row(*map(Text, (f"result {name}", *numbers, "")), style="bold")
        table.caption = "SQNR in dB of a node alone, and with the errors of all before it"
        return table

    def __rich__(self) -> Table:
        return self.table()


def decibels(number: float) -> str:
    """A ratio in dB as tables show it."""
    if math.isinf(number):
        return "exact" if number > 0 else "lost"
    return f"{number:.1f} dB"


def diff(
    planned: Planned,
    inputs: Sequence[Array] | None = None,
    after: str = "",
    against: str = "capture",
    metric: Metric | None = None,
    alone: bool = True,
) -> Difference:
    """The error of every op of a stage against another stage of the same model.

    Args:
        planned: the model.
        inputs: stored arrays as the graph takes them; the example inputs if None.
        after: the stage; the planned graph if empty.
        against: the stage that is right: by default the graph as it was captured, in fp32.
        metric: gives the order in place of SQNR.
        alone: whether ops are sorted by their own error, not by that of their results.

    Raises:
        InspectionError: without inputs, or if nodes stay in torch between compiled parts.
        UnknownStageError: for a stage that there is not.
    """
    stages = planned.stages
    stage = stages[after] if after else planned.last
    reference = stages[against]
    arrays = planned.example() if inputs is None else [np.array(a) for a in inputs]
    announce(f"{planned.name}: run {reference.name}")
    wanted = values_of(reference, arrays)
    announce(f"{planned.name}: run {stage.name}")
    found = values_of(stage, arrays)
    stands_for = {name: stands_for_of(stages, stage, name) for name in found}
    known = _known(found, stands_for, [wanted, _in_fp32(stages, stage, arrays)])
    sizes = sizes_of(stage, found, arrays)
    rows, uncompared = [], []
    for row in stage.nodes:
        if not row.outputs or row.outputs[0] not in found:
            continue
        got, its = found[row.outputs[0]], known.get(row.outputs[0])
        if its is None or row.node.op.is_view:
            if not row.node.op.is_view:
                uncompared.append(row.name)
            continue
        own = None
        operands = [known.get(n, constant_of(v)) for n, v in _named(row.operands, row.node)]
        keeps = any(value.is_state for value in row.node.inputs)  # what was written before
        if row.node.is_lowered and not keeps and all(o is not None for o in operands):
            made = run_node(row.node, [np.array(o) for o in operands], sizes)
            own = Error.of(np.asarray(made[0]), its, metric)
        origin = row.node.origin
        rows.append(
            OpError(
                row.name,
                row.node.op.name,
                printable(origin.module),
                printable(origin.source),
                stands_for[row.outputs[0]],
                Error.of(got, its, metric),
                own,
            )
        )

    def badness(row: OpError) -> tuple[float, float]:
        own = row.error if row.alone is None or not alone else row.alone
        return own.badness, row.error.badness

    rows.sort(key=badness, reverse=True)
    outputs = {
        name: Error.of(found[name], wanted[its], metric)
        for name, its in zip(_results(stage), _results(reference), strict=True)
        if name in found and its in wanted and found[name].shape == wanted[its].shape
    }
    title = f"{stage.name} in {planned.options.precision} against {reference.name}"
    return Difference(planned.name, title, tuple(rows), outputs, tuple(uncompared))


def _known(
    found: Mapping[str, Array],
    stands_for: Mapping[str, str],
    references: Sequence[dict[str, Array]],
) -> dict[str, Array]:
    """What each value should be: by the first reference that has one of its name and shape."""
    known: dict[str, Array] = {}
    for name, got in found.items():
        named = (r[n] for r in references for n in (name, stands_for[name]) if n in r)
        its = next((array for array in named if array.shape == got.shape), None)
        if its is not None:
            known[name] = its
    return known


def _in_fp32(stages: Stages, stage: Stage, arrays: Sequence[Array]) -> dict[str, Array]:
    """The values of the last stage before numbers become narrower.

    They are those of the model that it computes in another form: permuted, or sums that are fused.
    """
    lowering = {step.name for step in lowering_passes()}
    part = stages.part_of(stage)
    narrower = next((n for n, s in enumerate(part) if n and s.step not in lowering), len(part))
    last = part[min(narrower - 1, part.index(stage))]
    return values_of(last, arrays)


def output_errors(
    got: Mapping[str, Array],
    stage: Stage,
    wanted: Mapping[str, Array],
    reference: Stage,
    decisions: bool,
) -> list[float]:
    """`relative_error` of each result of a graph; infinite for one of another shape.

    Args:
        got: values of the stage.
        stage: of which results are judged.
        wanted: values of the reference.
        reference: whose results are right.
        decisions: whether to judge whole numbers, and sizes that data decide, too: rounding to
            narrower numbers may change them.
    """
    pairs = [
        (got[name], wanted[its])
        for name, its in zip(_results(stage), _results(reference), strict=True)
    ]
    return [
        relative_error(mine, right)
        for mine, right in pairs
        if decisions or (right.dtype.kind == "f" and mine.shape == right.shape)
    ]


def _results(stage: Stage) -> list[str]:
    return [stage.names[value] for value in stage.graph.outputs]


def values_of(stage: Stage, inputs: Sequence[Array]) -> dict[str, Array]:
    """All values of a graph that something reads, and its results, by name; bf16 widened.

    Args:
        stage: what runs: `go.*` nodes in numpy, others in torch.
        inputs: stored arrays, which are left as they are.
    """
    graph, names = stage.graph, stage.names
    values: dict[str, Array] = {}
    arrays = [np.array(array) for array in inputs]
    if all(node.is_lowered for node in graph.nodes):
        env: dict[Value, Array] = {}
        for node, operands in execute(graph, arrays, env):
            for value, array in zip(node.inputs, operands, strict=True):
                if not value.is_constant:
                    values.setdefault(names[value], np.array(array))
        for value in graph.outputs:
            values.setdefault(names[value], widen(stored(value, env), value.dtype))
        return values
    check = require("graphopt.compiler.example_check", "a graph with nodes of torch")
    tensors = require("graphopt.frontend.import_torch", "a graph with nodes of torch")
    to_torch = require("graphopt.hosts.torch_ops", "a graph with nodes of torch").to_torch
    given = [to_torch(a, v.dtype) for a, v in zip(arrays, graph.inputs, strict=True)]
    for value, array in zip(graph.inputs, arrays, strict=True):
        values[names[value]] = widen(array, value.dtype)
    for _, made in check.execute(graph, given):
        for value, tensor in made.items():
            values[names[value]] = np.array(widen(tensors.to_numpy(tensor), value.dtype))
    for value in graph.outputs:
        if (constant := constant_of(value)) is not None:
            values[names[value]] = constant
    return values


def sizes_of(stage: Stage, values: Mapping[str, Array], inputs: Sequence[Array]) -> dict[Any, int]:
    """All dims of a run.

    Args:
        stage: what ran.
        values: that it computed.
        inputs: that it was given.
    """
    sizes = stage.graph.sizes([array.shape for array in inputs])
    for row in stage.nodes:
        for name, value in zip(row.outputs, row.node.outputs, strict=True):
            if row.node.op.computes and name in values:
                learn_sizes(sizes, value, values[name].shape)
    return sizes


def stands_for_of(stages: Stages, stage: Stage, name: str) -> str:
    """The value of the model that a value stands for: rows that are quantized, for what they were.

    Args:
        stages: of the model.
        stage: has the value.
        name: of the value.
    """
    for earlier in stages.part_of(stage):
        if name in earlier and isinstance(earlier[name].node.op, QuantizeRows):
            return stands_for_of(stages, earlier, next(iter(earlier[name].operands.values())))
        if name in earlier:
            return name
    return name


def constant_of(value: Value) -> Array | None:
    """The numbers of a constant; None for what is computed."""
    data = value.data
    return None if data is None else widen(data, value.dtype)


def _named(operands: Mapping[str, str], node: Node) -> list[tuple[str, Value]]:
    return [(operands[role], value) for role, value in node.operands.items()]


def metric_named(name: str) -> Metric | None:
    """The function of `module:function` or `file.py:function`; None for `sqnr`.

    Raises:
        OptionError: for what is none.
    """
    if name == "sqnr":
        return None
    if name in _METRICS:
        return _METRICS[name]
    try:
        return function_named(name)
    except NoFunction as missing:
        known = ", ".join(["sqnr", *_METRICS])
        how = f"{missing}; give {known}, or module:function or file.py:function of two arrays"
        raise OptionError("metric", name, how) from None


_METRICS: dict[str, Metric] = {
    "max": lambda got, reference: Error.of(got, reference).largest,
    "relative": lambda got, reference: Error.of(got, reference).relative,
    "cosine": lambda got, reference: 1.0 - Error.of(got, reference).cosine,
}
