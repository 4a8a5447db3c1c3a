"""What a model would take on Arm cores that are not here: cycles, memory, balance, critical path.

Kernels are priced by LLVM's model of the core (`graphopt/n2sim`), one call of each shape; memory
gives what constants and cached keys and values take; the tasks of a step fall on cores as the
kernels of this machine cut and time them.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from graphopt.bench.arm_model import Prices, assumptions, step_costs
from graphopt.bench.machine import Machine
from graphopt.compiler.program import OtherMachineWarning, Program
from graphopt.config import Config
from graphopt.errors import InspectionError
from graphopt.inspection.models import Planned
from graphopt.ir.networks import critical_path
from graphopt.n2sim.cores import CORES
from graphopt.printable import printable
from graphopt.toolchain.build import Builder

Array = np.ndarray[Any, Any]

_BALANCE_RUNS = 3
_LINES = 12


@dataclass(frozen=True)
class Step:
    """A step on a number of cores.

    Attributes:
        node: its name.
        op: operation.
        kernel: generic name.
        module: path in the model.
        arithmetic: cycles with everything in the first cache.
        memory: cycles until memory has sent what it reads.
        start: cycles to begin and end it on all cores.
        balance: work of its tasks over what the cores could have done in its time.
        critical: whether it is on the critical path.
    """

    node: str
    op: str
    kernel: str
    module: str
    arithmetic: float
    memory: float
    start: float
    balance: float
    critical: bool

    @property
    def cycles(self) -> float:
        """Until all cores are done."""
        return max(self.arithmetic, self.memory) + self.start


@dataclass(frozen=True)
class Prediction:
    """A model on a number of cores.

    Attributes:
        name: of the model.
        target: the CPU.
        cores: how many.
        machine: what is assumed.
        steps: in order.
    """

    name: str
    target: str
    cores: int
    machine: Machine
    steps: tuple[Step, ...]

    @property
    def cycles(self) -> float:
        """Of a call."""
        return sum(step.cycles for step in self.steps)

    @property
    def ms(self) -> float:
        """Milliseconds of a call."""
        return self.cycles / self.machine.clock * 1e3

    @property
    def memory_bound(self) -> float:
        """Part of the cycles in steps that wait for memory."""
        waiting = sum(step.cycles for step in self.steps if step.memory > step.arithmetic)
        return waiting / self.cycles if self.cycles else 0.0

    @property
    def critical(self) -> float:
        """Cycles of the steps that wait for each other for longest."""
        return sum(step.cycles for step in self.steps if step.critical)

    @property
    def balance(self) -> float:
        """That of all steps, by their cycles."""
        if not self.cycles:
            return 1.0
        return sum(step.balance * step.cycles for step in self.steps) / self.cycles

    def as_dict(self) -> dict[str, Any]:
        """All of it."""
        return {
            "model": self.name,
            "target": self.target,
            "cores": self.cores,
            "ms": self.ms,
            "cycles": self.cycles,
            "memory_bound": self.memory_bound,
            "balance": self.balance,
            "critical_cycles": self.critical,
            "constants": self.machine.as_dict(),
            "steps": [vars(step) | {"cycles": step.cycles} for step in self.steps],
        }


def predict(
    planned: Planned,
    cores: Sequence[int],
    machine: Machine,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Prediction]:
    """What a call takes on numbers of cores.

    Args:
        planned: a model, planned for an Arm target whose core LLVM has a model of.
        cores: how many, one prediction each.
        machine: what is known or assumed of it.
        progress: told what is priced.

    Raises:
        InspectionError: for a model that is more than one compiled graph, or without inputs.
        MissingToolError, MissingEmulatorError, PricingError: see `graphopt.n2sim.price`.
    """
    target = planned.options.target
    if target.name not in CORES:
        cores_known = ", ".join(CORES)
        why = f"LLVM's models are used of {cores_known}; graphopt profile measures on {target.name}"
        raise InspectionError(planned.name, why)
    _ = planned.last
    (program,) = planned.compiled.programs()
    inputs = planned.example()
    work = program.work(inputs)
    config = Config.from_environment()
    prices = Prices(target, Builder(config.cache, 1), config.cache / "prices.json", progress)
    return [_on_cores(planned, program, inputs, work, prices, machine, count) for count in cores]


def _on_cores(
    planned: Planned,
    program: Program,
    inputs: Sequence[Array],
    work: Sequence[Mapping[str, Any]],
    prices: Prices,
    machine: Machine,
    cores: int,
) -> Prediction:
    balances = None
    if cores > 1:
        prices.progress(f"balance on {cores} cores")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OtherMachineWarning)
            given = [array.copy() for array in inputs]
            balances = program.balance(given, cores, _BALANCE_RUNS)
    costs = step_costs(work, balances, prices, machine, cores)
    start = machine.step_seconds * machine.clock if cores > 1 else 0.0
    nodes = [step.node for step in program.module.steps]
    taken = [cost.cycles + start for cost in costs]
    longest = set(critical_path(program.graph.nodes, dict(zip(nodes, taken, strict=True))))
    steps = [
        Step(
            row["node"],
            row["op"],
            row["kernel"],
            row["module"],
            cost.arithmetic,
            cost.memory,
            start,
            balances[number].balance if balances else 1.0,
            node in longest,
        )
        for number, (row, cost, node) in enumerate(zip(work, costs, nodes, strict=True))
    ]
    name = planned.options.target.name
    return Prediction(planned.name, name, cores, machine, tuple(steps))


def prediction_tables(found: Sequence[Prediction]) -> Group:
    """An overview by numbers of cores, the costliest ops, and what was assumed.

    Args:
        found: predictions of one model.
    """
    first = found[0]
    title = f"{printable(first.name)} on {first.target}, predicted"
    table = Table(title=Text(title), title_justify="left", width=80)
    table.add_column("cores", justify="right")
    for head in ("ms a call", "M cycles", "speed-up", "balance", "of memory", "critical path"):
        table.add_column(head, justify="right")
    for one in found:
        table.add_row(
            str(one.cores),
            f"{one.ms:.3f}",
            f"{one.cycles / 1e6:.3f}",
            f"{first.cycles / one.cycles:.1f}x" if one.cycles else "",
            f"{one.balance:.0%}",
            f"{one.memory_bound:.0%}",
            f"{one.critical / one.cycles:.0%}" if one.cycles else "",
        )
    return Group(table, _by_op(found), Text(assumed_text(first.machine)))


def _by_op(found: Sequence[Prediction]) -> Table:
    """Parts of the cycles, op by op."""
    table = Table(title="parts of the cycles by op", title_justify="left", width=80)
    table.add_column("op", overflow="fold", ratio=1)
    for one in found:
        table.add_column(f"{one.cores} core{'s' * (one.cores > 1)}", justify="right")
    parts: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(found))
    for number, one in enumerate(found):
        for step in one.steps:
            name = f"{step.op.removeprefix('go.')} {step.kernel.removeprefix('go_')}"
            parts[name][number] += step.cycles / one.cycles if one.cycles else 0.0
    rows = sorted(parts.items(), key=lambda row: -row[1][0])
    for name, shares in rows[:_LINES]:
        table.add_row(Text(printable(name)), *(f"{share:.1%}" for share in shares))
    if rest := rows[_LINES:]:
        sums = map(sum, zip(*(shares for _, shares in rest), strict=True))
        table.add_row(f"{len(rest)} others", *(f"{share:.1%}" for share in sums))
    return table


def assumed_text(machine: Machine) -> str:
    """What predictions assume, with the origin of every constant that is known."""
    origins = [
        f"{name} = {one.value:g} {one.unit} ({one.origin})"
        for name, one in machine.constants.items()
    ]
    known = f"\nKnown of {machine.name or 'this machine'}: {'; '.join(origins)}." if origins else ""
    return assumptions(machine) + known
