"""The fastest mix of precisions whose results are good enough.

1. A model is planned once, and built in each precision as a whole. The time of a layer in a
   precision is that of its steps there: what a layer gains is taken not to depend on the others.
2. Each layer alone is narrowed, in numpy, which tells what it loses (sensitivity.py). Such losses
   are taken to add up.
3. From fp32 on, layers become narrower in the order of what they gain for what they lose. How far
   along that way the budget reaches is found by halving; each mix that is tried is built, run and
   measured as a whole. The first step that does not fit is left out, and the rest is tried again.
So estimates give the order, and say which of the mixes that fit is the fastest. What a plan is said
to lose and gain was measured with it.
"""

from __future__ import annotations

import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from graphopt.compiler.precision_plan import PrecisionPlan
from graphopt.compiler.program import OtherMachineWarning, Program
from graphopt.compiler.report import NodeReport, node_reports
from graphopt.driver import optimize
from graphopt.errors import InspectionError, UnknownPrecisionError
from graphopt.inspection.budget import Budget
from graphopt.inspection.models import Planned
from graphopt.inspection.models import planned as planned_models
from graphopt.inspection.sensitivity import lowered, noise, program_of, run_in_numpy
from graphopt.ir import Graph
from graphopt.ir.numbers import widen
from graphopt.ir.ops import Linear
from graphopt.printable import printable
from graphopt.progress import announce

Array = np.ndarray[Any, Any]
Compile = Callable[[PrecisionPlan], Any]

CANDIDATES = ("fp32", "bf16", "int8", "int4")
LEAST_GAIN = 0.02
"""Of a layer's time: less is not told from nothing."""
_RUNS, _MOST_RUNS = 7, 100
_SECONDS = 0.3  # of runs together
_ROUNDS = 3  # how often a step that does not fit is left out


@dataclass(frozen=True)
class Choice:
    """A precision that a layer can have.

    Attributes:
        precision: its name.
        ms: of the layer's steps.
        noise: energy of the error of the results over theirs, with this layer alone in it; None
            where it is no faster, so that it was not tried.
    """

    precision: str
    ms: float
    noise: float | None

    @property
    def alone(self) -> str:
        """What it loses, as SQNR; empty for nothing, or what was not tried."""
        return f"{-10 * math.log10(self.noise):.0f} dB" if self.noise else ""


@dataclass(frozen=True)
class Layer:
    """A layer and what it can be.

    Attributes:
        module: its path in the user's model.
        choices: fp32 first.
        chosen: what the plan gives it.
    """

    module: str
    choices: tuple[Choice, ...]
    chosen: str


@dataclass(frozen=True, eq=False)
class Mix:
    """A plan that was built and measured; equal to none but itself.

    Attributes:
        name: `fp32`, ... for a whole model, else a number in the order of trials.
        plan: precisions by layer.
        ms: shortest time of a run.
        value: of the budget's measure.
        holds: whether that is good enough.
    """

    name: str
    plan: PrecisionPlan
    ms: float
    value: float
    holds: bool


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes:
        model: its name.
        target: for which it was planned; times are of this machine.
        budget: what results had to be.
        layers: in the order of the model.
        best: the mix that was chosen.
        whole: the model in one precision, fp32 first.
        tried: mixes on the way, in the order of their times.
    """

    model: str
    target: str
    budget: Budget
    layers: tuple[Layer, ...]
    best: Mix
    whole: tuple[Mix, ...]
    tried: tuple[Mix, ...]

    @property
    def plan(self) -> PrecisionPlan:
        """For `graphopt.optimize(plan=...)`."""
        return self.best.plan

    @property
    def frontier(self) -> tuple[Mix, ...]:
        """Mixes than which none is both faster and better."""
        kept: list[Mix] = []
        for mix in sorted({*self.tried, *self.whole, self.best}, key=lambda m: m.ms):
            value = mix.value if self.budget.larger else -mix.value
            if all(value > (m.value if self.budget.larger else -m.value) for m in kept):
                kept.append(mix)
        return tuple(kept)

    @property
    def summary(self) -> str:
        """What the plan reaches."""
        best, faster = self.best, self.whole[0].ms / self.best.ms
        return f"{self.budget.shown(best.value)}, {faster:.2f} times as fast as fp32"

    def text(self) -> str:
        """The plan as a file, with what was found as comments."""
        title = f"{self.model} for {self.target}, {self.budget.text}: {self.summary}"
        notes = {}
        for layer in self.layers:
            told = [f"{c.precision} {c.alone}" for c in layer.choices if c.noise]
            notes[layer.module] = f"alone: {', '.join(told)}" if told else "no faster in another"
        return self.plan.text(title, notes)

    def table(self) -> Table:
        """What each layer takes and loses alone in each precision, and what it got."""
        shown = [mix.name for mix in self.whole]
        title = f"{self.model} for {self.target}: {self.summary}"
        table = Table(title=Text(printable(title)), title_justify="left")
        table.add_column("layer", overflow="fold")
        for name in shown:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("plan", overflow="fold")
        for layer in self.layers:
            known = {choice.precision: choice for choice in layer.choices}
            cells = [f"{known[p].ms:.3g} {known[p].alone}" if p in known else "" for p in shown]
            table.add_row(*map(Text, (printable(layer.module), *cells, layer.chosen)))
        for label, mixes in (("ms", self.whole), (self.budget.name, self.whole)):
            of = [f"{m.ms:.3g}" if label == "ms" else self.budget.shown(m.value) for m in mixes]
            best = self.best
            mine = f"{best.ms:.3g}" if label == "ms" else self.budget.shown(best.value)
            table.add_row(label, *map(Text, (*of, mine)), style="bold")
        table.caption = "ms of a layer, and SQNR of the results with it alone in a precision"
        return table

    def __rich__(self) -> Table:
        return self.table()

    def as_dict(self) -> dict[str, Any]:
        """What JSON shows."""

        def mix(one: Mix) -> dict[str, Any]:
            plan = {"precision": one.plan.precision, "layers": dict(one.plan.layers)}
            return {**asdict(replace(one, plan=PrecisionPlan())), "plan": plan}

        return {
            "model": self.model,
            "target": self.target,
            "budget": self.budget.text,
            "best": mix(self.best),
            "whole": [mix(one) for one in self.whole],
            "tried": [mix(one) for one in self.tried],
            "layers": [asdict(layer) for layer in self.layers],
        }


def tune_planned(
    graphs: Sequence[Planned],
    budget: Budget,
    precisions: Sequence[str] = CANDIDATES,
    compile_model: Compile | None = None,
) -> Tuned:
    """The fastest mix for a model that is planned in fp32.

    Args:
        graphs: those of the model; one.
        budget: what results have to be.
        precisions: that layers may have, fp32 among them.
        compile_model: makes what is called like the model; a measure of the model needs it.

    Raises:
        InspectionError: without inputs, if nodes stay in torch, or if fp32 is not good enough.
        GraphoptError: as building does.
    """
    planned = graphs[0]
    if len(graphs) != 1 or planned.inputs is None:
        why = "no one graph holds it, or it has no example inputs; tune a submodule, with some"
        raise InspectionError(planned.name, why)
    _ = planned.last  # refuses parts
    if budget.of_model is not None and compile_model is None:
        raise InspectionError(planned.name, "it is measured by its results; give two arguments")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OtherMachineWarning)
        return _Search(planned, budget, precisions, compile_model).tuned()


class _Search:
    def __init__(
        self,
        planned: Planned,
        budget: Budget,
        precisions: Sequence[str],
        compile_model: Compile | None,
    ) -> None:
        self._planned, self._budget, self._compile = planned, budget, compile_model
        self._graph, self._inputs = lowered(planned.stages), planned.example()
        self._steps_of: dict[str, dict[str, float]] = {}  # ms by precision and layer
        self._has: dict[str, dict[str, str]] = {}  # what layers got, by precision of the whole
        self._refused: dict[str, dict[str, str]] = {}  # what some cannot be planned in
        self._chosen: dict[Mix, dict[str, str]] = {}  # what layers got in a mix
        self._of_fp32 = 0.0
        self._reference: list[Array] = []
        self._base = run_in_numpy(
            program_of(self._graph, planned.options, PrecisionPlan("fp32")).graph, self._inputs
        )
        self._tried: dict[str, Mix] = {}
        given = [p for p in CANDIDATES if p == "fp32" or p in precisions]
        self._whole = [self._build_whole(precision) for precision in given]

    def tuned(self) -> Tuned:
        """The result."""
        fp32 = self._whole[0]
        if not self._budget.holds(fp32.value, fp32.value):
            value = self._budget.shown(fp32.value)
            why = f"fp32 itself has {value}, which {self._budget.text} does not allow"
            raise InspectionError(self._planned.name, why)
        layers = self._layers()
        self._search(_moves(layers))
        tried = sorted(self._tried.values(), key=lambda mix: mix.ms)
        best = min((m for m in (*tried, *self._whole) if m.holds), key=self._expected)
        got = self._chosen[best]
        rows = tuple(replace(layer, chosen=got[layer.module]) for layer in layers)
        name, target = self._planned.name, self._planned.options.target.name
        return Tuned(name, target, self._budget, rows, best, tuple(self._whole), tuple(tried))

    def _build_whole(self, precision: str) -> Mix:
        """The model in one precision, where its layers can have it; its steps are timed."""
        announce(f"{self._planned.name}: {precision}")
        self._refused[precision] = _refused(self._graph, self._planned, precision)
        plan = PrecisionPlan(precision, self._refused[precision])
        program = self._program(plan)
        self._has[precision] = _precisions(node_reports(program.graph), precision)
        self._steps_of[precision] = _layer_times(program, self._given())
        return self._measured(precision, plan, program)

    def _layers(self) -> list[Layer]:
        layers = []
        for module in self._has["fp32"]:
            first = Choice("fp32", self._steps_of["fp32"][module], 0.0)
            choices = [first]
            for precision in self._has:
                if precision == "fp32" or self._has[precision].get(module) != precision:
                    continue
                ms, lost = self._steps_of[precision][module], None
                if ms < first.ms * (1 - LEAST_GAIN):
                    announce(f"{self._planned.name}: {module} in {precision}")
                    lost = noise(
                        run_in_numpy(self._alone(module, precision), self._inputs), self._base
                    )
                choices.append(Choice(precision, ms, lost))
            choices.sort(key=lambda c: CANDIDATES.index(c.precision))
            layers.append(Layer(module, tuple(choices), "fp32"))
        return layers

    def _alone(self, module: str, precision: str) -> Graph:
        """The graph planned with one layer narrowed; what has no name is all that has none."""
        plan = PrecisionPlan("fp32", {module: precision})
        if not module:
            plan = PrecisionPlan(precision, {m: "fp32" for m in self._has["fp32"] if m})
        return self._program(plan).graph

    def _expected(self, mix: Mix) -> tuple[float, float]:
        """Milliseconds of the layers of a mix as they are in whole builds, then its own."""
        fp32 = self._steps_of["fp32"]
        got = self._chosen[mix].items()
        return sum(self._steps_of.get(p, fp32)[module] for module, p in got), mix.ms

    def _search(self, moves: list[tuple[str, str]]) -> None:
        """Tries mixes of as many moves as fit; see the module."""
        chosen: dict[str, str] = {}
        for _ in range(_ROUNDS):
            count = self._reach(chosen, moves)
            chosen |= dict(moves[:count])
            if count == len(moves):
                return
            blocked = moves[count][0]
            moves = [move for move in moves[count + 1 :] if move[0] != blocked]

    def _reach(self, chosen: Mapping[str, str], moves: Sequence[tuple[str, str]]) -> int:
        """How many moves fit beside those that are chosen."""
        fits, fails = 0, len(moves) + 1
        count = len(moves)
        while fits < count:
            if self._mix({**chosen, **dict(moves[:count])}).holds:
                fits = count
            else:
                fails = count
            count = (fits + fails) // 2
        return fits

    def _mix(self, chosen: Mapping[str, str]) -> Mix:
        plan = self._plan(chosen)
        key = plan.text()
        if key not in self._tried:
            name = f"mix {len(self._tried) + 1}"
            announce(f"{self._planned.name}: {name}")
            self._tried[key] = self._measured(name, plan, self._program(plan))
        return self._tried[key]

    def _plan(self, chosen: Mapping[str, str]) -> PrecisionPlan:
        """The plan of fewest entries that gives layers their precisions."""
        wanted = {module: chosen.get(module, "fp32") for module in self._has["fp32"]}
        used = [p for p in CANDIDATES if p in wanted.values()]
        defaults = [wanted[""]] if "" in wanted else used
        plans = [self._plan_of(default, wanted) for default in defaults]
        return min(plans, key=lambda plan: len(plan.layers))

    def _plan_of(self, default: str, wanted: Mapping[str, str]) -> PrecisionPlan:
        """The plan with entries for what the default, or an entry above, makes of layers."""
        layers: dict[str, str] = {}
        for module in sorted(wanted, key=lambda m: m.count(".")):
            inherited = PrecisionPlan(default, layers).precision_of(module)
            is_refused = module in self._refused[inherited]
            if is_refused or self._has[inherited][module] != wanted[module]:
                layers[module] = wanted[module]
        return PrecisionPlan(default, {m: layers[m] for m in wanted if m in layers})

    def _program(self, plan: PrecisionPlan) -> Program:
        return program_of(self._graph, self._planned.options, plan)

    def _given(self) -> list[Array]:
        return [array.copy() for array in self._inputs]

    def _measured(self, name: str, plan: PrecisionPlan, program: Program) -> Mix:
        made = [
            np.array(widen(array, value.dtype))
            for array, value in zip(program.run(self._given()), program.graph.outputs, strict=True)
        ]
        self._reference = self._reference or made  # fp32 is the first
        if self._budget.of_model is None:
            value = self._budget.worst(made, self._reference)
        else:
            assert self._compile is not None
            value = float(self._budget.of_model(self._compile(plan)))
        if name == "fp32":
            self._of_fp32 = value
        holds = self._budget.holds(value, self._of_fp32)
        mix = Mix(name, plan, _milliseconds(program, self._inputs), value, holds)
        self._chosen[mix] = _precisions(node_reports(program.graph), "")
        return mix


def _layer_times(program: Program, inputs: Sequence[Array]) -> dict[str, float]:
    """Milliseconds of the steps of each layer."""
    times: dict[str, float] = defaultdict(float)
    for step in program.profile(inputs, _RUNS).rows:
        times[step["module"]] += step["ms"]
    return times


def _milliseconds(program: Program, inputs: Sequence[Array]) -> float:
    """The shortest of some runs: more of short ones, which others disturb."""
    times: list[float] = []
    while len(times) < _RUNS or (sum(times) < _SECONDS and len(times) < _MOST_RUNS):
        given = [array.copy() for array in inputs]
        start = time.perf_counter()
        program.run(given)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def _precisions(rows: Iterable[NodeReport], wanted: str) -> dict[str, str]:
    """The precision of each layer; of one with several, the wanted one or else the narrowest."""
    found: dict[str, str] = {}
    for row in rows:
        precision = "fp32" if row.precision == "f32" else row.precision
        if precision and (known := found.get(row.module)) != wanted:
            narrower = max(known or "fp32", precision, key=CANDIDATES.index)
            found[row.module] = wanted if precision == wanted else narrower
    return found


def _refused(graph: Graph, planned: Planned, precision: str) -> dict[str, str]:
    """Layers that cannot be planned in a precision: int4 whose depth no group divides."""
    group = planned.options.group
    if precision != "int4" or not group:
        return {}
    depths = {
        node.origin.module: node.operands["weight"].shape[1]
        for node in graph.nodes
        if isinstance(node.op, Linear)
    }
    return {module: "fp32" for module, depth in depths.items() if module and depth % group}


def _moves(layers: Sequence[Layer]) -> list[tuple[str, str]]:
    """Layers and what they become, the most time for the least loss first.

    Of each layer only what lies on the convex hull of time and loss is a move: what is slower and
    loses more than a mean of two others is none.
    """
    ranked: list[tuple[float, str, str]] = []
    for layer in layers:
        at = layer.choices[0]
        left = [c for c in layer.choices[1:] if c.noise is not None]
        while ways := [c for c in left if c.ms < at.ms * (1 - LEAST_GAIN)]:
            best = max(ways, key=lambda c: (_rate(at, c), -c.ms))
            ranked.append((_rate(at, best), layer.module, best.precision))
            at = best
    ranked.sort(key=lambda move: -move[0])
    return [(module, precision) for _, module, precision in ranked]


def _rate(one: Choice, other: Choice) -> float:
    """Milliseconds gained for what is lost."""
    lost = max((other.noise or 0.0) - (one.noise or 0.0), 1e-16)
    return (one.ms - other.ms) / lost


def tune(
    model: Any,
    example_inputs: tuple[Any, ...] | dict[str, Any] | None = None,
    budget: str = "sqnr>=30dB",
    metric: Callable[..., Any] | None = None,
    target: str = "native",
    precisions: Sequence[str] = CANDIDATES,
    **options: Any,
) -> Tuned:
    """The fastest mix of precisions for a model whose results are good enough.

    Args:
        model: a torch module, or an ONNX model.
        example_inputs: as for `graphopt.optimize`; results and times are those of these inputs.
        budget: such as `sqnr>=30dB` (graphopt/inspection/budget.py).
        metric: a measure of the user's, which the budget names as it likes: a function of a result
            and what it is in fp32 (arrays), or of what is called like the model.
        target: for which it is planned; times are of this machine's kernels.
        precisions: that layers may have.
        options: more of `graphopt.optimize`.

    Returns:
        The plan, for `graphopt.optimize(plan=...)`, and what it was chosen from.

    Raises:
        OptionError: for a budget or a measure that is none.
        InspectionError: without inputs, if nodes stay in torch, or if fp32 is not good enough.
        GraphoptError: as `graphopt.optimize`.
    """
    wanted = Budget.of(budget, metric)
    check_precisions(precisions)
    found = planned_models(model, target, "fp32", example_inputs, **options)

    def compiled(plan: PrecisionPlan) -> Any:
        given = {**options, "example_inputs": example_inputs, "plan": plan, "check": False}
        return optimize(model, target, **given)

    return tune_planned(found, wanted, precisions, compiled)


def check_precisions(precisions: Sequence[str]) -> None:
    """Raises UnknownPrecisionError for what no layer has."""
    for precision in precisions:
        if precision not in CANDIDATES:
            raise UnknownPrecisionError(str(precision), CANDIDATES)
